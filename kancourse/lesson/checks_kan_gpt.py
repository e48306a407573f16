"""Exercises of lesson 04: counting a KAN-GPT, a KAN on one-hot inputs, a stopping rule, and which edges go.

Shapes: V vocabulary, O out_features, I in_features.
"""

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from kancourse.lesson.exercises import TODO, exercise


def _count_cases() -> Iterator[tuple]:
    yield 3, 48, 50_257, 9, True
    yield 3, 48, 50_257, 9, False
    yield 1, 8, 5, 10, True


def _count(n_layer: int, n_embd: int, vocab_size: int, per_edge: int, kan_head: bool, *, block: int = 12) -> int:
    return per_edge * (n_layer * block * n_embd**2 + kan_head * n_embd * vocab_size)


@exercise(
    reference="kancourse.lesson.answers_kan_gpt.kan_gpt_parameters",
    cases=_count_cases,
    mutants=(
        lambda *given: _count(*given[:4], False),  # the head is forgotten, as in the source
        partial(_count, block=8),  # the matrix into attention is forgotten
        lambda n, c, v, per_edge, head: _count(n, c, v, per_edge, False) + head * c * v,  # the head as a plain matrix
    ),
)
def kan_gpt_parameters(n_layer, n_embd, vocab_size, per_edge, kan_head):
    return TODO


def _table_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    for n_out, n_vocabulary in ((2, 3), (4, 6)):
        yield tuple(torch.randn(2, n_out, n_vocabulary, generator=generator).unbind())


@exercise(
    reference="kancourse.lesson.answers_kan_gpt.one_hot_table",
    cases=_table_cases,
    mutants=(
        lambda at_zero, at_one: at_one.T,  # the inputs that are 0 are taken to send nothing
        lambda at_zero, at_one: (at_zero.sum(1, keepdim=True) + at_one).T,  # the token's own φ(0) is still counted
        lambda at_zero, at_one: (at_zero.sum(0, keepdim=True) - at_zero + at_one).T,  # a sum over outputs
    ),
)
def one_hot_table(at_zero, at_one):
    return TODO


def _stop_cases() -> Iterator[tuple]:
    yield [3.0, 2.0, 2.5, 2.5, 1.0, 0.5], 2
    yield [3.0, 2.0, 1.0], 2
    yield [1.0, 1.0, 1.0, 0.9], 2
    yield [5.0, 4.0, 4.5, 3.9, 4.2, 4.1, 4.0, 3.0], 3


def _stop(losses: list[float], patience: int, *, late: int = 0, equal: bool = False, previous: bool = False) -> int:
    best, since = float("inf"), 0
    for step, loss in enumerate(losses, 1):
        better = loss < best or (equal and loss == best)
        since = 0 if better else since + 1
        best = loss if better or previous else best
        if since >= patience + late:
            return step
    return len(losses)


@exercise(
    reference="kancourse.lesson.answers_kan_gpt.stopping_step",
    cases=_stop_cases,
    mutants=(
        partial(_stop, late=1),  # one step late
        partial(_stop, equal=True),  # a tie counts as a new lowest
        partial(_stop, previous=True),  # compared with the step before, not with the lowest
    ),
)
def stopping_step(losses, patience):
    return TODO


def _keep_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    yield torch.randperm(6, generator=generator).view(2, 3).float(), 0.5
    yield torch.randperm(20, generator=generator).view(4, 5).float(), 0.1
    sizes = torch.rand(3, 7, generator=generator) ** 4  # most of them small, as in a trained model
    yield sizes, 0.3  # 6.3 of 21 edges
    yield sizes, 0.32  # 6.72


def _keep(sizes: Tensor, share: float, *, per_row: bool = False) -> Tensor:
    order = sizes.argsort(1).argsort(1) if per_row else sizes.flatten().argsort().argsort().view_as(sizes)
    return order >= round(share * (sizes.size(1) if per_row else sizes.numel()))


@exercise(
    reference="kancourse.lesson.answers_kan_gpt.edges_to_keep",
    cases=_keep_cases,
    mutants=(
        lambda sizes, share: ~_keep(sizes, share),  # the mask upside down
        lambda sizes, share: _keep(sizes, 1 - share),  # the share that stays
        partial(_keep, per_row=True),  # in every row by itself
        lambda sizes, share: sizes > share * sizes.max(),  # a share of the largest, not of their number
        lambda sizes, share: sizes > sizes.min() + share * (sizes.max() - sizes.min()),  # of the range
        lambda sizes, share: _keep(sizes, math.floor(share * sizes.numel()) / sizes.numel()),  # rounded down
        lambda sizes, share: _keep(sizes, math.ceil(share * sizes.numel()) / sizes.numel()),  # and up
    ),
)
def edges_to_keep(sizes, share):
    return TODO
