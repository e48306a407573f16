"""Exercises of lesson 10: points between models, both barriers, units that change places, batches that add up, units.

Shapes: P points of a path, n hidden units, I inputs, O outputs, D numbers of each, A micro-batches.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from kancourse.lesson.exercises import TODO, exercise


def _state_cases() -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(0)
    for alpha in (0.25, 0.0, 1.0, 0.7):
        a, b = ([torch.randn(3, 2, generator=draw), torch.randn(2, generator=draw)] for _ in range(2))
        yield a, b, alpha


@exercise(
    reference="kancourse.lesson.answers_lmc.between",
    cases=_state_cases,
    mutants=(
        lambda a, b, alpha: tuple(alpha * x + (1 - alpha) * y for x, y in zip(a, b, strict=True)),  # the wrong way
        lambda a, b, alpha: tuple(x + alpha * y for x, y in zip(a, b, strict=True)),
        lambda a, b, alpha: tuple((x + y) / 2 for x, y in zip(a, b, strict=True)),  # the middle only
    ),
)
def between(a, b, alpha):
    return TODO


def _path_cases() -> Iterator[tuple]:
    alphas = torch.linspace(0, 1, 5)
    yield alphas, torch.tensor([1.0, 1.3, 1.5, 1.4, 1.2])
    yield alphas, torch.tensor([1.0, 1.8, 1.9, 2.0, 2.0])  # the highest point is an end, the greatest excess is not
    yield alphas, torch.tensor([2.0, 1.7, 1.6, 1.5, 1.8])  # a valley


def _line(alphas: Tensor, losses: Tensor) -> Tensor:
    return (1 - alphas) * losses[0] + alphas * losses[-1]


@exercise(
    reference="kancourse.lesson.answers_lmc.barriers",
    cases=_path_cases,
    mutants=(
        lambda alphas, y: (y.max() - y[[0, -1]].max(), (y - _line(alphas, y)).max()),  # over the worse end
        lambda alphas, y: (
            y.max() - y[[0, -1]].mean(),
            (y - _line(alphas, y))[y.argmax()],
        ),  # excess where y is highest
        lambda alphas, y: (y.max() - y[[0, -1]].mean(),) * 2,
        lambda alphas, y: (y.max() - y.mean(), (y - _line(alphas, y)).max()),  # the mean of the whole path
    ),
)
def barriers(alphas, losses):
    return TODO


def _unit_cases() -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(1)
    for order in ([2, 0, 1], [1, 2, 3, 0]):
        n = len(order)
        up, bias, down = (
            torch.randn(n, 2, generator=draw),
            torch.randn(n, generator=draw),
            torch.randn(n, n, generator=draw),
        )
        yield up, bias, down, torch.tensor(order)


@exercise(
    reference="kancourse.lesson.answers_lmc.shuffle_units",
    cases=_unit_cases,
    mutants=(
        lambda up, bias, down, order: (up[order], bias[order], down),  # nobody told the readers
        lambda up, bias, down, order: (up[order], bias[order], down[:, order.argsort()]),  # the way back
        lambda up, bias, down, order: (up[order], bias, down[:, order]),  # the bias stays
    ),
)
def shuffle_units(up, bias, down, order):
    return TODO


def _match_cases() -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(2)
    a = torch.randn(5, 8, generator=draw)
    yield a, a[torch.tensor([3, 0, 4, 1, 2])]  # a shuffled twin
    yield torch.tensor([[3.0, 0.0], [2.0, 0.0]]), torch.tensor([[4.0, 0.0], [1.0, 0.0]])  # both want the same
    yield torch.randn(6, 3, generator=draw), torch.randn(6, 3, generator=draw)


@exercise(
    reference="kancourse.lesson.answers_lmc.match_units",
    cases=_match_cases,
    mutants=(
        lambda a, b: (a @ b.T).argmax(1),  # one unit for several
        lambda a, b: (a @ b.T).argmax(0),
        lambda a, b: torch.arange(len(a)),
    ),
)
def match_units(a, b):
    return TODO


def _gradient_cases() -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(3)
    yield torch.randn(3, 4, generator=draw), torch.tensor([10.0, 10.0, 4.0])
    yield torch.randn(2, 3, generator=draw), torch.tensor([1.0, 3.0])


@exercise(
    reference="kancourse.lesson.answers_lmc.accumulate",
    cases=_gradient_cases,
    mutants=(
        lambda gradients, counts: gradients[0],  # the same micro-batch again and again, divided by how often
        lambda gradients, counts: gradients.mean(0),  # a small batch counts as much as a large one
        lambda gradients, counts: gradients.sum(0),
    ),
)
def accumulate(gradients, counts):
    return TODO


def _unit_of_loss_cases() -> Iterator[tuple]:
    yield 5.1, 36_059, 111_540
    yield 1.8, 500, 500  # a token for every character


@exercise(
    reference="kancourse.lesson.answers_lmc.nats_per_character",
    cases=_unit_of_loss_cases,
    mutants=(
        lambda loss, n_tokens, n_characters: loss * n_characters / n_tokens,
        lambda loss, n_tokens, n_characters: loss,
        lambda loss, n_tokens, n_characters: loss / n_characters,
    ),
)
def nats_per_character(loss, n_tokens, n_characters):
    return TODO
