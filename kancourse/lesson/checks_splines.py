"""Exercises of lesson 01: knots, one step of the recursion, which bumps are alive, and hats on a grid twice as fine.

Shapes: G grid intervals, K order, N points, Z knots; `...` any leading axes.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from kancourse.lesson.exercises import TODO, exercise
from kancourse.splines import naive_bspline_basis


def _knots(first: int, past_last: int, grid_size: int, low: float, high: float) -> Tensor:
    return low + (high - low) / grid_size * torch.arange(first, past_last)


@exercise(
    reference="kancourse.lesson.answers.knot_vector",
    cases=lambda: [(4, 1, 0.0, 1.0), (5, 3, -1.0, 1.0), (7, 2, -3.0, 0.5)],
    mutants=(
        lambda G, K, low, high: _knots(0, G + 1, G, low, high),  # not extended
        lambda G, K, low, high: _knots(-K, G + K, G, low, high),  # the last knot is missing
        lambda G, K, low, high: torch.linspace(low, high, G + 2 * K + 1),  # squeezed into the range
    ),
)
def knot_vector(grid_size, order, low, high):
    return TODO


def _step_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(9, generator=generator, dtype=torch.float64)
    even = torch.linspace(-0.5, 1.5, 11, dtype=torch.float64)
    uneven = torch.tensor([-0.6, -0.1, 0.0, 0.25, 0.3, 0.7, 1.1, 1.2, 1.9], dtype=torch.float64)
    for knots in (even, uneven):
        for order in (1, 2, 3):
            yield x, knots, naive_bspline_basis(x, knots, order - 1), order


def _step(
    x: Tensor, knots: Tensor, lower: Tensor, order: int, *, wide: int | None = None, swap: bool = False
) -> Tensor:
    """One step with the ramps `wide` intervals wide; `swap` gives each neighbour the other's ramp."""
    n = lower.size(1) - 1
    wide, x = wide or order, x[:, None]
    start, end = knots[:n], knots[order + 1 : order + 1 + n]  # (Z-order-1,)
    rise = (x - start) / (knots[wide : wide + n] - start)
    fall = (end - x) / (end - knots[order + 1 - wide : order + 1 - wide + n])
    if swap:
        rise, fall = fall, rise
    return rise * lower[:, :-1] + fall * lower[:, 1:]  # (N, Z-order-1)


@exercise(
    reference="kancourse.lesson.answers.cox_de_boor_step",
    cases=_step_cases,
    mutants=(
        lambda x, knots, lower, order: _step(x, knots, lower, order, swap=True),
        lambda x, knots, lower, order: _step(x, knots, lower, order, wide=1),  # right for order 1 only
        lambda x, knots, lower, order: (lower[:, :-1] + lower[:, 1:]) / 2,  # a mean instead of ramps
        lambda x, knots, lower, order: _step(x, knots, lower, order)[:, :-1],  # one bump lost
    ),
    tolerance=1e-9,
)
def cox_de_boor_step(x, knots, lower, order):
    return TODO


def _alive_cases() -> Iterator[tuple]:
    yield 0.1, 5, 3, -1.0, 1.0
    yield 2.7, 4, 1, 0.0, 4.0
    yield 3.0, 8, 2, 0.0, 8.0  # on a knot: the cell on its right
    yield -1.0, 5, 3, -1.0, 1.0  # the left end
    yield 1.0, 5, 3, -1.0, 1.0  # the right end: the last cell


def _alive(x: float, grid_size: int, order: int, low: float, high: float, *, last: int = 0) -> Tensor:
    cell = math.floor((x - low) / (high - low) * grid_size)
    return torch.arange(cell, min(cell, grid_size + last) + order + 1)


@exercise(
    reference="kancourse.lesson.answers.alive_bumps",
    cases=_alive_cases,
    mutants=(
        _alive,  # past the end at x = high
        lambda x, G, K, low, high: _alive(min(x, high - 1e-6), G, K, low, high) - K,  # counted from the first knot
        lambda x, G, K, low, high: _alive(min(x, high - 1e-6), G, K - 1, low, high),  # K bumps instead of K+1
        lambda x, G, K, low, high: round(min((x - low) / (high - low) * G, G - 1)) + torch.arange(K + 1),
    ),
)
def alive_bumps(x, grid_size, order, low, high):
    return TODO


def _hat_cases() -> Iterator[tuple]:
    yield (torch.tensor([0.0, 1.0]),)
    yield (torch.tensor([1.0, -2.0, 4.0]),)
    yield (torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0)),)


def _midpoints(coefficients: Tensor) -> Tensor:
    return (coefficients[..., :-1] + coefficients[..., 1:]) / 2


@exercise(
    reference="kancourse.lesson.answers.refine_hats",
    cases=_hat_cases,
    mutants=(
        lambda c: c.repeat_interleave(2, dim=-1)[..., :-1],  # a staircase
        lambda c: torch.cat((c, _midpoints(c)), dim=-1),  # the right numbers, out of order
        lambda c: _midpoints(c),  # the old knots are gone
    ),
)
def refine_hats(coefficients):
    return TODO
