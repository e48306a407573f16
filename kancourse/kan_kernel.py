"""The arithmetic of a KAN layer, lean and fast: keep only the input, compute the basis functions again when needed.

Autograd through the Cox–de Boor recursion keeps about 300 bytes per token and input feature for the backward pass;
here it is the 4 bytes of the input itself, as for `nn.Linear`.

Notable points:
- The layer is one matrix product. Its left side is filled for a chunk of tokens at a time, in forward and once
  more in backward.
- The basis functions sum to one, so the forward product can do without the last of them; and the derivative is a
  spline of one order less, which has one coefficient less to begin with.
- `use_kernel` says who does the elementwise part: PyTorch's own operators, in place, or one compiled loop. The
  products are BLAS's in both, dense; only where `kan_sparse` fits, the compiled kernel skips the zeros in them.

Paper: Liu et al. 2024, "KAN: Kolmogorov-Arnold Networks" [1].

Glossary (code name ↔ symbol): `base_weight` ↔ w_b, `spline_weight` ↔ w_s·c_i [1].

Shapes: N tokens, n tokens of one chunk, I in_features, O out_features, G grid intervals, K order, M = G+K.
"""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from kancourse.kan_basis import Grid, local_basis, slope_product, widened, write_features
from kancourse.kan_sparse import fits, sparse_gradients, sparse_kan
from kancourse.kernel_choice import by_itself, compiled, kernel

__all__ = ["Filler", "accumulate_product", "lean_kan"]

FEW_TOKENS = 32  # up to here the weights are used as they lie: rearranging them would cost more than the product


def _features_in_place(scratch: Tensor, x: Tensor, grid: Grid) -> tuple[list[Tensor], list[Tensor]]:
    """`features` written into scratch (n, 1+M, I), with masks: what PyTorch's operators do fastest.

    Returns:
        The masks (1 where the point is in interval c) and the values of order K-1, for `_slope_product_in_place`.
    """
    cell, values, lower = local_basis(widened(x), grid)
    values, cell = [value.to(scratch.dtype) for value in values], cell.to(scratch.dtype)
    here = [torch.eq(cell, c, out=torch.empty_like(cell)) for c in range(grid.size)]
    torch.ops.aten.silu.out(x.to(scratch.dtype), out=scratch[:, 0])
    for c, mask in enumerate(here):
        for j, value in enumerate(values):
            if c == 0 or j == grid.order:  # the first to touch this plane
                torch.mul(mask, value, out=scratch[:, 1 + c + j])
            else:
                scratch[:, 1 + c + j].addcmul_(mask, value)
    return here, lower


def _slope_product_in_place(x: Tensor, d: Tensor, grid: Grid, here: list[Tensor], lower: list[Tensor]) -> Tensor:
    """`slope_product`, going on from what `_features_in_place` returned."""
    x, d = widened(x), widened(d)
    slope = torch.zeros_like(x)
    for j, value in enumerate(lower):
        total = here[0] * d[:, 1 + j]
        for c in range(1, grid.size):
            total.addcmul_(here[c].to(d.dtype), d[:, 1 + c + j])
        slope.addcmul_(total, value)
    return slope.mul_(grid.scale).add_(torch.ops.aten.silu_backward(d[:, 0], x))


