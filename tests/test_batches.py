"""Batches are pure functions of (seed, i); nothing in a split is out of reach; evaluation scores everything once."""

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kancourse.lab.batches import IGNORE, DocumentWindows, RandomWindows, evaluation_batches
from kancourse.lab.tokens import TokenArray

EOT = 9
DOCUMENTS = st.lists(st.lists(st.integers(0, 8), max_size=12), min_size=1, max_size=12)
BLOCK = st.integers(1, 12)
SAMPLERS = pytest.mark.parametrize("sampler", [RandomWindows, DocumentWindows])


def split_of(documents: list[list[int]]) -> TokenArray:
    return TokenArray.from_documents(documents, eot_id=EOT, vocab_size=10)


def numbered(lengths: list[int]) -> TokenArray:
    """A split whose ids are all different except for end-of-text, so that a position can be read off its id."""
    tokens = TokenArray.from_documents([[0] * length for length in lengths], eot_id=1, vocab_size=2)
    tokens.ids = np.arange(1, len(tokens) + 1, dtype=np.uint32)
    tokens.eot_id = int(tokens.ids[-1])
    return tokens


@SAMPLERS
@given(documents=DOCUMENTS, block_size=BLOCK, batch_size=st.integers(1, 5), seed=st.integers(0, 2**60))
def test_targets_follow_their_inputs_in_the_split(sampler, documents, block_size, batch_size, seed):
    tokens = split_of(documents)
    if len(tokens) < block_size:
        with pytest.raises(
            ValueError, match=rf"split of {len(tokens)} tokens is shorter than one block of {block_size}"
        ):
            sampler(tokens, block_size, batch_size, seed)
        return
    ring = torch.from_numpy(tokens.ids.astype(np.int64)).repeat(3).tolist()
    runs = {tuple(ring[i : i + block_size + 1]) for i in range(len(tokens))}
    x, y = sampler(tokens, block_size, batch_size, seed).batch(3)
    assert x.shape == y.shape == (batch_size, block_size)
    assert x.dtype == y.dtype == torch.int64
    assert x.is_contiguous()
    assert y.is_contiguous()
    for inputs, targets in zip(x.tolist(), y.tolist(), strict=True):
        assert inputs[1:] == targets[:-1]
        assert (*inputs, targets[-1]) in runs


@SAMPLERS
def test_a_batch_depends_on_its_seed_and_number_alone(sampler):
    tokens = split_of([[i % 9 for i in range(n)] for n in (3, 50, 7, 20)] * 5)
    make = lambda seed: sampler(tokens, 16, 8, seed)  # noqa: E731
    forwards = {i: make(1).batch(i) for i in range(6)}
    one = make(1)
    for i in (5, 0, 3, 3, 2, 1, 4):
        assert torch.equal(one.batch(i)[0], forwards[i][0])
        assert torch.equal(one.batch(i)[1], forwards[i][1])
    different = [make(1).batch(0)[0], make(1).batch(1)[0], make(2).batch(0)[0], make(2).batch(1)[0]]
    assert all(not torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


@SAMPLERS
@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_the_shares_of_all_ranks_make_the_global_batch(sampler, world_size):
    batches = sampler(split_of([[1, 2, 3], [4] * 30]), 8, 6, seed=5)
    shares = [batches.batch(7, rank=rank, world_size=world_size) for rank in range(world_size)]
    for whole, parts in zip(batches.batch(7), zip(*shares, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(parts))


def test_a_batch_that_cannot_be_shared_is_an_error():
    batches = RandomWindows(split_of([[1] * 30]), 8, 6)
    with pytest.raises(ValueError, match="rank 0 of 4 cannot take an equal share of 6 rows"):
        batches.batch(0, rank=0, world_size=4)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        batches.batch(0, rank=2, world_size=2)


@SAMPLERS
@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5), block_size=st.integers(1, 6))
def test_every_token_is_the_target_of_some_row(sampler, lengths, block_size):
    tokens = numbered(lengths)
    if len(tokens) < block_size:
        return
    batches = sampler(tokens, block_size, 64, seed=0)
    seen = set(torch.cat([batches.batch(i)[1].flatten() for i in range(12)]).tolist())
    assert seen == set(tokens.ids.tolist())


