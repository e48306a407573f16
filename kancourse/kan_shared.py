"""A KAN layer for transformer scale: one learned function per input feature, shared by all outputs, then a matrix.

A full KAN layer has a function on each of its I·O edges, and G+K+1 times the weights and work of a matrix. Here feature
i is bent by one function (by R of them, with `rank` R), and an ordinary matrix follows: edge (o, i) has the function
Σ_r weight[o,r,i]·φ_{r,i}. Rank 1 costs a matrix and 2% more; a rank of G+K+1 can be any full layer.

Notable points:
- The grid, its tangents outside, the two scales and the kernel are those of `KANLinear`.
- Backward keeps the input only, and bends it again.
- The functions do not decay: the matrix behind them does, and the decay of a product would count twice.

Shapes: N tokens, n tokens of one chunk, I in_features, O out_features, R rank, G grid intervals, K order, M = G+K.
"""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from kancourse.kan_basis import Grid, feature_planes, slope_product, widened
from kancourse.kan_grid import SplineGrid, naive_tangent_basis
from kancourse.kan_kernel import Filler, accumulate_product, refuse_second_derivative
from kancourse.kernel_choice import by_itself, compiled

__all__ = ["SharedKANLinear", "naive_shared_kan_linear"]


def naive_shared_kan_linear(x: Tensor, layer: "SharedKANLinear") -> Tensor:
    """What `layer` computes, (..., I) → (..., O), by Cox–de Boor and plain autograd. Slow; the oracle."""
    bent = F.silu(x)[..., None, :] * layer.base_weight  # (..., R, I)
    bent = bent + torch.einsum("...ig,rig->...ri", naive_tangent_basis(x, layer), layer.spline_weight)
    y = torch.einsum("...ri,ori->...o", bent, layer.weight)
    return y if layer.bias is None else y + layer.bias


class SharedKANLinear(SplineGrid):
    """y_o = Σ_r Σ_i weight[o,r,i]·φ_ri(x_i) + bias, φ_ri = base_weight[r,i]·silu + Σ_g spline_weight[r,i,g]·B_g.

    Args:
        in_features, out_features, grid_size, order, grid_range, bias: as for `KANLinear`.
        rank: R, how many functions share an input.
        base_scale, spline_scale: standard deviation over N(0, 1) of the two parts of each φ, when drawn.

    Parameters: `weight (O, R, I)`, `base_weight (R, I)`, `spline_weight (R, I, M)`, `bias (O,)` or None.

    Raises:
        ValueError: sizes below 1, a bad range, or a negative scale.
    """

    no_decay = ("base_weight", "spline_weight")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank: int = 1,
        grid_size: int = 5,
        order: int = 3,
        grid_range: tuple[float, float] = (-3.0, 3.0),
        bias: bool = False,
        base_scale: float = 0.5**0.5,
        spline_scale: float = 0.5**0.5,
    ) -> None:
        super().__init__(in_features, grid_size, order, grid_range, base_scale, spline_scale)
        if min(out_features, rank) < 1:
            raise ValueError(f"out_features and rank must be at least 1, got {out_features} and {rank}")
        self.out_features, self.rank = out_features, rank
        self.weight = nn.Parameter(torch.empty(out_features, rank, in_features))
        self.base_weight = nn.Parameter(torch.empty(rank, in_features))
        self.spline_weight = nn.Parameter(torch.empty(rank, in_features, grid_size + order))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights afresh from normal distributions with mean 0:

        | parameter | standard deviation |
        |---|---|
        | `weight` | 1 / √(R·I) |
        | `base_weight` | base_scale / √E[silu²] |
        | `spline_weight` | spline_scale / √E[Σ_g B_g²] |
        | `bias` | 0 |

        where the expectation E is over an input from N(0, 1).
        """
        nn.init.normal_(self.weight, std=(self.rank * self.in_features) ** -0.5)
        self.draw_functions(fan_in=1)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) → (..., O), each token by itself. Differentiable once; the naive twin more often."""
        dtype = self.check_input(x)
        flat = x.reshape(-1, self.in_features).contiguous()  # (N, I)
        table = torch.cat((self.base_weight[:, None], self.spline_weight.transpose(1, 2)), dim=1)  # (R, 1+M, I)
        grid = self.grid()
        y = _shared_kan(flat, table, self.weight, grid.low, grid.scale, self.order, dtype)  # (N, O)
        y = y if self.bias is None else y + self.bias.to(dtype)
        return y.reshape(*x.shape[:-1], self.out_features)

    @torch.no_grad()
    def load_linear_(self, weight: Tensor, bias: Tensor | None) -> None:
        """Become x @ weight.T + bias, up to rounding, for every x: the first functions become x itself, weight follows.

        The further functions (rank > 1) stay as they are behind a matrix of zeros: what they multiply is not 0, so
        they learn.

        Args:
            weight: (O, I).
            bias: (O,), or None: the layer's own, if it has one, becomes 0.

        Raises:
            ValueError: a shape that is not the layer's, or a bias for a layer that has none.
        """
        self.load_bias_(weight, bias)
        self.base_weight[0].zero_()
        self.spline_weight[0].copy_(self.line_coefficients())
        self.weight.zero_()
        self.weight[:, 0].copy_(weight)

    @torch.no_grad()
    def scale_output_(self, factor: float) -> None:
        """Multiply the output by `factor`: the matrix, and the bias."""
        self.weight.mul_(factor)
        if self.bias is not None:
            self.bias.mul_(factor)


