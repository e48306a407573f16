"""Exercises of lesson 02: one edge of a KAN, a layer of edges, and how large to draw its weights.

Shapes: N points or tokens, I in_features, O out_features, M = G+K basis functions, F functions of one input.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from kancourse.lesson.exercises import TODO, exercise
from kancourse.splines import bspline_basis, evaluate_spline


def _edge_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    for grid_size, low, high in ((5, -3.0, 3.0), (2, -1.0, 1.0)):
        x = low + (high - low) * torch.rand(7, generator=generator)
        yield x, 0.7, torch.randn(grid_size + 3, generator=generator), low, high


@exercise(
    reference="kancourse.lesson.answers.kan_edge",
    cases=_edge_cases,
    mutants=(
        lambda x, w, c, low, high: evaluate_spline(x, c, low=low, high=high),  # no base path
        lambda x, w, c, low, high: w * (F.silu(x) + evaluate_spline(x, c, low=low, high=high)),  # w scales both
        lambda x, w, c, low, high: w * F.silu(x) + evaluate_spline(x, c),  # the grid is forgotten
    ),
)
def kan_edge(x, base_weight, coefficients, low, high):
    return TODO


def _layer_cases() -> Iterator[tuple]:
    generator = torch.Generator().manual_seed(0)
    for n, n_in, n_out in ((4, 3, 2), (5, 2, 2)):
        x = 2 * torch.rand(n, n_in, generator=generator) - 1
        base_weight = torch.randn(n_out, n_in, generator=generator)
        yield F.silu(x), bspline_basis(x), base_weight, torch.randn(n_out, n_in, 8, generator=generator)


def _layer(bent: Tensor, basis: Tensor, base_weight: Tensor, spline_weight: Tensor, *, share: float = 1.0) -> Tensor:
    return share * (bent @ base_weight.T + torch.einsum("nim,oim->no", basis, spline_weight))


@exercise(
    reference="kancourse.lesson.answers.kan_layer",
    cases=_layer_cases,
    mutants=(
        lambda s, b, w, c: torch.einsum("nim,oim->no", b, c),  # no base path
        lambda s, b, w, c: _layer(s, b, w, c, share=1 / s.size(1)),  # a mean instead of a sum
        lambda s, b, w, c: _layer(s, b, w, c.flip(1)),  # every input has another's spline
    ),
)
def kan_layer(bent, basis, base_weight, spline_weight):
    return TODO


def _std_cases() -> Iterator[tuple]:
    x = torch.randn(50, generator=torch.Generator().manual_seed(0))
    yield 1.0, 4, bspline_basis(x, low=-3, high=3)
    yield 0.5, 64, F.silu(x)[:, None]


@exercise(
    reference="kancourse.lesson.answers.weight_std",
    cases=_std_cases,
    mutants=(
        lambda scale, n_in, features: scale / n_in**0.5,  # as if every function had power 1
        lambda scale, n_in, features: scale / (n_in * features.square().sum(-1).mean()),  # the root is missing
        lambda scale, n_in, features: scale / (n_in * features.square().mean()) ** 0.5,  # mean over functions, not sum
        lambda scale, n_in, features: 1 / (scale * (n_in * features.square().sum(-1).mean()) ** 0.5),  # upside down
    ),
)
def weight_std(scale, in_features, features):
    return TODO
