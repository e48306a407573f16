"""Exercises of lesson 11: a static code, functions from a table, the price of experts, a found mixture, interactions.

Shapes: N tokens, I inputs, F features of an input, B batch, T time, C channels, E experts.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from kancourse.lesson.exercises import TODO, exercise


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _code_cases() -> Iterator[tuple]:
    yield torch.randn(6, 5, generator=_generator()), 3.0
    yield torch.tensor([[0.0, 9.0, -9.0, 0.3]]), 2.0


@exercise(
    reference="kancourse.lesson.answers_mixkabrn.static_codes",
    cases=_code_cases,
    mutants=(
        lambda z, reach: (z * 127 / z.abs().amax(-1, keepdim=True)).round(),  # a grid that moves with each token
        lambda z, reach: (z * 127 / reach).round(),  # beyond the ends
        lambda z, reach: (z.clamp(-1, 1) * 127).round(),
        lambda z, reach: (z.clamp(-reach, reach) * 127 / reach).floor(),
    ),
)
def static_codes(z, reach):
    return TODO


def _table_cases() -> Iterator[tuple]:
    table = torch.randint(-127, 128, (255, 3), generator=_generator())
    yield torch.tensor([[0, 127], [-127, 5], [1, -1]]), table
    yield torch.randint(-127, 128, (4, 6), generator=_generator()), table
    yield torch.tensor([[0.0, 127.0], [-127.0, 5.0]]), table  # whole numbers, as `static_codes` gives them


def _look(codes: Tensor, table: Tensor, shift: int) -> Tensor:
    return table[(codes + shift).clamp(0, 254)].flatten(1)


@exercise(
    reference="kancourse.lesson.answers_mixkabrn.looked_up",
    cases=_table_cases,
    mutants=(
        lambda codes, table: table[codes.long()].flatten(1),  # code −127 is row 0
        lambda codes, table: _look(codes.long(), table, 128),
        lambda codes, table: table[codes.long() + 127].transpose(1, 2).flatten(1),  # all inputs of a function together
        lambda codes, table: table[codes.long() + 127],
    ),
)
def looked_up(codes, table):
    return TODO


def _mixture_cases() -> Iterator[tuple]:
    yield 100, 8, 2, 1, 64
    yield 7, 3, 1, 0, 5
    yield 10, 16, 3, 2, 0


@exercise(
    reference="kancourse.lesson.answers_mixkabrn.stored_and_met",
    cases=_mixture_cases,
    mutants=(
        lambda expert, n, k, shared, router: (n * expert + router, k * expert + router),  # without the shared
        lambda expert, n, k, shared, router: ((n + shared) * expert, (k + shared) * expert),  # without the router
        lambda expert, n, k, shared, router: ((k + shared) * expert + router,) * 2,  # "only the active ones"
        lambda expert, n, k, shared, router: ((n + shared) * expert + router,) * 2,
    ),
)
def stored_and_met(expert, n_expert, top_k, n_shared, router):
    return TODO


def _found_cases() -> Iterator[tuple]:
    generator = _generator()
    for b, t, c, e in ((2, 4, 4, 3), (1, 1, 5, 2), (2, 6, 3, 4)):  # the found code runs on the first two
        yield torch.randn(b, t, c, e, generator=generator), torch.randn(b, t, e, generator=generator)


@exercise(
    reference="kancourse.lesson.answers_mixkabrn.repaired_mixture",
    cases=_found_cases,
    mutants=(
        lambda outputs, logits: (outputs * logits.softmax(-1).unsqueeze(1)).sum(-1),  # as it was found
        lambda outputs, logits: (outputs * logits.softmax(1).unsqueeze(-2)).sum(-1),  # a softmax over time
        lambda outputs, logits: (outputs * logits.unsqueeze(-2)).sum(-1),
        lambda outputs, logits: (outputs * logits.softmax(-1).unsqueeze(-2)).mean(-1),
    ),
)
def repaired_mixture(outputs, logits):
    return TODO


def _cell_cases() -> Iterator[tuple]:
    generator = _generator()
    yield torch.tensor([[0.0, 1.0], [2.0, 7.0]]), 0, 1
    yield torch.randn(2, 2, 2, 2, generator=generator, dtype=torch.float64), 3, 1
    yield torch.randn(2, 2, 2, generator=generator, dtype=torch.float64), 0, 2


def _gap(cells: Tensor, a: int, b: int, on: int) -> Tensor:
    half = cells.select(b, on)
    a -= a > b
    return half.select(a, 1).mean() - half.select(a, 0).mean()


@exercise(
    reference="kancourse.lesson.answers_mixkabrn.interaction",
    cases=_cell_cases,
    mutants=(
        lambda cells, a, b: _gap(cells, a, b, 1) - _gap(cells, a, b, 0),  # without the half
        lambda cells, a, b: (_gap(cells, a, b, 1) + _gap(cells, a, b, 0)) / 2,  # the effect of a
        lambda cells, a, b: (_gap(cells, a, b, 0) - _gap(cells, a, b, 1)) / 2,  # the other way round
        lambda cells, a, b: cells.select(max(a, b), 1).select(min(a, b), 1).mean() - cells.mean(),
    ),
)
def interaction(cells, a, b):
    return TODO
