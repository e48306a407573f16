"""What layers of splines share: a grid per input feature, and how to change it without changing the function.

Notable points:
- `refine` splits every interval: the function stays the same everywhere, tangents outside included.
- `update_grid` moves each feature's grid to where its data is and refits by least squares: the function stays nearly
  the same on the data, and the call says by how much it changed.
- Splines hold straight lines exactly (`line_coefficients`), and their tangents carry these on outside the grid: so
  `load_linear_` makes a layer compute what a matrix does, for every input.
- A checkpoint of a layer with another grid (or, see `KANLinear.prune`, with pruned edges) loads: the layer adopts it.

Shapes: N tokens, I in_features, G grid intervals, K order, M = G+K.
"""

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn

from kancourse.kan_basis import Grid, features
from kancourse.splines import check_grid, naive_bspline_basis, refine_coefficients

CHUNK = 256  # tokens at a time
MIN_WIDTH = 0.05  # a grid never shrinks below this share of its width at one update, even when a feature is constant
EVEN_WEIGHT = 0.01  # share of the fit that an even sample of the new range has, beside the data
RIDGE = 1e-9  # of the mean diagonal of the normal equations


class SplineGrid(nn.Module, ABC):
    """Base of layers with coefficients `spline_weight (..., I, M)` over one uniform grid per input feature.

    Args:
        in_features: I.
        grid_size, order: G and K, the same for all features.
        grid_range: (low, high) of every feature's grid at the start.
        base_scale, spline_scale: for `draw_functions`.

    Raises:
        ValueError: sizes below 1, a range that is reversed, empty or not finite, or a negative scale.
    """

    base_weight: nn.Parameter  # (..., I)
    spline_weight: nn.Parameter  # (..., I, M)
    bias: nn.Parameter | None  # (O,)
    out_features: int

    def __init__(
        self,
        in_features: int,
        grid_size: int,
        order: int,
        grid_range: tuple[float, float],
        base_scale: float,
        spline_scale: float,
    ) -> None:
        super().__init__()
        low, high = grid_range
        check_grid(grid_size, order, low, high)
        if in_features < 1:
            raise ValueError(f"in_features must be at least 1, got {in_features}")
        if min(base_scale, spline_scale) < 0:
            raise ValueError(f"scales cannot be negative, got base_scale={base_scale}, spline_scale={spline_scale}")
        self.in_features, self.order = in_features, order
        self.base_scale, self.spline_scale = base_scale, spline_scale
        self.register_buffer("grid_low", torch.full((in_features,), float(low)))
        self.register_buffer("grid_high", torch.full((in_features,), float(high)))

    @property
    def grid_size(self) -> int:
        """G, intervals per feature."""
        return self.spline_weight.size(-1) - self.order

    @property
    def grid_range(self) -> tuple[float, float]:
        """From the lowest to the highest end of any feature's grid; `grid_low` and `grid_high` have each feature's."""
        return float(self.grid_low.min()), float(self.grid_high.max())

    def grid(self) -> Grid:
        """The grid as the kernel wants it, in at least float32."""
        dtype = torch.promote_types(self.grid_low.dtype, torch.float32)
        low, high = self.grid_low.to(dtype), self.grid_high.to(dtype)
        return Grid(low, self.grid_size / (high - low), self.grid_size, self.order)

    def draw_functions(self, fan_in: int) -> None:
        """Draw base and spline weights so that, over inputs from N(0, 1), a sum of fan_in functions has per path the
        standard deviation base_scale and spline_scale: each weight's is that over √(fan_in · power of its features).
        """
        if self.base_weight.is_meta:  # a model without numbers, built only to count
            return
        x = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]  # (4001, 1)
        density = torch.softmax(-(x**2) / 2, dim=0)
        low, scale, size, order = self.grid()
        grid = Grid(low[:1].to(x), scale[:1].to(x), size, order)
        power = (features(x, grid, x.dtype).squeeze(2).square() * density).sum(0)  # (1+M,): E[silu²], E[B_g²]
        nn.init.normal_(self.base_weight, std=self.base_scale / float(fan_in * power[0]) ** 0.5)
        nn.init.normal_(self.spline_weight, std=self.spline_scale / float(fan_in * power[1:].sum()) ** 0.5)

    @classmethod
    @torch.no_grad()
    def from_linear(cls, linear: nn.Linear, **options: Any) -> Self:
        """A new layer that computes what `linear` computes, for every input; see `load_linear_`.

        Args:
            linear: gives the sizes, device and dtype too, and whether there is a bias.
            options: of the layer, e.g. `grid_size=8`.
        """
        layer = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, **options)
        layer.to(linear.weight.device, linear.weight.dtype)
        layer.load_linear_(linear.weight, linear.bias)
        return layer

    @abstractmethod
    def load_linear_(self, weight: Tensor, bias: Tensor | None) -> None:
        """Become x @ weight.T + bias, up to rounding, for every x, and free to learn all else from there.

        Args:
            weight: (O, I).
            bias: (O,), or None: the layer's own, if it has one, becomes 0.

        Raises:
            ValueError: a shape that is not the layer's, or a bias for a layer that has none.
        """

    def load_bias_(self, weight: Tensor, bias: Tensor | None) -> None:
        """The part of `load_linear_` that all layers share: check both, take over the bias."""
        name, wanted = type(self).__name__, (self.out_features, self.in_features)
        if weight.shape != wanted:
            raise ValueError(f"a weight of shape {(*weight.shape,)} does not fit a {name} of shape {wanted}")
        if bias is not None and self.bias is None:
            raise ValueError(f"the old layer has a bias and the new {name} has none to take it over")
        if bias is not None and bias.shape != self.bias.shape:
            raise ValueError(f"a bias of shape {(*bias.shape,)} does not fit a {name} of shape {wanted}")
        if self.bias is not None:
            self.bias.copy_(torch.zeros_like(self.bias) if bias is None else bias)

    def line_coefficients(self) -> Tensor:
        """ξ (I, M), for which Σ_g ξ_ig·B_g(x) = x: the mean of the K inner knots of each basis function."""
        low, scale, size, order = self.grid()
        middle = torch.arange(size + order).to(low) - (order - 1) / 2  # in intervals from low, (M,)
        return low[:, None] + middle / scale[:, None]

    def check_input(self, x: Tensor) -> torch.dtype:
        """The dtype to compute in: autocast's where that is on, else that of the weights.

        Raises:
            ValueError: another number of features.
            TypeError: x has not the dtype of the weights.
        """
        name, weights = type(self).__name__, self.spline_weight.dtype
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"{name} takes {self.in_features} features on the last axis, got shape {(*x.shape,)}")
        if torch.is_autocast_enabled(x.device.type) and torch.float64 not in (x.dtype, weights):
            return torch.get_autocast_dtype(x.device.type)
        if x.dtype != weights:
            raise TypeError(f"{name} has weights of {weights}, got an input of {x.dtype}")
        return weights

    @torch.no_grad()
    def refine(self, grid_size: int) -> None:
        """Split the intervals, so that there are `grid_size`; the function stays the same everywhere, up to rounding.

        `spline_weight` becomes a new parameter: make the optimiser afterwards.

        Raises:
            ValueError: grid_size is not a multiple of the present one.
        """
        fine = refine_coefficients(
            self.spline_weight, grid_size=self.grid_size, new_grid_size=grid_size, order=self.order
        )
        self.spline_weight = nn.Parameter(fine, requires_grad=self.spline_weight.requires_grad)

    @torch.no_grad()
    def update_grid(self, x: Tensor, *, tail: float = 0.01, margin: float = 0.05, max_change: float = 0.05) -> float:
        """Move each feature's grid to where x is, and refit the splines by least squares.

        The new range runs between the quantiles `tail` and 1 - `tail` of the feature, plus `margin` of the width at
        either end. The old splines are refitted on x, and lightly on an even sample of the new range, which keeps
        their shape where data is thin and makes a constant feature no special case; a small ridge does the rest.
        If that changes the output by more than `max_change` (splines too crooked for the new intervals: `refine`
        first), the grids go half of the way, or a quarter, or an eighth, or stay.

        Args:
            x: typical inputs, (..., I), finite.
            tail, margin: the range, as above.
            max_change: of the layer's output on x, relative to its size (root mean squares); infinity: move anyway.

        Returns:
            The change; 0 when the grids stayed.

        Raises:
            ValueError: no tokens, another number of features, or numbers that are not finite.
        """
        self.check_input(x)
        flat = x.detach().reshape(-1, self.in_features)  # (N, I)
        if not len(flat):
            raise ValueError(f"update_grid wants at least one token, got shape {(*x.shape,)}")
        if not flat.isfinite().all():
            raise ValueError("update_grid wants finite numbers, got nan or infinity among them")
        cut = 1 + int(tail * (len(flat) - 1))
        low, high = (flat.kthvalue(k, dim=0).values.to(self.grid_low.dtype) for k in (cut, len(flat) + 1 - cut))  # (I,)
        half = torch.maximum((high - low) * (1 + 2 * margin), MIN_WIDTH * (self.grid_high - self.grid_low)) / 2
        goal_low, goal_high = (low + high) / 2 - half, (low + high) / 2 + half
        before, old, weight = self(flat), self.grid(), self.spline_weight.double()
        old_low, old_high = self.grid_low, self.grid_high
        for share in (1.0, 0.5, 0.25, 0.125):
            self.grid_low, self.grid_high = old_low.lerp(goal_low, share), old_high.lerp(goal_high, share)
            transfer = self._transfer(flat.double(), old, self.grid())  # (I, M, M)
            self.spline_weight.copy_(torch.einsum("...im,inm->...in", weight, transfer))
            change = (self(flat) - before).norm() / before.norm().clamp_min(torch.finfo(before.dtype).tiny)
            if change <= max_change:
                return float(change)
        self.grid_low, self.grid_high = old_low, old_high
        self.spline_weight.copy_(weight)
        return 0.0

    @staticmethod
    def _transfer(x: Tensor, old: Grid, new: Grid) -> Tensor:
        """For each feature the matrix (M, M) that takes coefficients on the old grid to the nearest on the new."""
        steps = torch.linspace(0, new.size, 8 * new.size + 1).to(x)[:, None]
        even = new.low + steps / new.scale  # (8G+1, I)
        gram = cross = torch.zeros((), dtype=x.dtype, device=x.device)
        for sample, weight in ((x, 1 / len(x)), (even, EVEN_WEIGHT / len(even))):
            for piece in sample.split(CHUNK):
                basis, was = (features(piece, grid, x.dtype)[:, 1:] for grid in (new, old))  # (n, M, I)
                gram = gram + weight * torch.einsum("nmi,nki->imk", basis, basis)
                cross = cross + weight * torch.einsum("nmi,nki->imk", basis, was)
        diagonal = gram.diagonal(dim1=1, dim2=2)  # (I, M), a view
        diagonal += RIDGE * diagonal.mean(1, keepdim=True)
        return torch.linalg.solve(gram, cross)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        stored = state_dict.get(f"{prefix}spline_weight")
        if stored is not None and stored.shape[:-1] == self.spline_weight.shape[:-1]:
            self.spline_weight.data = self.spline_weight.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


def naive_tangent_basis(x: Tensor, layer: SplineGrid) -> Tensor:
    """The layer's basis functions by Cox–de Boor, continued along their tangents outside: (..., I) → (..., I, M)."""
    size, order = layer.grid_size, layer.order
    low, high = layer.grid_low.to(x), layer.grid_high.to(x)  # (I,)
    h = (high - low) / size
    knots = torch.arange(-order, size + order + 1).to(x)  # of every grid, in intervals from its low end
    inside = x.clamp(low, high)
    basis = naive_bspline_basis(inside, low[:, None] + knots * h[:, None], order)  # (..., I, M)
    lower = naive_bspline_basis(torch.zeros_like(low[:1]), knots, order - 1)  # (1, M+1)
    at_low = (lower[:, :-1] - lower[:, 1:]) / h[:, None]  # slopes at the low end, (I, M)
    at_high = -at_low.flip(-1)
    below, above = (x - inside).clamp(max=0), (x - inside).clamp(min=0)
    return basis + below[..., None] * at_low + above[..., None] * at_high
