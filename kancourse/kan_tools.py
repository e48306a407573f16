"""Looking into a KAN layer: every edge's curve, how much an edge matters, and a penalty that makes edges matter less.

They work on `KANLinear` (and on anything with its `weights()` and grid).

Papers: Liu et al. 2024, "KAN: Kolmogorov-Arnold Networks", section 2.5 [1].

Shapes: N tokens, n points, I in_features, O out_features, M = G+K basis functions.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kancourse.kan_basis import features

if TYPE_CHECKING:
    from kancourse.kan import KANLinear

__all__ = ["edge_curves", "edge_importance", "sparsity_penalty"]

CHUNK = 256  # tokens at a time


@torch.no_grad()
def edge_curves(layer: "KANLinear", n_points: int = 101, *, margin: float = 0.1) -> tuple[Tensor, Tensor]:
    """What to plot: every edge's function over its feature's grid, and `margin` of its width beyond either end.

    Returns:
        x (I, n) and y (O, I, n): `plt.plot(x[i], y[o, i])` draws the edge from input i to output o.
    """
    if n_points < 2:
        raise ValueError(f"a curve needs at least 2 points, got n_points={n_points}")
    share = torch.linspace(-margin, 1 + margin, n_points).to(layer.grid_low)[:, None]
    x = layer.grid_low + share * (layer.grid_high - layer.grid_low)  # (n, I)
    planes = features(x, layer.grid(), x.dtype)  # (n, 1+M, I)
    return x.T, torch.einsum("nmi,oim->oin", planes, _edge_weights(layer))


@torch.no_grad()
def edge_importance(layer: "KANLinear", x: Tensor) -> Tensor:
    """The standard deviation of every edge's output on x (..., I) → (O, I). What never varies could be a bias.

    Every edge's variance follows from the covariance of its feature's M+1 functions: no (N, O, I) is ever made.
    """
    layer.check_input(x)
    flat = x.reshape(-1, layer.in_features)  # (N, I)
    second = first = torch.zeros((), dtype=torch.float64, device=x.device)
    for piece in flat.split(CHUNK):
        planes = features(piece.double(), layer.grid(), torch.float64)  # (n, 1+M, I)
        first = first + planes.sum(0).T / len(flat)  # (I, 1+M)
        second = second + torch.einsum("nmi,nki->imk", planes, planes) / len(flat)
    covariance = second - first[:, :, None] * first[:, None, :]  # (I, 1+M, 1+M)
    weight = _edge_weights(layer).double()  # (O, I, 1+M)
    variance = torch.einsum("oim,imk,oik->oi", weight, covariance, weight)
    return variance.clamp_min(0).sqrt().to(x.dtype)


def sparsity_penalty(layer: "KANLinear", *, entropy: float = 1.0) -> Tensor:
    """A term for the loss: the sum of all edges' sizes plus `entropy` times the entropy of their shares, in nats [1].

    An edge's size is |base weight| plus the mean of its |spline coefficients|: a bound on the function, needing no data
    (the paper takes the mean |output| on data). The first term makes edges small, the second makes few of them large.
    Value and gradient are finite when edges, or all of them, are exactly 0.
    """
    base_weight, spline_weight = layer.weights()
    size = base_weight.abs() + spline_weight.abs().mean(-1)  # (O, I)
    share = size / size.sum().clamp_min(1e-12)  # not smaller, or its reciprocal overflows in the gradient
    return size.sum() - entropy * (share * share.clamp_min(1e-12).log()).sum()


def _edge_weights(layer: "KANLinear") -> Tensor:
    """Base and spline weights in one tensor, in the order of `features`: (O, I, 1+M)."""
    base_weight, spline_weight = layer.weights()
    return torch.cat((base_weight[..., None], spline_weight), dim=-1)