def test_random_windows_are_equally_likely_everywhere():
    tokens = numbered([20])
    batches = RandomWindows(tokens, 5, 1000, seed=1)
    first = torch.cat([batches.batch(i)[1][:, 0] for i in range(20)])
    counts = torch.bincount(first, minlength=18)[1:18].double()
    expected = 20_000 / 17
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert counts.sum() == 20_000
    assert chi_squared < 16 + 4 * math.sqrt(2 * 16)


def test_document_windows_start_with_a_document():
    tokens = numbered([3, 0, 5, 2])
    firsts = DocumentWindows(tokens, 8, 200).batch(0)[1][:, 0]
    assert set(firsts.tolist()) == set(tokens.ids[tokens.starts].tolist())


def test_long_documents_are_entered_at_every_block():
    firsts = DocumentWindows(numbered([10, 2]), 4, 200).batch(0)[1][:, 0]
    assert set(firsts.tolist()) == {1, 5, 9, 12}


@given(documents=DOCUMENTS, block_size=BLOCK, batch_size=st.integers(1, 4))
def test_evaluation_scores_every_token_once_after_the_one_before_it(documents, block_size, batch_size):
    tokens = split_of(documents)
    batches = evaluation_batches(tokens, block_size, batch_size)
    pairs, sizes = [], []
    for x, y in batches:
        assert x.shape == y.shape
        assert x.shape[1] == block_size
        sizes.append(len(x))
        real = y != IGNORE
        assert (x[~real] == EOT).all()
        assert (real.long().diff(dim=1) <= 0).all()  # padding stands at the end only
        pairs += zip(x[real].tolist(), y[real].tolist(), strict=True)
    ids = tokens.ids.tolist()
    assert pairs == list(zip([EOT, *ids], ids, strict=False))
    assert len(sizes) == len(batches)
    assert all(size == batch_size for size in sizes[:-1])
    assert batches.n_targets == len(tokens)


@given(documents=DOCUMENTS, block_size=BLOCK)
def test_a_document_that_fits_is_read_in_one_row(documents, block_size):
    tokens = numbered([len(document) for document in documents])
    row_of = {}
    for row, (_, y) in enumerate(evaluation_batches(tokens, block_size, 1)):
        row_of |= dict.fromkeys(y[y != IGNORE].tolist(), row)
    for index in range(tokens.n_documents):
        document = tokens.document(index).tolist()
        rows = [row_of[token] for token in document]
        if len(document) <= block_size:
            assert len(set(rows)) == 1
        else:
            assert row_of.get(document[0] - 1) != rows[0], "a long document starts its own row"


def test_a_single_long_text_fills_every_row_but_the_last():
    tokens = split_of([[1] * 1000])
    rows = torch.cat([y for _, y in evaluation_batches(tokens, 64, 7)])
    assert len(rows) == math.ceil(1001 / 64)
    assert (rows[:-1] != IGNORE).all()


def test_documents_that_fill_a_row_exactly_share_it():
    assert evaluation_batches(numbered([3, 3, 3, 3]), 8, 9).rows.tolist() == [[0, 8], [8, 16]]
    assert evaluation_batches(numbered([3, 3, 3, 3]), 9, 9).rows.tolist() == [[0, 8], [8, 16]]


def test_few_batches_are_spread_over_the_split():
    tokens = numbered([9] * 100)
    some = evaluation_batches(tokens, 10, 4, max_batches=3)
    targets = torch.cat([y.flatten() for _, y in some])
    assert len(some) == 3
    assert some.n_targets == len(targets) == 120
    assert targets.min() == 1
    assert targets.max() == 1000
    assert len(targets.unique()) == 120
    assert len(evaluation_batches(tokens, 10, 4, max_batches=1000)) == 25


def test_impossible_sizes_are_errors():
    tokens = split_of([[1] * 30])
    with pytest.raises(ValueError, match="at least 1, got 0 and 4"):
        RandomWindows(tokens, 0, 4)
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        RandomWindows(tokens, 8, 4, seed=-1)
    with pytest.raises(ValueError, match="max_batches=0"):
        evaluation_batches(tokens, 8, 4, max_batches=0)


@SAMPLERS
def test_sampling_a_batch_takes_far_less_than_a_millisecond(sampler):
    tokens = split_of([[1] * 99] * 10_000)
    batches = sampler(tokens, 128, 32)
    best = math.inf
    for i in range(50):
        start = time.perf_counter()
        batches.batch(i)
        best = min(best, time.perf_counter() - start)
    assert best < 1e-3