def bend(x: Tensor, table: Tensor, grid: Grid) -> Tensor:
    """The functions with coefficients `table`, (R, 1+M, I), at x (n, I) → (n, R, I)."""
    planes = feature_planes(x, grid)
    return torch.stack([sum(p * c for p, c in zip(planes, row, strict=True)) for row in table.unbind()], 1)


def bend_backward(x: Tensor, grad: Tensor, table: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Given the gradient of what `bend` returned, (n, R, I): that again, and the gradients of x and of the table."""
    planes, grads = feature_planes(x, grid), grad.unbind(1)
    slopes = [slope_product(x, slope_table(row)[None], grid) for row in table.unbind()]  # R × (n, I)
    grad_x = sum(g * slope for g, slope in zip(grads, slopes, strict=True))
    grad_table = torch.stack([torch.stack([(plane * g).sum(0) for plane in planes]) for g in grads])  # (R, 1+M, I)
    return bend(x, table, grid), grad_x, grad_table


def slope_table(row: Tensor) -> Tensor:
    """Coefficients of one function, (1+M, I), to those of its slope, (M, I): silu's stays, the others differ."""
    return torch.cat((row[:1], row[2:] - row[1:-1]))


class _Bender(Filler):
    """`bend` and `bend_backward` of one chunk after another, with the kernel in use."""

    elements: ClassVar = {"eager": 2**17, "compiled": 2**17}  # sums over more rows are slow

    def bend(self, x: Tensor, table: Tensor) -> Tensor:
        return compiled(bend)(x, table, self.grid) if self.compiled else _combine(self.planes(x), table)

    def backward(self, x: Tensor, grad: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.compiled:
            return compiled(bend_backward)(x, grad, table, self.grid)
        planes, product = self.planes(x), None
        grad_x, grad_table = torch.zeros_like(grad[:, 0]), []
        for g, row in zip(grad.unbind(1), table.unbind(), strict=True):
            grad_x.addcmul_(g, self.slopes(x, slope_table(row)[None]))
            product = planes * g[:, None] if product is None else torch.mul(planes, g[:, None], out=product)
            grad_table.append(product.sum(0))  # (1+M, I)
        return _combine(planes, table), grad_x, torch.stack(grad_table)


def _combine(planes: Tensor, table: Tensor) -> Tensor:
    """(n, 1+M, I) and (R, 1+M, I) → (n, R, I), summed over the 1+M."""
    out = torch.empty(len(planes), len(table), planes.size(2), dtype=planes.dtype, device=planes.device)
    for r, row in enumerate(table):
        torch.mul(planes[:, 0], row[0], out=out[:, r])
        for p in range(1, len(row)):
            out[:, r].addcmul_(planes[:, p], row[p])
    return out


# Operators of our own: opaque to torch.compile, which can so compile all around them without a break.
@torch.library.custom_op("kancourse::shared_kan", mutates_args=())
@by_itself
def _shared_kan(
    x: Tensor, table: Tensor, weight: Tensor, low: Tensor, scale: Tensor, order: int, dtype: torch.dtype
) -> Tensor:
    table = widened(table)
    bender = _Bender(x, Grid(low, scale, table.size(1) - 1 - order, order), table.dtype)
    matrix = weight.flatten(1).to(dtype)  # (O, R·I)
    y = x.new_empty(len(x), len(weight), dtype=dtype)
    for piece in bender.chunks(x):
        torch.mm(bender.bend(x[piece], table).flatten(1).to(dtype), matrix.T, out=y[piece])
    return y


@torch.library.custom_op("kancourse::shared_kan_backward", mutates_args=())
@by_itself
def _shared_kan_backward(
    grad: Tensor, x: Tensor, table: Tensor, weight: Tensor, low: Tensor, scale: Tensor, order: int
) -> tuple[Tensor, Tensor, Tensor]:
    wide = widened(table)
    bender = _Bender(x, Grid(low, scale, table.size(1) - 1 - order, order), wide.dtype)
    matrix = weight.flatten(1).to(grad.dtype)  # (O, R·I)
    grad_x, grad_table = torch.empty_like(x), torch.zeros_like(wide)
    grad_matrix = torch.zeros_like(matrix, dtype=wide.dtype)
    for piece in bender.chunks(x):
        d = (grad[piece] @ matrix).unflatten(1, table.shape[::2]).to(wide.dtype)  # (n, R, I)
        bent, grad_x[piece], part = bender.backward(x[piece], d, wide)
        grad_table += part
        accumulate_product(grad_matrix, grad[piece], bent.flatten(1).to(grad.dtype))
    return grad_x, grad_table.to(table.dtype), grad_matrix.view_as(weight).to(weight.dtype)


@_shared_kan.register_fake
def _(x, table, weight, low, scale, order, dtype):
    return x.new_empty(x.size(0), weight.size(0), dtype=dtype)


@_shared_kan_backward.register_fake
def _(grad, x, table, weight, low, scale, order):
    return torch.empty_like(x), torch.empty_like(table), torch.empty_like(weight)


@register_flop_formula(torch.ops.kancourse.shared_kan)
def _(x, table, weight, *args, **kwargs):  # of the matrix product, as for any layer
    return 2 * x[0] * math.prod(weight)


@register_flop_formula(torch.ops.kancourse.shared_kan_backward)
def _(grad, x, table, weight, *args, **kwargs):
    return 4 * x[0] * math.prod(weight)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.order, _ = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_shared_kan_backward(grad, *ctx.saved_tensors, ctx.order), None, None, None, None


_shared_kan.register_autograd(_differentiate, setup_context=_keep)
_shared_kan_backward.register_autograd(refuse_second_derivative)
