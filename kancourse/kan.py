"""The Kolmogorov–Arnold layer: a learned function on every edge, a plain sum in every node.

Where `nn.Linear` multiplies each input by a number for each output, `KANLinear` sends it through a function of its
own: φ(x) = w_b·silu(x) + Σ_g c_g·B_g(x), a fixed smooth step plus a spline with coefficients to learn.

Notable points:
- Exact: the splines are those of `kancourse.splines`; `naive_kan_linear` is the formula, the oracle of the layer.
- Lean and fast: `kan_kernel` keeps only the input for the backward pass; `use_kernel` chooses who computes.
- The grid is [-3, 3] at the start, where 99.7% of normalised activations lie. **Outside it each spline goes on along
  its tangent**: gradients do not die there, a refined layer is the same function everywhere, and a layer that stands
  in for a matrix (`load_linear_`) does so for all inputs. The price: a steep end is continued steeply; `update_grid`.
- One scale per path, and that is the standard deviation of the path's output, so larger means larger.
- Each number decays once: there is no separate factor on a spline whose decay would count twice.
- NaN in a token makes that token's output NaN, no other's.

Papers: Liu et al. 2024, "KAN: Kolmogorov-Arnold Networks" [1].

Glossary (code name ↔ symbol): `base_weight` ↔ w_b, `spline_weight` ↔ w_s·c_i, silu ↔ b(x), `grid_size` ↔ G,
`order` ↔ k [1].

Shapes: B batch, T time, N = B·T tokens, I in_features, O out_features, G grid intervals, K order, M = G+K, C channels.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kancourse.kan_grid import SplineGrid, naive_tangent_basis
from kancourse.kan_kernel import lean_kan
from kancourse.kan_shared import SharedKANLinear, naive_shared_kan_linear
from kancourse.kan_symbolic import Formula, suggest_formulas
from kancourse.kan_tools import edge_curves, edge_importance, sparsity_penalty
from kancourse.kernel_choice import Kernel, kernel, use_kernel

if TYPE_CHECKING:
    from kancourse.gpt import GPTConfig, LinearFactory

__all__ = [
    "Formula",
    "KANFeedForward",
    "KANLinear",
    "Kernel",
    "SharedKANLinear",
    "edge_curves",
    "edge_importance",
    "kernel",
    "naive_kan_linear",
    "naive_shared_kan_linear",
    "sparsity_penalty",
    "suggest_formulas",
    "use_kernel",
]


def naive_kan_linear(x: Tensor, layer: "KANLinear") -> Tensor:
    """What `layer` computes, by the recursion of Cox and de Boor and plain autograd. Slow; the oracle.

    Args:
        x: (..., I), of the weights' dtype.
        layer: a `KANLinear`.

    Returns:
        (..., O).
    """
    base_weight, spline_weight = layer.weights()
    basis = naive_tangent_basis(x, layer)  # (..., I, M)
    y = F.linear(F.silu(x), base_weight) + torch.einsum("...ig,oig->...o", basis, spline_weight)
    return y if layer.bias is None else y + layer.bias


class KANLinear(SplineGrid):
    """y = silu(x) @ base_weight.T + Σ_i Σ_g spline_weight[o,i,g]·B_g(x_i) (+ bias) [1].

    Args:
        in_features, out_features: I and O.
        grid_size, order: G intervals, polynomial degree K.
        grid_range: where the grid starts and ends; outside, the splines follow their tangents.
        bias: learn a number per output, which the splines could do without (their basis functions sum to one).
        base_scale, spline_scale: standard deviation of the two paths' outputs for inputs from N(0, 1), when the
            weights are drawn. The squares of the defaults sum to 1: such inputs keep their variance.

    Parameters: `base_weight (O, I)`, `spline_weight (O, I, M)`, `bias (O,)` or None.

    Raises:
        ValueError: sizes below 1, a bad range, or a negative scale.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        grid_size: int = 5,
        order: int = 3,
        grid_range: tuple[float, float] = (-3.0, 3.0),
        bias: bool = False,
        base_scale: float = 0.5**0.5,
        spline_scale: float = 0.5**0.5,
    ) -> None:
        super().__init__(in_features, grid_size, order, grid_range, base_scale, spline_scale)
        if out_features < 1:
            raise ValueError(f"out_features must be at least 1, got {out_features}")
        self.out_features = out_features
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, grid_size + order))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.register_buffer("edge_mask", None)  # (O, I), once pruned
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights afresh from normal distributions with mean 0:

        | parameter | standard deviation |
        |---|---|
        | `base_weight` | base_scale / √(I · E[silu²]) |
        | `spline_weight` | spline_scale / √(I · E[Σ_g B_g²]) |
        | `bias` | 0 |

        where the expectation E is over an input from N(0, 1).
        """
        self.draw_functions(fan_in=self.in_features)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @torch.no_grad()
    def load_linear_(self, weight: Tensor, bias: Tensor | None) -> None:
        """Become x @ weight.T + bias, up to rounding, for every x: B-splines, and their tangents, hold lines.

        The spline coefficients become w·ξ_g, with ξ_g the mean of the K inner knots of B_g; the base path starts at 0,
        and learns.

        Args:
            weight: (O, I).
            bias: (O,), or None: the layer's own, if it has one, becomes 0.

        Raises:
            ValueError: a shape that is not the layer's, a bias for a layer that has none, or a weight other than 0 for
                an edge that is pruned, since pruned edges stay so.
        """
        gone = None if self.edge_mask is None else ~self.edge_mask
        if gone is not None and weight.shape == gone.shape and weight[gone].any():
            raise ValueError(
                f"{int(gone.sum())} of {gone.numel()} edges are pruned for good, but the weight is not 0 on all of "
                "them: load it into a new layer"
            )
        self.load_bias_(weight, bias)
        self.base_weight.zero_()
        self.spline_weight.copy_(weight[..., None] * self.line_coefficients())

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) → (..., O), each token by itself. Differentiable once; `naive_kan_linear` more often."""
        dtype = self.check_input(x)
        flat = x.reshape(-1, self.in_features).contiguous()  # (N, I)
        y = lean_kan(flat, *self.weights(), self.bias, self.grid(), dtype)  # (N, O)
        return y.reshape(*x.shape[:-1], self.out_features)

    def weights(self) -> tuple[Tensor, Tensor]:
        """Base and spline weights of the edges that are left."""
        if self.edge_mask is None:
            return self.base_weight, self.spline_weight
        return self.base_weight * self.edge_mask, self.spline_weight * self.edge_mask[..., None]

    @torch.no_grad()
    def prune(self, keep: Tensor) -> None:
        """Remove for good the edges where `keep`, boolean (O, I), is False: they answer 0 and learn no more.

        For example `layer.prune(edge_importance(layer, x) > 0.01)`. Pruning again removes more.

        Raises:
            ValueError: `keep` has another shape or is not boolean.
        """
        if keep.shape != self.base_weight.shape or keep.dtype != torch.bool:
            expected = (*self.base_weight.shape,)
            raise ValueError(f"prune wants a boolean mask of shape {expected}, got {keep.dtype} of {(*keep.shape,)}")
        keep = keep.to(self.base_weight.device)
        self.edge_mask = keep.clone() if self.edge_mask is None else self.edge_mask & keep
        for weight, left in zip((self.base_weight, self.spline_weight), self.weights(), strict=True):
            weight.copy_(left)

    @torch.no_grad()
    def scale_output_(self, factor: float) -> None:
        """Multiply the output by `factor`: both paths, and the bias. GPT's init does so before residual sums."""
        for parameter in self.parameters():
            parameter.mul_(factor)

    def extra_repr(self) -> str:
        low, high = self.grid_range
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, grid_size={self.grid_size}, "
            f"order={self.order}, grid_range=({low:g}, {high:g}), bias={self.bias is not None}"
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if f"{prefix}edge_mask" in state_dict and self.edge_mask is None:
            self.edge_mask = torch.ones_like(self.base_weight, dtype=torch.bool)
        super()._load_from_state_dict(state_dict, prefix, *args)


class KANFeedForward(nn.Module):
    """A feed-forward of two KAN layers, C → hidden → C. No activation between: the splines bend by themselves.

    Args:
        config: sizes; hidden is `ffn_dim`, or 4C as in the MLP it stands in for, with 9 times (G+K+1) the MLP's
            weights; `ffn_dim` = 4C/9 has as many as the MLP.
        linear: part of the seat's contract, not used: both matrices are KAN layers.
        options: of `KANLinear`, e.g. `grid_size=8`.
    """

    def __init__(self, config: "GPTConfig", linear: "LinearFactory | None" = None, **options: Any) -> None:
        super().__init__()
        hidden = config.ffn_dim or 4 * config.n_embd
        self.c_fc = KANLinear(config.n_embd, hidden, bias=config.bias, **options)
        self.c_proj = KANLinear(hidden, config.n_embd, bias=config.bias, **options)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, T, C), each position by itself."""
        return self.resid_dropout(self.c_proj(self.c_fc(x)))
