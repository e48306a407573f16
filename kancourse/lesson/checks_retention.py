"""Exercises of lesson 06: the decay matrix, one step, one chunk, and a decay that the tokens decide.

Shapes: B batch, H heads, T time, D head dim, c tokens in a chunk.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from kancourse.lesson.answers import decay_matrix as _matrix
from kancourse.lesson.exercises import TODO, exercise


def _powers(log_decay: float, n_time: int, *, shift: int = 0) -> Tensor:
    step = torch.arange(n_time)
    behind = step[:, None] - step
    return torch.where(behind < 0, 0.0, (log_decay * (behind + shift)).exp())


@exercise(
    reference="kancourse.lesson.answers.decay_matrix",
    cases=lambda: ((math.log(0.9), 4), (math.log(31 / 32), 3000)),
    mutants=(
        lambda g, n: _powers(g, n, shift=1),  # a token's own contribution has faded already
        lambda g, n: _powers(g, n).T,  # the future instead of the past
        lambda g, n: (g * (torch.arange(n)[:, None] - torch.arange(n))).exp() * torch.ones(n, n).tril(),  # inf · 0
        lambda g, n: ((g * torch.arange(n)).exp()[:, None] * (-g * torch.arange(n)).exp()).tril(),  # γ^t · γ^(-s)
    ),
)
def decay_matrix(log_decay, n_time):
    return TODO


def _step_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    for B, H, D in ((1, 2, 3), (2, 3, 4)):
        q, k, v = torch.randn(3, B, H, D, generator=generator)
        log_decay = -torch.rand(H, generator=generator)
        yield q, k, v, log_decay, torch.randn(B, H, D, D, generator=generator)


def _step(q: Tensor, write: Tensor, fade: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    state = fade[:, None, None] * state + write
    return (q[..., None, :] @ state)[..., 0, :], state


def _read_first(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    after = _step(q, k[..., :, None] * v[..., None, :], log_decay.exp(), state)[1]
    return (q[..., None, :] @ state)[..., 0, :], after


@exercise(
    reference="kancourse.lesson.answers.retention_step",
    cases=_step_cases,
    mutants=(
        _read_first,  # the token does not see itself
        lambda q, k, v, g, s: _step(q, v[..., :, None] * k[..., None, :], g.exp(), s),  # rows and columns exchanged
        lambda q, k, v, g, s: _step(q, k[..., :, None] * v[..., None, :], g, s),  # the logarithm taken for γ
        lambda q, k, v, g, s: _step(q, g.exp()[:, None, None] * k[..., :, None] * v[..., None, :], g.exp(), s),
    ),
)
def retention_step(q, k, v, log_decay, state):
    return TODO


def _chunk_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    for c, D in ((1, 3), (5, 2)):
        q, k, v = torch.randn(3, c, D, generator=generator)
        yield q, k, v, math.log(0.8), torch.randn(D, D, generator=generator)


def _chunk(
    q: Tensor, k: Tensor, v: Tensor, g: float, state: Tensor, *, read: int = 1, left: int = 1, fade: bool = True
) -> tuple[Tensor, Tensor]:
    c, step = len(q), torch.arange(len(q))
    out = (q @ k.T * _matrix(g, c)) @ v + (q * (g * (step + read)).exp()[:, None]) @ state
    kept = (k * (g * (c - left - step)).exp()[:, None]).T @ v
    return out, kept + (math.exp(g * c) if fade else 1.0) * state


@exercise(
    reference="kancourse.lesson.answers.retention_chunk",
    cases=_chunk_cases,
    mutants=(
        lambda *given: _chunk(*given, read=0),  # the state is read as if no token had passed
        lambda *given: _chunk(*given, left=0),  # what is left behind has faded once too often
        lambda *given: _chunk(*given, fade=False),  # the old state does not fade
    ),
)
def retention_chunk(q, k, v, log_decay, state):
    return TODO


def _gated_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    yield (-torch.rand(4, generator=generator),)
    yield (-4 * torch.rand(900, generator=generator),)


def _of_sums(log_decays: Tensor, sums: Tensor) -> Tensor:
    n = len(log_decays)
    future = torch.arange(n)[:, None] < torch.arange(n)
    return (sums[:, None] - sums).masked_fill(future, -torch.inf).exp()


@exercise(
    reference="kancourse.lesson.answers.gated_decay_matrix",
    cases=_gated_cases,
    mutants=(
        lambda g: _of_sums(g, g.cumsum(0) - g),  # the factor of s counts, that of t does not
        lambda g: (g.cumsum(0)[:, None] - g.cumsum(0)).exp() * torch.ones(len(g), len(g)).tril(),  # inf · 0
        lambda g: (g.cumsum(0).exp()[:, None] / g.cumsum(0).exp()).tril(),  # 0 / 0
    ),
    tolerance=1e-3,
)
def gated_decay_matrix(log_decays):
    return TODO
