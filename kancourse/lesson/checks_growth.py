"""Exercises of lesson 09: neurons, a norm, rotary heads, Adam's count, words that wake up.

Shapes: C channels, D head dim, H hidden neurons before; Ĉ, D̂, Ĥ after; V vocabulary.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from kancourse.lesson.answers_growth import borrowed_first_step as first_step
from kancourse.lesson.exercises import TODO, exercise


def _feed_forward_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    for hidden, width, new in ((4, 3, 2), (6, 5, 1), (2, 4, 6)):
        shapes = ((hidden, width), (width, hidden), (new, width))
        yield tuple(torch.randn(shape, generator=generator) for shape in shapes)


def _widen(into: Tensor, out_of: Tensor, listens: Tensor, says: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat((into, listens)), torch.cat((out_of, says), dim=1)


@exercise(
    reference="kancourse.lesson.answers_growth.wider_feed_forward",
    cases=_feed_forward_cases,
    mutants=(
        lambda into, out_of, drawn: _widen(into, out_of, 0 * drawn, 0 * drawn.T),  # dead: both are zero
        lambda into, out_of, drawn: _widen(into, out_of, drawn, drawn.T),  # another function
        lambda into, out_of, drawn: _widen(into, out_of, 0 * drawn, drawn.T),  # silent by its input, not as asked
        lambda into, out_of, drawn: (  # new neurons first, so old ones move
            torch.cat((drawn, into)),
            torch.cat((0 * drawn.T, out_of), dim=1),
        ),
    ),
)
def wider_feed_forward(into, out_of, drawn):
    return TODO


def _norm_cases() -> Iterator[tuple]:
    yield torch.tensor([1.0, 2.0, -0.5]), 1e-2, 6
    yield torch.ones(4), 1e-5, 5
    yield torch.randn(7, generator=torch.Generator().manual_seed(0)), 0.5, 7


def _norm(gain: Tensor, width: int, factor: float, eps: float) -> tuple[Tensor, float]:
    return torch.cat((gain * factor, gain.new_ones(width - len(gain)))), eps


@exercise(
    reference="kancourse.lesson.answers_growth.wider_norm",
    cases=_norm_cases,
    mutants=(
        lambda gain, eps, width: _norm(gain, width, 1.0, eps),  # no correction
        lambda gain, eps, width: _norm(gain, width, math.sqrt(len(gain) / width), eps),  # epsilon is forgotten
        lambda gain, eps, width: _norm(gain, width, len(gain) / width, eps * len(gain) / width),  # no root
        lambda gain, eps, width: _norm(gain, width, math.sqrt(width / len(gain)), eps * width / len(gain)),  # inverse
    ),
    tolerance=1e-7,
)
def wider_norm(gain, eps, width):
    return TODO


def _place_cases() -> Iterator[tuple]:
    yield 4, 8
    yield 8, 24
    yield 6, 6
    yield 2, 10


@exercise(
    reference="kancourse.lesson.answers_growth.nested_places",
    cases=_place_cases,
    mutants=(
        lambda head_dim, width: torch.arange(head_dim),  # at the front: pairs are torn apart
        lambda head_dim, width: torch.cat(  # pairs stay together, but turn faster than they did
            (torch.arange(head_dim // 2), torch.arange(head_dim // 2) + width // 2)
        ),
        lambda head_dim, width: torch.arange(head_dim) * (width // head_dim) + 1,  # one too far
    ),
)
def nested_places(head_dim, width):
    return TODO


def _count_cases() -> Iterator[tuple]:
    yield 0, 0.9, 0.999
    yield 10, 0.9, 0.999
    yield 20_000, 0.9, 0.999
    yield 100, 0.9, 0.95


@exercise(
    reference="kancourse.lesson.answers_growth.borrowed_first_step",
    cases=_count_cases,
    mutants=(
        lambda count, beta1, beta2: 1.0,  # what it would be with a count of its own
        lambda count, beta1, beta2: (1 - beta1) / math.sqrt(1 - beta2),  # no correction of either moment
        lambda count, beta1, beta2: first_step(count, beta1, beta2) ** 2,  # the root is forgotten
        lambda count, beta1, beta2: first_step(count + 1, beta1, beta2),  # counts one step too many
    ),
    tolerance=1e-6,
)
def borrowed_first_step(count, beta1, beta2):
    return TODO


def _waking_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    yield torch.randn(5, 8, generator=generator, dtype=torch.float64), 6
    yield 30 * torch.randn(2, 3, 9, generator=generator, dtype=torch.float64) + 900, 2  # exp would overflow
    yield torch.zeros(4, 6, dtype=torch.float64), 6  # nobody is new


@exercise(
    reference="kancourse.growth_vocabulary.activation_cost",
    cases=_waking_cases,
    mutants=(
        lambda logits, n_old: logits.logsumexp(-1).mean(),  # the new sum alone
        lambda logits, n_old: F.softplus(  # new and old changed about
            logits[..., :n_old].logsumexp(-1) - logits[..., n_old:].logsumexp(-1)
        ).mean(),
        lambda logits, n_old: torch.log1p(  # as it is written: overflows
            logits[..., n_old:].exp().sum(-1) / logits[..., :n_old].exp().sum(-1)
        ).mean(),
        lambda logits, n_old: torch.tensor(math.log(logits.size(-1) / n_old)),  # as if all words were equally likely
    ),
)
def activation_cost(logits, n_old):
    return TODO
