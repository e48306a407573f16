"""The basis functions of a KAN layer: only those alive at a point, computed in the point's own interval.

Notable points:
- Of the G+K basis functions only K+1 are not zero at a point, and they depend on nothing but the point's place t in
  its interval: `local_basis` runs Cox–de Boor on those alone.
- Outside the grid a spline goes on along its tangent. This costs one addition: the last step of the recursion is linear
  in t, so letting t run on in that step only *is* the tangent.
- These functions are what `torch.compile` makes one loop of, so they are written without branches on data.

Paper: de Boor 1978, "A Practical Guide to Splines" [1].

Glossary (code name ↔ symbol): `values` ↔ B_{i,k}, `lower` ↔ B_{i,k-1} [1].

Shapes: n tokens, I in_features, G grid intervals, K order, M = G+K.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Grid", "feature_planes", "features", "local_basis", "slope_product", "widened", "write_features"]


class Grid(NamedTuple):
    """The grids of I features: G intervals each, feature i's from low[i] on, scale[i] intervals per unit of x."""

    low: Tensor  # (I,)
    scale: Tensor  # (I,)
    size: int  # G
    order: int  # K


def widened(x: Tensor) -> Tensor:
    """x in at least float32: half precision has too few digits to say where in its interval a point is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def local_basis(x: Tensor, grid: Grid) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The K+1 basis functions that are alive at each point, by Cox–de Boor restricted to the point's interval.

    Args:
        x: points, (..., I), float32 or float64. No autograd through this function.

    Returns:
        cell: the interval the point is in, 0 … G-1 (the first or last for points outside), as a float, (..., I).
        values: K+1 tensors (..., I): basis functions number cell … cell+K; outside the grid, on their tangents.
        lower: K tensors (..., I): those of order K-1; the derivative of value j is (lower[j-1] - lower[j])·scale.
    """
    s = (x - grid.low) * grid.scale
    inside = s.clamp(0, grid.size)
    cell = inside.floor().clamp_(max=grid.size - 1)
    t = inside - cell  # in [0, 1]
    reach = s.sub_(inside).mul_(grid.order).add_(t)  # t, running on outside: K-fold, as the last step divides by K
    values, lower = [torch.ones_like(t)], []
    for p in range(1, grid.order + 1):
        lower = values
        along = (reach if p == grid.order else t) * (1 / p)
        stays = [((r + 1) / p - along).mul_(value) for r, value in enumerate(lower)]  # the rest moves up by one
        moves = [value - stay for value, stay in zip(lower, stays, strict=True)]
        values = [stays[0], *(move.add_(stay) for move, stay in zip(moves[:-1], stays[1:], strict=True)), moves[-1]]
    return cell, values, lower


def feature_planes(x: Tensor, grid: Grid) -> list[Tensor]:
    """silu(x) and all M basis functions, tangents outside the grid: (n, I) → 1+M tensors (n, I). No autograd."""
    x = widened(x)
    cell, values, _ = local_basis(x, grid)
    here = [cell == c for c in range(grid.size)]
    zero = cell - cell  # or NaN
    planes = [F.silu(x)]
    for g in range(grid.size + grid.order):
        plane = zero
        for j in range(max(0, g - grid.size + 1), min(grid.order, g) + 1):
            plane = torch.where(here[g - j], values[j], plane)
        planes.append(plane)
    return planes


def features(x: Tensor, grid: Grid, dtype: torch.dtype) -> Tensor:
    """`feature_planes` as one tensor (n, 1+M, I), rounded to dtype."""
    return torch.stack(feature_planes(x, grid), dim=1).to(dtype)


def write_features(out: list[Tensor], x: Tensor, grid: Grid) -> None:
    """`feature_planes` written into 1+M tensors (n, I). Compiled, it fills a scratch without making anything new."""
    for target, plane in zip(out, feature_planes(x, grid), strict=True):
        target.copy_(plane)


def slope_product(x: Tensor, d: Tensor, grid: Grid) -> Tensor:
    """The gradient of x, (n, I), given those of silu(x) and of the M-1 basis functions of order K-1, d (n, M, I)."""
    x, d = widened(x), widened(d)
    cell, _, lower = local_basis(x, grid)
    slope = torch.zeros_like(x)
    for c in range(grid.size):
        slope = torch.where(cell == c, sum(value * d[:, 1 + c + j] for j, value in enumerate(lower)), slope)
    return slope * grid.scale + torch.ops.aten.silu_backward(d[:, 0], x)
