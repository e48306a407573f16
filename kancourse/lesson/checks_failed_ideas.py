"""Exercises of lesson 08b: patterns, gates, clipping without all gradients at once, windows, pauses.

Shapes: B batch, T time, H parts, D numbers per part, N tokens or patterns, U units, C channels.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from kancourse.lesson.exercises import TODO, exercise
from kancourse.pause import insert_pauses as right_pauses
from kancourse.segment_memory import band_mask as right_mask


def _pattern_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    for tokens, parts, dim, patterns in ((3, 2, 4, 5), (2, 3, 3, 7)):
        shapes = ((tokens, parts, dim), (parts, patterns, dim), (parts, patterns, dim))
        yield tuple(2 * torch.randn(shape, generator=generator) for shape in shapes)


def _look_up(q: Tensor, keys: Tensor, values: Tensor, *, scale: float, over: int = -1) -> Tensor:
    return torch.einsum("thn,hnd->thd", (torch.einsum("thd,hnd->thn", q, keys) * scale).softmax(over), values)


@exercise(
    reference="kancourse.pattern_ffn.naive_pattern_attention",
    cases=_pattern_cases,
    mutants=(
        lambda q, keys, values: _look_up(q, keys, values, scale=1.0),  # no √D
        lambda q, keys, values: _look_up(q, keys, values, scale=1 / q.size(-1)),  # D, not its root
        lambda q, keys, values: _look_up(q, keys, values, scale=q.size(-1) ** -0.5, over=0),  # tokens compete
        lambda q, keys, values: _look_up(q, values, keys, scale=q.size(-1) ** -0.5),  # the two swapped
    ),
)
def naive_pattern_attention(q, keys, values):
    return TODO


def _budget_cases() -> Iterator[tuple]:
    yield 768, 3072, 12, 64
    yield 768, 3072, 1, 64
    yield 48, 128, 4, 12
    yield 50, 100, 3, 7  # 238.1


@exercise(
    reference="kancourse.lesson.answers_failed_ideas.n_patterns",
    cases=_budget_cases,
    mutants=(
        lambda C, hidden, n_memory, D: 3 * C * hidden // (2 * n_memory * D),  # the matrices before and after forgotten
        lambda C, hidden, n_memory, D: (3 * C * hidden - 2 * C * C) // (n_memory * D),  # keys without values
        lambda C, hidden, n_memory, D: (3 * C * hidden - 2 * C * C) // (2 * D),  # one memory, whatever was asked
        lambda C, hidden, n_memory, D: (3 * C * hidden - 2 * C * C) / (2 * n_memory * D),  # no whole number
        lambda C, hidden, n_memory, D: -((2 * C * C - 3 * C * hidden) // (2 * n_memory * D)),  # rounded up
    ),
)
def n_patterns(n_embd, hidden, n_memory, head_dim):
    return TODO


def _gate_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    for n, units, width in ((3, 4, 2), (2, 1, 3)):
        yield torch.randn(n, units, width, generator=generator), torch.randn(n, units, generator=generator)


@exercise(
    reference="kancourse.lesson.answers_failed_ideas.gated_sum",
    cases=_gate_cases,
    mutants=(
        lambda units, logits: (logits.softmax(-1)[..., None] * units).sum(-2),  # units compete
        lambda units, logits: (logits.sigmoid()[..., None] * units).mean(-2),  # averaged
        lambda units, logits: (logits[..., None] * units).sum(-2),  # no sigmoid
    ),
)
def gated_sum(units, logits):
    return TODO


def _norm_cases() -> Iterator[tuple]:
    yield torch.tensor([3.0, 4.0]), 1.0
    yield torch.tensor([0.1, 0.2, 0.2]), 1.0  # short enough
    yield torch.tensor([2.0, 6.0, 9.0]), 5.5


@exercise(
    reference="kancourse.lesson.answers_failed_ideas.clip_scale",
    cases=_norm_cases,
    mutants=(
        lambda norms, clip: (clip / norms.sum()).clamp(max=1.0),  # norms do not add up like this
        lambda norms, clip: (clip / norms.max()).clamp(max=1.0),  # the longest alone
        lambda norms, clip: clip / norms.square().sum().sqrt(),  # stretches what is short
    ),
)
def clip_scale(norms, grad_clip):
    return TODO


def _mask_cases() -> Iterator[tuple]:
    yield 4, 4, 2
    yield 3, 7, 4  # a segment of three after four that are remembered
    yield 5, 5, 9  # the window is longer than the text


@exercise(
    reference="kancourse.segment_memory.band_mask",
    cases=_mask_cases,
    mutants=(
        lambda n_query, n_key, window: right_mask(n_query, n_key, window + 1),  # one too many
        lambda n_query, n_key, window: right_mask(n_query, n_query, window).new_ones(n_query, n_key).tril(),  # no past
        lambda n_query, n_key, window: right_mask(n_query, n_key, n_key),  # everything up to here
        lambda n_query, n_key, window: right_mask(n_query, n_key, window).flip(0, 1),  # the future
    ),
)
def band_mask(n_query, n_key, window):
    return TODO


def _pause_cases() -> Iterator[tuple]:
    yield torch.tensor([[1, 2, 3, 4]]), torch.tensor([[2, 3, 4, 5]]), 9
    yield torch.tensor([[5, 6], [7, 8]]), torch.tensor([[6, -100], [8, 1]]), 0


def _interleaved(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack((first, second), dim=-1).flatten(1)


@exercise(
    reference="kancourse.pause.insert_pauses",
    cases=_pause_cases,
    mutants=(
        lambda idx, targets, pause: (  # answered before the pause, which is then for nothing
            right_pauses(idx, targets, pause)[0],
            _interleaved(targets, torch.full_like(targets, -100)),
        ),
        lambda idx, targets, pause: (  # taught to say <pause>
            right_pauses(idx, targets, pause)[0],
            _interleaved(torch.full_like(targets, pause), targets),
        ),
        lambda idx, targets, pause: (  # the pause before its token
            _interleaved(torch.full_like(idx, pause), idx),
            right_pauses(idx, targets, pause)[1],
        ),
    ),
)
def insert_pauses(idx, targets, pause_id):
    return TODO
