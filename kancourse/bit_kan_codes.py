"""From real numbers to the integers of a KAN layer with ternary coefficients: a static code, and a table of functions.

Notable points:
- The code is *static*: the same R for every token, so that a code means the same place on the grid for ever. (With the
  usual absmax code the grid would move with each token's largest value.) The norm in front makes one R fit all.
- An input is one of 255 numbers, so a table has the value of every function at every input: nothing is approximated
  at run time, and no exponential or recursion is left.
- Every bit is defined, as in `bit_codes`: what precedes the integers is rounded in a fixed order.

Shapes: I in_features, O out_features, G grid intervals, K order, M = G+K, F = 1+M features of an input.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kancourse.bit_codes import LARGEST_CODE, rms_normalise
from kancourse.splines import check_grid, naive_bspline_basis

__all__ = ["N_CODES", "KANTable", "kan_input_codes", "kan_table", "output_scale", "round_inside"]

N_CODES = 2 * LARGEST_CODE + 1


class KANTable(NamedTuple):
    """The features of every code, −127 … 127 in this order: base function first, then the B-splines."""

    codes: Tensor  # (255, F) int8; codes · unit ≈ features
    slopes: Tensor  # (255, F) float32, of the features; 0 at both ends, which stand for all that lies beyond
    unit: float  # exact in float32


@functools.cache
def kan_table(grid_size: int, order: int, reach: float) -> KANTable:
    """The table of a grid of G intervals over ±R: computed in float64, rounded once.

    Raises:
        ValueError: G or K below 1, or a reach that is not above 0 and finite.
    """
    check_grid(grid_size, order, -reach, reach)
    x = torch.linspace(-reach, reach, N_CODES, dtype=torch.float64, device="cpu")  # what the codes stand for
    h = 2 * reach / grid_size
    knots = torch.arange(-order, grid_size + order + 1, dtype=torch.float64, device="cpu") * h - reach
    lower = naive_bspline_basis(x, knots, order - 1)  # (255, M+1)
    sigmoid = x.sigmoid()[:, None]
    silu, silu_slope = x[:, None] * sigmoid, sigmoid * (1 + x[:, None] * (1 - sigmoid))
    features = torch.cat((silu, naive_bspline_basis(x, knots, order)), dim=1)  # (255, F)
    slopes = torch.cat((silu_slope, (lower[:, :-1] - lower[:, 1:]) / h), dim=1)
    slopes[[0, -1]] = 0
    unit = float((features.abs().max() / LARGEST_CODE).float())
    return KANTable((features / unit).round().to(torch.int8), slopes.float(), unit)


def kan_input_codes(x: Tensor, norm_weight: Tensor, reach: float, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """What a `BitKAN` makes of its input before the table comes in.

    In this order, every line rounded to float32 as it stands:

    - z as in `bit_input_codes`: ordered sum of squares, inverse root, two products
    - codes = round(clamp(z, −R, R) · (127/R)), where halves go to the even neighbour

    Args:
        x: (..., I), of any floating dtype.
        norm_weight: the gain of the norm, (I,).
        reach: R.
        eps: keeps a token of zeros from being divided by zero.

    Returns:
        codes int8 (..., I), and whether the token is finite, bool (..., 1); if it is not, its codes mean nothing.
    """
    z, _ = rms_normalise(x.float(), norm_weight.float(), eps)
    return round_inside(z, reach)


def round_inside(z: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """`kan_input_codes` of an input that is normalised already."""
    codes = z.nan_to_num(0.0).clamp_(-reach, reach).mul_(LARGEST_CODE / reach).round_().to(torch.int8)
    return codes, torch.linalg.vector_norm(z, torch.inf, -1, keepdim=True).isfinite()


def output_scale(weight_scale: Tensor, row_scale: Tensor, unit: float) -> Tensor:
    """(weight_scale · unit) · row_scale, in this order: float32 () and (O,) → (O,)."""
    return weight_scale * unit * row_scale


def check_sizes(
    name: str, in_features: int, out_features: int, bias: bool, grid_size: int, order: int, reach: float
) -> None:
    """Raise ValueError for sizes that a BitKAN, packed or not, cannot have."""
    if bias:
        raise ValueError(f"{name} has no bias; build it, or the model, with bias=False")
    if min(in_features, out_features) < 1:
        raise ValueError(f"{name} needs sizes of at least 1, got {in_features} → {out_features}")
    check_grid(grid_size, order, -reach, reach)
    most = (2**24 - 1) // LARGEST_CODE // (1 + grid_size + order)  # beyond it float32 might round an integer sum
    if in_features > most:
        raise ValueError(f"{name} on this grid sums exactly up to in_features {most}, got {in_features}")


def check_input(layer: nn.Module, x: Tensor) -> None:
    """Raise unless x is something that a BitKAN, packed or not, takes."""
    name = type(layer).__name__
    if x.shape[-1:] != (layer.in_features,):
        raise ValueError(f"{name} takes {layer.in_features} features on the last axis, got shape {(*x.shape,)}")
    if not x.is_floating_point():
        raise TypeError(f"{name} takes floating-point numbers, got {x.dtype}")


def kan_repr(layer: nn.Module) -> str:
    """The sizes of a BitKAN, packed or not."""
    return (
        f"in_features={layer.in_features}, out_features={layer.out_features}, grid_size={layer.grid_size}, "
        f"order={layer.order}, reach={layer.reach:g}, eps={layer.eps:g}"
    )
