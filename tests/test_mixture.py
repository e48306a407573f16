"""Mixtures: shares, one tokenizer, resuming, a validation split and a loss for each.

Run alone: pytest tests/test_mixture.py
"""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kancourse.lab.batches import RandomWindows
from kancourse.lab.corpus import load_corpus
from kancourse.lab.evaluate import evaluate
from kancourse.lab.mixture import MixedWindows, component_losses, joined, parse_mixture
from kancourse.lab.probes import PROBES
from kancourse.lab.tokens import TokenArray
from kancourse.lab.train import TrainConfig, train
from kancourse.zoo import build


def split(token: int, n: int = 40) -> TokenArray:
    """Documents of one token only, so that a row tells where it is from."""
    return TokenArray.from_documents([[token] * 7] * n, eot_id=9, vocab_size=10)


def mixed(weights: list[float], batch_size: int, seed: int = 0) -> MixedWindows:
    samplers = [RandomWindows(split(i), 8, batch_size, seed) for i in range(len(weights))]
    return MixedWindows(samplers, [weight / sum(weights) for weight in weights], seed)


@given(
    weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=4),
    batch_size=st.integers(1, 33),
    i=st.integers(0, 10**6),
)
def test_every_batch_has_its_shares_to_within_one_row(weights, batch_size, i):
    counts = np.bincount(mixed(weights, batch_size).which(i), minlength=len(weights))
    shares = np.array(weights) / sum(weights) * batch_size
    assert (abs(counts - shares) < 1 + 1e-9).all()


def test_over_many_batches_small_shares_come_to_their_own_and_rows_have_no_places():
    sampler = mixed([9, 1], 4)
    which = np.stack([sampler.which(i) for i in range(2000)])
    assert abs(which.mean() - 0.1) < 0.01
    assert (abs(which.mean(axis=0) - 0.1) < 0.04).all()


def test_a_batch_is_a_function_of_seed_and_number_and_is_shared_out_exactly():
    sampler, again, other = mixed([1, 2], 6), mixed([1, 2], 6), mixed([1, 2], 6, seed=1)
    x, y = sampler.batch(5)
    assert torch.equal(x, again.batch(5)[0])
    assert torch.equal(y, again.batch(5)[1])
    assert any(not torch.equal(sampler.batch(i)[0], other.batch(i)[0]) for i in range(5))
    halves = [sampler.batch(5, rank=rank, world_size=2)[0] for rank in range(2)]
    assert torch.equal(torch.cat(halves), x)
    told = [(set(row.tolist()) - {9}).pop() for row in x]
    assert told == sampler.which(5).tolist()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a+b", [("a", 0.5), ("b", 0.5)]),
        ("a:3+b:1", [("a", 0.75), ("b", 0.25)]),
        ("m2d2/cs_l1:1 + gsm8k", [("m2d2/cs_l1", 0.5), ("gsm8k", 0.5)]),
    ],
)
def test_how_a_mixture_is_written(name, parts):
    assert parse_mixture(name) == parts


@pytest.mark.parametrize("name", ["a+", "a:x+b", "a:0+b", "a:-1+b", "a:inf+b", ":2+b"])
def test_what_is_no_mixture_is_refused_in_one_sentence(name):
    with pytest.raises(ValueError, match=r"a mixture is written like gsm8k:2\+microworld:1, with weights above 0, not"):
        load_corpus(name)


def test_splits_are_joined_in_order():
    whole = joined([split(1, 3), split(2, 2)])
    assert (whole.n_documents, whole.n_characters) == (5, 35)
    assert whole.document(3).tolist() == [2] * 7 + [9]
    assert whole.floor is None


@pytest.fixture
def mixture():
    return load_corpus("microworld/sums:1+microworld/facts:3")


def test_a_mixture_keeps_its_parts_and_says_what_they_are(mixture):
    sums, facts = (part.corpus for part in mixture.components)
    assert mixture.tokenizer.name == "words", "all parts have one closed vocabulary"
    assert len(mixture.val) == len(sums.val) + len(facts.val)
    assert mixture.val.floor == pytest.approx(-(sums.val.log_prob + facts.val.log_prob) / len(mixture.val))
    told = json.loads(json.dumps(mixture.describe()))
    assert [(part["name"], part["share"]) for part in told["components"]] == [
        ("microworld/sums", 0.25),
        ("microworld/facts", 0.75),
    ]
    alone = load_corpus("microworld", domains=("sums",))
    assert np.array_equal(alone.val.ids, sums.val.ids)


def test_one_tokenizer_is_learned_from_all(tmp_path):
    (tmp_path / "greek.txt").write_text("αβγδ " * 400, encoding="utf-8")
    (tmp_path / "latin.txt").write_text("abcd " * 400, encoding="utf-8")
    name = f"{tmp_path / 'greek.txt'}:1+{tmp_path / 'latin.txt'}:2"
    corpus = load_corpus(name, tokenizer="characters")
    assert set(corpus.tokenizer.alphabet) == set("αβγδ abcd")
    assert str(tmp_path) not in json.dumps(corpus.describe()), "a record names no folder of this machine"
    again = load_corpus(name, tokenizer="characters")
    assert again.describe() == corpus.describe()
    assert load_corpus(name).tokenizer.name == "bytes", "a file of one's own has bytes"


def test_training_on_a_mixture_resumes_and_each_part_has_its_loss(mixture, tmp_path):
    sizes = {"vocab_size": mixture.tokenizer.vocab_size, "block_size": 32, "n_layer": 1, "seed": 0}
    settings = {"steps": 6, "batch_size": 4, "eval_every": 3, "eval_batches": 1, "device": "cpu"}
    models = [build("gpt-nano", **sizes) for _ in range(2)]
    train(models[0], mixture, TrainConfig(**settings, out_dir=str(tmp_path / "one")))
    train(models[1], mixture, TrainConfig(**settings, out_dir=str(tmp_path / "two")), until=3)
    train(models[1], mixture, TrainConfig(**settings, out_dir=str(tmp_path / "two")))
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    told = component_losses(models[0], mixture)
    together = sum(part.loss * part.n_tokens for part in told.values()) / sum(part.n_tokens for part in told.values())
    assert together == pytest.approx(evaluate(models[0], mixture.val).loss, abs=0.02)  # rows end at the seam
    probed = PROBES["components"](models[0], mixture, 0)
    assert probed["microworld/sums"]["loss"] == told["microworld/sums"].loss
