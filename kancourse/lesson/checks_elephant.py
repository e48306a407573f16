"""Exercises of lesson 08: the elephant and its slope, the reach of one update, spread biases, what was forgotten.

Shapes: N points, H hidden units, I inputs, K tasks.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from kancourse.lesson.exercises import TODO, exercise


def _elephant_cases() -> Iterator[tuple]:
    x = torch.tensor([-3.0, -0.9, -0.2, 0.0, 0.5, 1.0, 2.5])
    yield x, 1.0, 8.0
    yield x, 0.4, 3.0
    yield 1e4 * x, 2.0, 8.0


@exercise(
    reference="kancourse.elephant.elephant",
    cases=_elephant_cases,
    mutants=(
        lambda x, a, d: 1 / (1 + (x / a) ** d),  # an odd power of a negative number
        lambda x, a, d: 1 / (1 + x.abs() ** d / a),  # the width is not raised
        lambda x, a, d: torch.exp(-((x / a).abs() ** d)),  # another bump
        lambda x, a, d: x / (1 + (x / a).abs() ** d),  # times x
    ),
)
def elephant(x, a, d):
    return TODO


def _slope_cases() -> Iterator[tuple]:
    x = torch.tensor([-2.0, -1.0, -0.7, 0.3, 1.0, 1.6])
    yield x, 1.0, 8.0
    yield x, 0.5, 3.0
    yield torch.tensor([0.02, -30.0, 1e3, 1e6]), 0.01, 8.0  # |x/a|^d is beyond float32


def _slope(x: Tensor, a: float, d: float) -> Tensor:
    r = (x / a).abs()
    return -d / a * x.sign() * r ** (d - 1) / (1 + r**d) ** 2


@exercise(
    reference="kancourse.elephant.elephant_slope",
    cases=_slope_cases,
    mutants=(
        _slope,  # infinity over infinity
        lambda x, a, d: _slope(x.double(), a, d).abs(),  # both flanks rise
        lambda x, a, d: a * _slope(x.double(), a, d),  # of x/a, not of x
        lambda x, a, d: -_slope(x.double(), a, d),
    ),
)
def elephant_slope(x, a, d):
    return TODO


def _kernel_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    for n, n_in, hidden in ((4, 1, 6), (3, 2, 5)):

        def draw(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*shape, generator=generator)

        yield draw(n, n_in), draw(n_in), draw(n, hidden), draw(hidden), draw(n, hidden), draw(hidden), draw(hidden)


@exercise(
    reference="kancourse.lesson.answers_elephant.hidden_kernel",
    cases=_kernel_cases,
    mutants=(
        lambda x, x_t, h, h_t, s, s_t, w: h @ h_t,  # only the output weights learn
        lambda x, x_t, h, h_t, s, s_t, w: h @ h_t + (x @ x_t) * (s @ (w**2 * s_t)),  # no biases
        lambda x, x_t, h, h_t, s, s_t, w: h @ h_t + (x @ x_t + 1) * (s @ (w * s_t)),  # weights not squared
        lambda x, x_t, h, h_t, s, s_t, w: h @ h_t + (x @ x_t + 1) * (s @ s_t),  # as if all were 1
    ),
)
def hidden_kernel(x, x_t, height, height_t, slope, slope_t, w_out):
    return TODO


def _bias_cases() -> Iterator[tuple]:
    yield 5, 1.0
    yield 4, 0.25
    yield 101, 1.28


@exercise(
    reference="kancourse.elephant.spread_bias",
    cases=_bias_cases,
    mutants=(
        lambda n, std: torch.linspace(-std, std, n),  # too narrow by √3
        lambda n, std: std * torch.randn(n, generator=torch.Generator().manual_seed(0)),  # drawn, with gaps
        lambda n, std: torch.linspace(0, 2 * math.sqrt(3) * std, n),  # not around 0
    ),
)
def spread_bias(n, std):
    return TODO


def _score_cases() -> Iterator[tuple]:
    yield (torch.tensor([[0.9, 0.0, 0.0], [0.6, 0.8, 0.0], [0.7, 0.2, 1.0]]),)
    yield (torch.rand(4, 4, generator=torch.Generator().manual_seed(0)),)
    yield (torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(1)),)
    yield (torch.tensor([[0.2, 0.0, 0.0], [0.5, 0.6, 0.0], [0.9, 0.7, 1.0]]),)  # better still at the end


@exercise(
    reference="kancourse.lab.continual_tasks.average_forgetting",
    cases=_score_cases,
    mutants=(
        lambda s: (s.diagonal(dim1=-2, dim2=-1)[..., :-1] - s[..., -1, :-1]).mean(-1),  # when new, not the best
        lambda s: (s.amax(-2) - s[..., -1, :]).mean(-1),  # the last task counts, which nothing came after
        lambda s: s[..., -1, :-1].mean(-1),  # what is left
        lambda s: (s[..., :-1, :-1].amax(-1) - s[..., -1, :-1]).mean(-1),  # the best task, not the best time
        lambda s: (s[..., :-1].amax(-2) - s[..., -1, :-1]).mean(-1),  # the end is among the times before it
    ),
)
def average_forgetting(scores):
    return TODO