class Filler:
    """Fills one scratch with the planes of one chunk of tokens after another, with the kernel in use."""

    elements: ClassVar = {"eager": 2**18, "compiled": 2**19}  # tokens × features of a chunk on a CPU, by its caches
    gpu_elements = 2**22  # the same on anything else
    least_rows = 256  # but at least so many tokens, or the products get slow

    def __init__(self, x: Tensor, grid: Grid, dtype: torch.dtype) -> None:
        self.grid, self.dtype, self.compiled = grid, dtype, kernel().name == "compiled"
        elements = self.elements[kernel().name] if x.device.type == "cpu" else self.gpu_elements
        self.rows = min(len(x), max(self.least_rows, elements // x.size(1)))
        self.scratch: Tensor | None = None
        self.left: tuple[list[Tensor], list[Tensor]] = [], []

    def chunks(self, x: Tensor) -> list[slice]:
        """Slices of the rows of x; the last may be smaller."""
        return [slice(start, min(start + self.rows, len(x))) for start in range(0, len(x), max(1, self.rows))]

    def planes(self, x: Tensor) -> Tensor:
        """`features` of x (n, I) → (n, 1+M, I); valid until the next call."""
        if self.scratch is None:
            shape = (self.rows, 1 + self.grid.size + self.grid.order, x.size(1))
            self.scratch = x.new_empty(shape, dtype=self.dtype)
        planes = self.scratch[: len(x)]
        if self.compiled:
            compiled(write_features)(list(planes.unbind(1)), x, self.grid)
        else:
            self.left = _features_in_place(planes, x, self.grid)
        return planes

    def slopes(self, x: Tensor, d: Tensor) -> Tensor:
        """`slope_product` for the x that `planes` has just seen."""
        if self.compiled:
            return compiled(slope_product)(x, d, self.grid)
        return _slope_product_in_place(x, d, self.grid, *self.left)


def side_by_side(first: Tensor, others: Tensor, minus: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix (O, (1+m)·I) with blocks first (O, I) and others - minus, (O, I, m) each, block by block."""
    out = torch.empty(len(first), 1 + others.size(2), first.size(1), dtype=dtype, device=first.device)
    out[:, 0] = first
    torch.sub(others.transpose(1, 2), minus.transpose(1, 2), out=out[:, 1:])
    return out.flatten(1)


def accumulate_product(total: Tensor, grad: Tensor, left: Tensor) -> None:
    """total (O, P) += gradᵀ @ left, for grad (n, O) and left (n, P); total may have more digits than they."""
    if total.dtype == left.dtype:
        total.addmm_(grad.T, left)
    else:
        total.add_(grad.T @ left)


def lean_kan(
    x: Tensor, base_weight: Tensor, spline_weight: Tensor, bias: Tensor | None, grid: Grid, dtype: torch.dtype
) -> Tensor:
    """silu(x) @ base_weight.T + Σ_i Σ_g spline_weight[o,i,g]·B_g(x_i) + bias, keeping x and the weights for backward.

    Args:
        x: (N, I).
        base_weight, spline_weight, bias: (O, I), (O, I, M), (O,) or None.
        grid: low and scale in at least float32.
        dtype: of the matrix products and the result.

    Returns:
        (N, O). Differentiable once, in x and the weights: a second derivative raises RuntimeError.
    """
    return _kan(x, base_weight, spline_weight, bias, grid.low, grid.scale, grid.order, dtype)


# Operators of our own: opaque to torch.compile, which can so compile all around them without a break.
@torch.library.custom_op("kancourse::kan", mutates_args=())
@by_itself
def _kan(
    x: Tensor,
    base_weight: Tensor,
    spline_weight: Tensor,
    bias: Tensor | None,
    low: Tensor,
    scale: Tensor,
    order: int,
    dtype: torch.dtype,
) -> Tensor:
    grid = Grid(low, scale, spline_weight.size(2) - order, order)
    if len(x) <= FEW_TOKENS:
        x = widened(x)
        cell, values, _ = local_basis(x, grid)
        number = cell.nan_to_num(0).long()[..., None] + torch.arange(order + 1, device=x.device)  # (N, I, K+1)
        basis = x.new_zeros(*x.shape, spline_weight.size(2)).scatter_(2, number, torch.stack(values, -1))  # (N, I, M)
        y = F.silu(x).to(dtype) @ base_weight.to(dtype).T
        y.addmm_(basis.flatten(1).to(dtype), spline_weight.flatten(1).to(dtype).T)
        return y if bias is None else y.add_(bias)
    if kernel().name == "compiled" and fits(x, base_weight, order, dtype):
        return sparse_kan(x, base_weight, spline_weight, bias, grid)
    # The basis functions sum to 1, so Σ_g w_g B_g = w_last + Σ_{g<last} (w_g - w_last) B_g.
    last = spline_weight[..., -1]  # (O, I)
    matrix = side_by_side(base_weight, spline_weight[..., :-1], last[..., None], dtype)  # (O, M·I)
    constant = (last.sum(1) if bias is None else last.sum(1) + bias).to(dtype)  # (O,)
    y = x.new_empty(len(x), len(base_weight), dtype=dtype)
    filler = Filler(x, grid, dtype)
    for piece in filler.chunks(x):
        planes = filler.planes(x[piece]).flatten(1)  # (n, (1+M)·I)
        torch.addmm(constant, planes[:, : matrix.size(1)], matrix.T, out=y[piece])
    return y


@torch.library.custom_op("kancourse::kan_backward", mutates_args=())
@by_itself
def _kan_backward(
    grad: Tensor, x: Tensor, base_weight: Tensor, spline_weight: Tensor, low: Tensor, scale: Tensor, order: int
) -> tuple[Tensor, Tensor, Tensor]:
    (_, in_features, n_basis), dtype = spline_weight.shape, grad.dtype
    if kernel().name == "compiled" and fits(x, base_weight, order, dtype):
        return sparse_gradients(grad, x, base_weight, spline_weight, Grid(low, scale, n_basis - order, order))
    # d/dx Σ_g w_g B_g = scale · Σ_g (w_{g+1} - w_g) B_g of order K-1
    matrix = side_by_side(base_weight, spline_weight[..., 1:], spline_weight[..., :-1], dtype)  # (O, M·I)
    grad_x = torch.empty_like(x)
    wide = widened(base_weight).dtype
    grad_w = x.new_zeros(len(base_weight), (1 + n_basis) * in_features, dtype=wide)  # (O, (1+M)·I)
    filler = Filler(x, Grid(low, scale, n_basis - order, order), dtype)
    scratch = x.new_empty(filler.rows, n_basis * in_features, dtype=dtype)
    for piece in filler.chunks(x):
        planes = filler.planes(x[piece])  # (n, 1+M, I)
        accumulate_product(grad_w, grad[piece], planes.flatten(1))
        d = torch.mm(grad[piece], matrix, out=scratch[: len(planes)])  # (n, M·I)
        grad_x[piece] = filler.slopes(x[piece], d.unflatten(1, (n_basis, in_features)))
    grad_w = grad_w.unflatten(1, (-1, in_features)).to(base_weight.dtype)  # (O, 1+M, I)
    return grad_x, grad_w[:, 0].clone(), grad_w[:, 1:].transpose(1, 2).contiguous()


@_kan.register_fake
def _(x, base_weight, spline_weight, bias, low, scale, order, dtype):
    return x.new_empty(x.size(0), base_weight.size(0), dtype=dtype)


@_kan_backward.register_fake
def _(grad, x, base_weight, spline_weight, low, scale, order):
    return torch.empty_like(x), torch.empty_like(base_weight), torch.empty_like(spline_weight)


@register_flop_formula(torch.ops.kancourse.kan)
def _(x, base_weight, spline_weight, *args, **kwargs):  # of the matrix products, as for any layer
    return 2 * x[0] * math.prod(base_weight) * (spline_weight[2] + (x[0] <= FEW_TOKENS))


@register_flop_formula(torch.ops.kancourse.kan_backward)
def _(grad, x, base_weight, spline_weight, *args, **kwargs):
    return 2 * x[0] * math.prod(base_weight) * (2 * spline_weight[2] + 1)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, base_weight, spline_weight, bias, low, scale, ctx.order, _ = inputs
    ctx.save_for_backward(x, base_weight, spline_weight, low, scale)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = _kan_backward(grad, *ctx.saved_tensors, ctx.order)
    return *grads, None if ctx.bias_dtype is None else grad.sum(0).to(ctx.bias_dtype), None, None, None, None


def refuse_second_derivative(ctx: Any, *grads: Tensor) -> None:
    """The backward of a backward."""
    raise RuntimeError(
        "KAN layers are differentiable once; naive_kan_linear(x, layer) is, as often as its order allows"
    )


_kan.register_autograd(_differentiate, setup_context=_keep)
_kan_backward.register_autograd(refuse_second_derivative)
