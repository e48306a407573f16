"""Segments with a memory against banded attention, and the mistakes that look like it.

Run: pytest tests/test_segment_memory.py
"""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kancourse.attention import CausalSelfAttention, rope
from kancourse.gpt import GPT, DecodeState, GPTConfig
from kancourse.segment_memory import (
    BandedAttention,
    SegmentedAttention,
    SegmentMemory,
    band_mask,
    banded_attention,
    naive_banded_attention,
)
from kancourse.zoo import build

T, WINDOW, SEGMENT = 29, 6, 8


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def banded_gpt(*, seed: int = 0, n_layer: int = 3, position: str = "rope", **options) -> GPT:
    """A small GPT in float64, with weights large enough for attention to matter."""
    sizes = {"vocab_size": 17, "block_size": 32, "n_layer": n_layer, "n_embd": 16, "n_head": 2}
    options = {"window": WINDOW} | options
    model = build("llama-nano", seed=seed, mixer="banded", mixer_options=options, position=position, **sizes).double()
    for n, parameter in enumerate(model.parameters()):
        parameter.data.copy_(randn(*parameter.shape, seed=seed + n) / math.sqrt(parameter.shape[-1]))
    return model


def text(seed: int = 0) -> torch.Tensor:
    return torch.randint(17, (2, T), generator=torch.Generator().manual_seed(seed))


def by_segments(model: GPT, idx: torch.Tensor, length: int, change=lambda state: state) -> torch.Tensor:
    """Logits, segment by segment, with the memory handed on (through `change`)."""
    state, logits = None, []
    for piece in idx.split(length, dim=1):
        out, state = model.step(piece, None if state is None else change(state))
        logits.append(out)
    return torch.cat(logits, dim=1)


