"""BitKAN: a Kolmogorov–Arnold layer whose coefficients are −1, 0 and 1, on inputs of eight bits.

Every edge has a function of its own, φ(x) = w_b·silu(x) + Σ_g w_g·B_g(x), as in `KANLinear`, but the w are ternary, as
in `BitLinear`, and there is no basis function to compute: an input is one of 255 numbers, so a table has them all.

    z = RMS norm of x · codes = round(z·127/R), held within ±127 · features = table[codes] · y = (features @ w) · scale

Notable points:
- The code is static, the same R for every token (`bit_kan_codes`): a code means the same place on the grid for ever.
- Whatever lies beyond ±R counts as the end of the grid, and sends no gradient back; at R = 3 that is 0.3% of inputs.
- The table holds integers, so the product is one of integers: exact, in any order. What precedes it is rounded in a
  fixed order (`bit_codes`), what follows is one factor per output: packed inference equals training to the last bit.
- A base function and M B-splines have a column of the table each, all in steps of one unit.
- One scale for the whole matrix by its mean magnitude, and one per output that is learned. Ternary coefficients cost
  precision; a scale per output gives most of it back, one per basis function does not.
- Gradients pass through all rounding as if it were not there, with the slopes of the basis at the code, from a second
  table. `naive_bit_kan` is the same by Cox and de Boor and autograd.
- Computes in float32 whatever autocast says. A token that is not finite comes out as NaN, and no other token does.

Papers: Liu et al. 2024, "KAN: Kolmogorov-Arnold Networks" [1]; Ma et al. 2024, "The Era of 1-bit LLMs" (b1.58) [2].

Glossary (code name ↔ symbol): `weight` ↔ w_b and w_s·c_i side by side [1]; `grid_size` ↔ G, `order` ↔ k [1]; scale of
the matrix ↔ γ = mean|W| [2]; `reach` ↔ R.

Shapes: N tokens, I in_features, O out_features, G grid intervals, K order, M = G+K, F = 1+M features of an input.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from kancourse.bit_codes import LARGEST_CODE, rms_gradient, rms_normalise, round_ternary
from kancourse.bit_kan_codes import (
    N_CODES,
    KANTable,
    check_input,
    check_sizes,
    kan_input_codes,
    kan_repr,
    kan_table,
    output_scale,
    round_inside,
)
from kancourse.bitnet import is_ternary
from kancourse.splines import naive_bspline_basis

if TYPE_CHECKING:
    from collections.abc import Callable

    from kancourse.gpt import GPTConfig, LinearFactory

__all__ = ["BitKAN", "BitKANFeedForward", "KANTable", "kan_input_codes", "kan_table", "naive_bit_kan"]


def naive_bit_kan(x: Tensor, layer: "BitKAN") -> Tensor:
    """What `layer` computes, edge by edge: rounded values in place of the real ones, Cox–de Boor, and autograd. Slow.

    `real + (rounded − real).detach()` has the value of the second and the gradient of the first. The oracle of the
    layer, in the dtype of x.

    Args:
        x: (..., I).
        layer: a `BitKAN`.

    Returns:
        (..., O).
    """
    reach, norm_weight, size = layer.reach, layer.norm_weight.to(x), layer.grid_size
    codes, _ = kan_input_codes(x, layer.norm_weight, reach, layer.eps)
    z = F.rms_norm(x, (layer.in_features,), norm_weight, layer.eps)
    z = z + (codes.to(x) * (reach / LARGEST_CODE) - z).detach()
    z = torch.where(codes.abs() < LARGEST_CODE, z, z.detach())  # the ends send no gradient back
    knots = torch.arange(-layer.order, size + layer.order + 1).to(x) * (2 * reach / size) - reach
    features = torch.cat((F.silu(z)[..., None], naive_bspline_basis(z, knots, layer.order)), dim=-1)  # (..., I, F)
    table = layer.table()
    looked_up = table.codes[codes.long() + LARGEST_CODE].to(x) * table.unit
    features = features + (looked_up - features).detach()
    weight_codes, weight_scale = layer.weight_codes()
    weight = layer.weight.to(x)
    weight = weight + (weight_codes.to(x) * weight_scale.to(x) - weight).detach()
    return torch.einsum("...if,oif->...o", features, weight) * layer.row_scale.to(x)


CHUNK = 256  # tokens at a time in the backward pass, so that their features stay in the cache


class BitKAN(nn.Module):
    """y_o = (Σ_i Σ_f table[code of x_i, f] · ternary weight[o, i, f]) · scale of the output. No bias; norm inside.

    Args:
        in_features, out_features: I and O.
        bias: must be False; the place is kept, because every linear factory is asked.
        grid_size, order: G intervals, polynomial degree K.
        reach: R, where the grid and the input codes end, in units of the normalised input.
        eps: of the norm.

    Parameters: `weight (O, I, F)`, latent; `row_scale (O,)`; `norm_weight (I,)`, the gain of the norm.

    Raises:
        ValueError: sizes below 1, so many features that integer sums might be inexact, a bad grid, or a bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        grid_size: int = 3,
        order: int = 2,
        reach: float = 3.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        check_sizes(type(self).__name__, in_features, out_features, bias, grid_size, order, reach)
        self.in_features, self.out_features = in_features, out_features
        self.grid_size, self.order, self.reach, self.eps = grid_size, order, float(reach), eps
        self.weight = nn.Parameter(torch.empty(out_features, in_features, 1 + grid_size + order))
        self.row_scale = nn.Parameter(torch.ones(out_features))
        self.norm_weight = nn.Parameter(torch.ones(in_features))
        self.register_buffer("values", self.table().codes.float(), persistent=False)  # (255, F)
        self.register_buffer("slopes", self.table().slopes.T.contiguous(), persistent=False)  # (F, 255)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw afresh, where E is over an input from N(0, 1). Such an input comes out with a mean square of about 0.44.

        | parameter | mean | standard deviation |
        |---|---|---|
        | `weight` | 0 | 1 / √(I · E[Σ_f feature²]) |
        | `row_scale`, `norm_weight` | 1 | 0 |

        The share 0.44 is as in `BitLinear`: P(|w| > E|w|/2) · E|w|² / E[w²], what rounding leaves of the weights.
        """
        table = self.table()
        x = torch.linspace(-self.reach, self.reach, N_CODES, dtype=torch.float64, device="cpu")
        density = torch.softmax(-(x**2) / 2, dim=0)
        power = float(((table.codes.double() * table.unit).square().sum(1) * density).sum())
        nn.init.normal_(self.weight, std=(self.in_features * power) ** -0.5)
        nn.init.ones_(self.row_scale)
        nn.init.ones_(self.norm_weight)

    def table(self) -> KANTable:
        """The features of every code, on the CPU."""
        return kan_table(self.grid_size, self.order, self.reach)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) → (..., O), each token by itself. Differentiable once; `naive_bit_kan` more often.

        Raises:
            ValueError: another number of features.
            TypeError: x is not of a floating dtype.
        """
        check_input(self, x)
        with torch.autocast(x.device.type, enabled=False):
            y = _BitKANProduct.apply(
                x.reshape(-1, self.in_features).float(),
                self.norm_weight.float(),
                self.row_scale.float(),
                self.weight.float(),
                *self.weight_codes(),
                self.values,
                self.slopes,
                self.table().unit,
                self.reach,
                self.eps,
            )
        return y.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    @torch.no_grad()
    def weight_codes(self) -> tuple[Tensor, Tensor]:
        """The coefficients as they multiply: int8 codes (O, I, F) and their scale (). Not finite: scale NaN."""
        return round_ternary(self.weight)

    @torch.no_grad()
    def output_scale(self) -> Tensor:
        """What integer sums are multiplied by, float32 (O,)."""
        return output_scale(self.weight_codes()[1], self.row_scale.float(), self.table().unit)

    @torch.no_grad()
    def scale_output_(self, factor: float) -> None:
        """Multiply the output: the codes stay, their scale follows the latent weights (down to 1e-5, then zero)."""
        self.weight.mul_(factor)

    def extra_repr(self) -> str:
        return kan_repr(self)

    def _apply(self, fn: Any, recurse: bool = True) -> "BitKAN":
        super()._apply(fn, recurse)  # a cast would round the tables; they stay float32
        device, table = self.weight.device, self.table()
        if not self.weight.is_meta:
            self.values, self.slopes = table.codes.float().to(device), table.slopes.T.contiguous().to(device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        weight = state_dict.get(f"{prefix}weight")
        if weight is not None and is_ternary(weight):
            raise ValueError(
                f"{prefix}weight holds values that are ternary already; rounded again they would shrink by the share "
                "of zeros: load the latent weights instead"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class BitKANFeedForward(nn.Module):
    """A feed-forward of two BitKAN layers, C → hidden → C. No activation between: the functions bend by themselves.

    Args:
        config: sizes; hidden is `ffn_dim`, or 4C/F, which has as many weights as the MLP it stands in for.
        linear: part of the seat's contract, not used: both matrices are BitKAN layers.
        layer: makes them; `BitKAN`, or its packed twin.
        grid_size, order, options: of the layer.
    """

    def __init__(
        self,
        config: "GPTConfig",
        linear: "LinearFactory | None" = None,
        *,
        layer: "Callable[..., nn.Module]" = BitKAN,
        grid_size: int = 3,
        order: int = 2,
        **options: Any,
    ) -> None:
        super().__init__()
        options |= {"grid_size": grid_size, "order": order}
        hidden = config.ffn_dim or max(1, round(4 * config.n_embd / (1 + grid_size + order)))
        self.c_fc = layer(config.n_embd, hidden, bias=config.bias, **options)
        self.c_proj = layer(hidden, config.n_embd, bias=config.bias, **options)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, T, C), each position by itself."""
        return self.resid_dropout(self.c_proj(self.c_fc(x)))


class _BitKANProduct(torch.autograd.Function):
    """Norm, code, table, product; backward as if nothing had been rounded, with the rounded values in the products."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm_weight: Tensor,
        row_scale: Tensor,
        weight: Tensor,
        codes_w: Tensor,
        scale_w: Tensor,
        values: Tensor,
        slopes: Tensor,
        unit: float,
        reach: float,
        eps: float,
    ) -> Tensor:
        z, r = rms_normalise(x, norm_weight, eps)  # (N, I), (N, 1)
        codes, finite = round_inside(z, reach)
        index = codes.int() + LARGEST_CODE  # (N, I)
        sums = F.linear(F.embedding(index, values).flatten(1), codes_w.float().flatten(1))  # (N, O), of integers
        ctx.save_for_backward(x, r, norm_weight, row_scale, index, sums, codes_w, scale_w, values, slopes)
        ctx.unit = unit
        return (sums * output_scale(scale_w, row_scale, unit)).masked_fill_(~finite, torch.nan)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, r, norm_weight, row_scale, index, sums, codes_w, scale_w, values, slopes = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            grad_row_scale = (grad * sums).sum(0) * (scale_w * ctx.unit)  # (O,)
            grad, planes_w = grad * row_scale, codes_w.float().permute(2, 0, 1).contiguous()  # (F, O, I)
            grad_weight = torch.zeros_like(codes_w, dtype=grad.dtype).flatten(1)  # (O, I·F)
            grad_z = torch.empty_like(x)  # (N, I)
            for start in range(0, len(x), CHUNK):
                n = slice(start, start + CHUNK)
                grad_weight.addmm_(grad[n].T, F.embedding(index[n], values).flatten(1))  # of features in units
                planes = grad[n] @ planes_w  # (F, n, I)
                planes *= slopes.index_select(1, index[n].flatten()).view(planes.shape)
                torch.sum(planes, 0, out=grad_z[n])
            grad_weight = grad_weight.mul_(ctx.unit).view(codes_w.shape)
            grad_z *= scale_w
            grad_norm_weight = (grad_z * (x * r)).sum(0)  # (I,)
            grad_x = rms_gradient(grad_z, x, r, norm_weight)
        return grad_x, grad_norm_weight, grad_row_scale, grad_weight, *[None] * 7
