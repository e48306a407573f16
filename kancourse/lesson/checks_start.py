"""Exercises of lesson 00: two numbers that give a loss its meaning."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from kancourse.lesson.exercises import TODO, exercise


def _counts() -> Iterator[tuple]:
    yield (torch.tensor([1, 1]),)
    yield (torch.tensor([5, 3, 2]),)
    yield (torch.tensor([7, 0, 1, 0]),)  # a token that never occurs


def _in_bits(counts: Tensor) -> float:
    p = counts[counts > 0].double() / counts.sum()
    return float(-(p * p.log2()).sum())


def _of_zero_too(counts: Tensor) -> float:
    p = counts.double() / counts.sum()
    return float(-(p * p.log()).sum())  # 0·ln 0 is NaN here


def _unweighted(counts: Tensor) -> float:
    p = counts[counts > 0].double() / counts.sum()
    return float(-p.log().mean())


@exercise(
    reference="kancourse.lesson.answers.unigram_entropy", cases=_counts, mutants=(_in_bits, _of_zero_too, _unweighted)
)
def unigram_entropy(counts):
    return TODO


@exercise(
    reference="kancourse.lesson.answers.perplexity",
    cases=lambda: [(0.0,), (1.0,), (math.log(50.0),)],
    mutants=(lambda loss: 2.0**loss, lambda loss: math.exp(-loss), lambda loss: loss),
)
def perplexity(loss):
    return TODO