@settings(max_examples=30)
@given(
    n_query=st.integers(1, 9),
    past=st.integers(0, 9),
    window=st.integers(1, 12),
    dim=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_masked_equals_naive(n_query, past, window, dim, seed):
    q = randn(2, 3, n_query, dim, seed=seed)
    k, v = (randn(2, 3, past + n_query, dim, seed=seed + n) for n in (1, 2))
    torch.testing.assert_close(banded_attention(q, k, v, window), naive_banded_attention(q, k, v, window))
    assert band_mask(n_query, past + n_query, window).sum(-1).tolist() == [
        min(window, past + t + 1) for t in range(n_query)
    ]


@settings(max_examples=25)
@given(
    window=st.integers(1, 40),
    length=st.integers(1, 30),
    position=st.sampled_from(["rope", "none"]),
    seed=st.integers(0, 20),
)
def test_chunked_equals_banded(window, length, position, seed):
    """The law: any window, any segment, any depth; values and, with the memory attached, all gradients."""
    model, idx = banded_gpt(seed=seed, n_layer=2, position=position, window=window), text(seed)
    whole, chunked = model(idx), by_segments(model, idx, length)
    torch.testing.assert_close(chunked, whole)
    up = randn(*whole.shape, seed=seed)
    for a, b in zip(*(torch.autograd.grad(y, list(model.parameters()), up) for y in (whole, chunked)), strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=15)
@given(window=st.integers(1, 20), length=st.integers(1, 12), seed=st.integers(0, 20))
def test_detached_memory_is_the_segment_option(window, length, seed):
    """Cut between segments, one forward with `segment` equals a loop with `detach`, in values and gradients."""
    model = banded_gpt(seed=seed, window=window, segment=length)
    idx = text(seed)
    whole = model(idx)

    def cut(state: DecodeState) -> DecodeState:
        return DecodeState(state.length, [memory.detach() for memory in state.blocks])

    chunked = by_segments(model, idx, length, cut)
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(chunked, banded_gpt(seed=seed, window=window)(idx))
    up = randn(*whole.shape, seed=seed)
    for a, b in zip(*(torch.autograd.grad(y, list(model.parameters()), up) for y in (whole, chunked)), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_within_the_segment_need_no_past():
    """With respect to its own tokens a segment's loss has the same gradient, whether the memory is cut or not."""
    config = GPTConfig(n_embd=8, n_head=2, position="rope", block_size=32)
    free, cut = (BandedAttention(config, window=7, segment=segment).double() for segment in (None, SEGMENT))
    cut.load_state_dict(free.state_dict())
    x = randn(1, T, 8).requires_grad_()
    for start in range(0, T, SEGMENT):
        own = slice(start, start + SEGMENT)
        with_past, without = (torch.autograd.grad(layer(x)[:, own].square().sum(), x)[0] for layer in (free, cut))
        torch.testing.assert_close(with_past[:, own], without[:, own])
        assert not without[:, :start].any()
        assert with_past[:, :start].any() == (start > 0)


def test_a_window_as_long_as_the_text_is_plain_attention():
    config = GPTConfig(n_embd=8, n_head=2, position="rope", block_size=32)
    plain, banded = CausalSelfAttention(config).double(), BandedAttention(config, window=T).double()
    banded.load_state_dict(plain.state_dict())
    x = randn(2, T, 8)
    torch.testing.assert_close(banded(x), plain(x))
    torch.testing.assert_close(banded(x[:, 9:], state=banded.step(x[:, :9], _nothing(banded))[1]), plain(x)[:, 9:])


def _nothing(layer: BandedAttention) -> SegmentMemory:
    return layer.empty_state(2, torch.device("cpu"), torch.float64)


def test_memory_reaches_as_far_as_layers_times_window_and_no_further():
    """And that far, memory does matter: it is not the mistake of forgetting to hand it on."""
    model, idx = banded_gpt(n_layer=3), text()
    reach = 3 * (WINDOW - 1)
    far, near = idx.clone(), idx.clone()
    far[:, T - 2 - reach] = (far[:, T - 2 - reach] + 1) % 17  # one further than the last token hears
    near[:, T - 1 - reach] = (near[:, T - 1 - reach] + 1) % 17
    last = [by_segments(model, ids, SEGMENT)[:, -1] for ids in (idx, far, near)]
    assert torch.equal(last[0], last[1])
    assert not torch.equal(last[0], last[2])


def test_decoding_has_no_end_and_its_state_no_growth():
    model, idx = banded_gpt(), torch.randint(17, (1, 3 * 32), generator=torch.Generator().manual_seed(0))
    assert model.context_limit is None
    _, state = model.step(idx[:, :50])
    assert all(memory.k.size(2) == memory.v.size(2) == WINDOW - 1 for memory in state.blocks)
    wanted, _ = model.step(idx)
    got = []
    for n in range(50, 96):
        logits, state = model.step(idx[:, n : n + 1], state)
        got.append(logits)
    torch.testing.assert_close(torch.cat(got, dim=1), wanted[:, 50:])


MISTAKES = {
    "a return that is missing": lambda state: DecodeState(
        state.length, copy.deepcopy(banded_gpt().empty_state(2).blocks)
    ),
    "the memory of the layer below": lambda state: DecodeState(state.length, [state.blocks[-1], *state.blocks[:-1]]),
    "keys turned by where they were": lambda state: DecodeState(state.length, [_turned(m) for m in state.blocks]),
    "one position lost": lambda state: DecodeState(
        state.length, [SegmentMemory(m.k[:, :, 1:], m.v[:, :, 1:]) for m in state.blocks]
    ),
}


def _turned(memory: SegmentMemory) -> SegmentMemory:
    """Rotated in their own segment, 3…7, then again from here: positions of two origins."""
    return SegmentMemory(rope(memory.k, torch.arange(SEGMENT - memory.k.size(2), SEGMENT)), memory.v)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_seen(mistake):
    """What the source did (the first two), and two more that leave every shape as it should be."""
    model, idx = banded_gpt(), text()
    right, wrong = model(idx), by_segments(model, idx, SEGMENT, MISTAKES[mistake])
    torch.testing.assert_close(wrong[:, :SEGMENT], right[:, :SEGMENT])  # nothing shows before the second segment
    assert (wrong - right)[:, SEGMENT:].abs().max() > 1e-3


@settings(max_examples=20)
@given(segment=st.integers(1, 35), cuts=st.lists(st.integers(1, 12), max_size=4), seed=st.integers(0, 9))
def test_segments_by_themselves(segment, cuts, seed):
    """Each is what plain attention makes of it alone, however the text is cut into steps."""
    config = GPTConfig(n_embd=8, n_head=2, position="rope", block_size=32)
    plain, alone = CausalSelfAttention(config).double(), SegmentedAttention(config, segment=segment).double()
    alone.load_state_dict(plain.state_dict())
    x = randn(2, T, 8, seed=seed)
    whole = alone(x)
    torch.testing.assert_close(whole, torch.cat([plain(piece) for piece in x.split(segment, dim=1)], dim=1))
    state, out, place = alone.empty_state(2, torch.device("cpu"), torch.float64), [], 0
    for cut in [*cuts, T]:
        y, state = alone.step(x[:, place : place + cut], state)
        out.append(y)
        place += cut
    torch.testing.assert_close(torch.cat(out, dim=1)[:, :T], whole)


def test_in_training_the_mixer_of_a_gpt():
    model = build("llama-nano", vocab_size=17, block_size=32, n_layer=2, mixer="banded", mixer_options={"window": 4})
    idx = text()
    model.loss(idx[:, :-1], idx[:, 1:]).backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_what_cannot_be_is_one_clear_error():
    with pytest.raises(ValueError, match="segment must be at least 1, got 0"):
        build("llama-nano", mixer="segmented", mixer_options={"segment": 0})
    full = build("llama-nano", mixer="segmented", block_size=8)
    with pytest.raises(ValueError, match="do not fit"):
        full.blocks[0].mixer.step(torch.zeros(1, 9, 64), full.empty_state().blocks[0])
    for options in ({"window": 0}, {"window": 3, "segment": 0}):
        with pytest.raises(ValueError, match="window and segment must be at least 1, got"):
            build("llama-nano", mixer="banded", mixer_options=options)
