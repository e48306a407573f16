"""A KAN layer of the usual kind: what ours is measured against, in time and in memory.

All basis functions by the recursion of Cox and de Boor, ten weights per edge, and autograd for the rest. The grid ends
at its extension, beyond which the splines are zero.

Paper: Liu et al. 2024, "KAN: Kolmogorov-Arnold Networks".

Shapes: I in_features, O out_features, G grid intervals, K order, M = G+K.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["UsualKANLinear"]


class UsualKANLinear(nn.Module):
    """y = silu(x) @ base_weight.T + Σ_i Σ_g spline_scale[o,i]·spline_weight[o,i,g]·B_g(x_i).

    Args:
        in_features, out_features: I and O.
        bias: as most public code, it has none; the place is kept, because every linear factory is asked.
        grid_size, order, grid_range: as for `KANLinear`.

    Parameters: `base_weight (O, I)`, `spline_weight (O, I, M)`, and `spline_scale (O, I)`, which multiplies it.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        grid_size: int = 5,
        order: int = 3,
        grid_range: tuple[float, float] = (-3.0, 3.0),
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.order = in_features, out_features, order
        low, high = grid_range
        knots = low + torch.arange(-order, grid_size + order + 1) * ((high - low) / grid_size)
        self.register_buffer("knots", knots.repeat(in_features, 1))  # (I, G+2K+1)
        edges = (out_features, in_features)
        self.base_weight = nn.Parameter(torch.randn(edges) / in_features**0.5)
        self.spline_weight = nn.Parameter(0.1 * torch.randn(*edges, grid_size + order))
        self.spline_scale = nn.Parameter(torch.randn(edges) / in_features**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) → (..., O)."""
        weight = self.spline_weight * self.spline_scale[..., None]  # (O, I, M)
        return F.linear(F.silu(x), self.base_weight) + F.linear(self.basis(x).flatten(-2), weight.flatten(1))

    def basis(self, x: Tensor) -> Tensor:
        """(..., I) → (..., I, M)."""
        x, t = x[..., None], self.knots
        basis = ((x >= t[:, :-1]) & (x < t[:, 1:])).to(x.dtype)  # (..., I, G+2K)
        for p in range(1, self.order + 1):
            rise = (x - t[:, : -p - 1]) / (t[:, p:-1] - t[:, : -p - 1])
            fall = (t[:, p + 1 :] - x) / (t[:, p + 1 :] - t[:, 1:-p])
            basis = rise * basis[..., :-1] + fall * basis[..., 1:]  # (..., I, G+2K-p)
        return basis

    @torch.no_grad()
    def scale_output_(self, factor: float) -> None:
        """Multiply the output by `factor`."""
        self.base_weight.mul_(factor)
        self.spline_scale.mul_(factor)
