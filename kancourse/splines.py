"""B-splines on a uniform grid: smooth bumps, each alive on a few neighbouring intervals only, that sum to one.

Notable points:
- `naive_bspline_basis` is the textbook recursion (Cox–de Boor) on any knots; `bspline_basis` is one closed formula on
  the uniform grid: no recursion, no gather, exactly zero outside a bump's support.
- The grid of G intervals on [low, high] is continued by `order` knots on either side, so that on the whole of
  [low, high], both ends included, the G+K bumps sum to one. Beyond, the sum fades, to zero `order` intervals on.
- Splitting every interval into equal parts loses nothing: `refine_coefficients` is exact.
- A spline is `coefficients @ basis`; coefficients lie on the last axis everywhere.
- NaN in, NaN out, for that element only; infinities are outside every support and give zeros. float16 and bfloat16 are
  computed in float32 and rounded once.

Papers: de Boor 1978, "A Practical Guide to Splines" [1]; Schoenberg 1946 (cardinal splines) [2]; Lane & Riesenfeld 1980
(splitting intervals) [3].

Glossary (code name ↔ symbol): `order` ↔ k, the polynomial degree (3: cubic; de Boor's "order" is one more [1]);
`grid_size` ↔ G; `knots` ↔ t; basis number m ↔ B_{m,k}.

Shapes: G grid intervals, K order, M = G+K basis functions, N points; `...` any leading axes.
"""

import math

import torch
from torch import Tensor

__all__ = [
    "bspline_basis",
    "bspline_derivative",
    "evaluate_spline",
    "fit_spline",
    "naive_bspline_basis",
    "refine_coefficients",
    "uniform_knots",
]

RANK_TOLERANCE = 1e-7  # singular values below this share of the largest count as zero in `fit_spline`


def uniform_knots(
    *, grid_size: int = 5, order: int = 3, low: float = -1.0, high: float = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The knots of the extended grid: low + i·h for i = -order … grid_size+order, h = (high-low)/grid_size.

    Returns:
        (G+2K+1,), on the CPU.

    Raises:
        ValueError: grid_size or order below 1, or a range that is reversed, empty or not finite.
    """
    check_grid(grid_size, order, low, high)
    i = torch.arange(-order, grid_size + order + 1, dtype=torch.float64)
    return (low + i * ((high - low) / grid_size)).to(dtype)


def naive_bspline_basis(x: Tensor, knots: Tensor, order: int) -> Tensor:
    """All B-splines of the given knots by the recursion of Cox and de Boor [1]. Slow; the oracle of the fast paths.

    Args:
        x: points, any shape (...).
        knots: ascending, (n_knots,), or (..., n_knots) with leading axes that broadcast against x (a grid per feature).
        order: polynomial degree, at least 0.

    Returns:
        (..., n_knots-order-1). Intervals are half-open [t_i, t_{i+1}), except that the last one that is not empty
        contains its right end; a quotient 0/0 at repeated knots counts as 0.

    Raises:
        ValueError: order below 0, or too few knots for it.
    """
    n_knots = knots.size(-1)
    if order < 0 or n_knots < order + 2:
        raise ValueError(
            f"order {order} with {n_knots} knots: order must be at least 0 and needs order+2 knots or more"
        )
    x = x[..., None]  # (..., 1)
    left, right, end = knots[..., :-1], knots[..., 1:], knots[..., -1:]
    last = (x == end) & (right == end) & (left < end)
    basis = ((x >= left) & (x < right) | last).to(x.dtype)  # (..., n_knots-1)
    basis = torch.where(x.isnan(), x, basis)
    for p in range(1, order + 1):
        rise = _ratio(x - knots[..., : -p - 1], knots[..., p:-1] - knots[..., : -p - 1])
        fall = _ratio(knots[..., p + 1 :] - x, knots[..., p + 1 :] - knots[..., 1:-p])
        basis = rise * basis[..., :-1] + fall * basis[..., 1:]  # (..., n_knots-1-p)
    return basis


def bspline_basis(x: Tensor, *, grid_size: int = 5, order: int = 3, low: float = -1.0, high: float = 1.0) -> Tensor:
    """All G+K B-splines of the extended uniform grid, in closed form [2].

    With s = (x-low)/h + order, the point in units of intervals from the first knot, basis m is the same bump N at s-m.
    For cubics, with v the distance from the bump's middle: N = ((2-v)₊³ - 4(1-v)₊³)/6.

    Args:
        x: points, any shape (...), contiguous or not.
        grid_size: G, intervals on [low, high].
        order: K, polynomial degree, at least 1.
        low, high: the ends of the grid.

    Returns:
        (..., G+K), dtype of x. Differentiable; of order 1 the derivative at a knot, where there is none, is arbitrary.

    Raises:
        ValueError: grid_size or order below 1, or a range that is reversed, empty or not finite.
        TypeError: x is not floating-point.
    """
    u, _ = _offsets(x, grid_size, order, low, high)
    return _cardinal(u, order).to(x.dtype)


def bspline_derivative(
    x: Tensor, *, grid_size: int = 5, order: int = 3, low: float = -1.0, high: float = 1.0
) -> Tensor:
    """d/dx of every basis function: the difference of two neighbours one order lower, over h.

    Arguments and errors as `bspline_basis`.

    Returns:
        (..., G+K). For order 1, where the derivative jumps at the knots, its value from the right.
    """
    u, h = _offsets(x, grid_size, order, low, high)
    return ((_cardinal(u, order - 1) - _cardinal(u - 1, order - 1)) / h).to(x.dtype)


def evaluate_spline(x: Tensor, coefficients: Tensor, *, order: int = 3, low: float = -1.0, high: float = 1.0) -> Tensor:
    """The splines with these coefficients at these points: x (N,), coefficients (..., G+K) → (..., N)."""
    grid_size = coefficients.size(-1) - order
    return coefficients @ bspline_basis(x, grid_size=grid_size, order=order, low=low, high=high).mT


def fit_spline(
    x: Tensor, y: Tensor, *, grid_size: int = 5, order: int = 3, low: float = -1.0, high: float = 1.0
) -> Tensor:
    """Coefficients of the splines nearest to the data in the sense of least squares, computed in float64.

    Args:
        x: points, (N,).
        y: values at these points, (..., N): one spline is fitted for each leading index.
        grid_size, order, low, high: the grid.

    Returns:
        (..., G+K), dtype of y. Where the points leave some coefficient undetermined (few points, gaps), a ridge of
        RANK_TOLERANCE times the largest singular value chooses small coefficients; otherwise there is none.

    Raises:
        ValueError: a bad grid, shapes that do not belong together, or data that is not finite.
    """
    if x.ndim != 1 or y.shape[-1:] != x.shape:
        raise ValueError(f"fit_spline wants x (N,) and y (..., N), got shapes {(*x.shape,)} and {(*y.shape,)}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("fit_spline got x or y with NaN or infinity; drop those points first")
    design = bspline_basis(x.double(), grid_size=grid_size, order=order, low=low, high=high)  # (N, M)
    target = y.double().reshape(-1, len(x)).mT  # (N, D)
    singular = torch.linalg.svdvals(design)
    ridge = RANK_TOLERANCE * max(float(singular[0]), 1e-300)  # all points outside the support: any ridge gives zeros
    if len(x) < design.size(1) or singular[-1] < ridge:
        design = torch.cat((design, ridge * torch.eye(design.size(1)).to(design)))  # (N+M, M)
        target = torch.cat((target, target.new_zeros(design.size(1), target.size(1))))
    solution = torch.linalg.lstsq(design, target, driver="gels").solution  # (M, D)
    return solution.mT.reshape(*y.shape[:-1], -1).to(y.dtype)


def refine_coefficients(coefficients: Tensor, *, grid_size: int, new_grid_size: int, order: int = 3) -> Tensor:
    """The same splines on a finer grid of the same range; exact on [low, high] (up to rounding) [3].

    Args:
        coefficients: (..., G+K).
        grid_size, new_grid_size: intervals now and wanted; the new number is a multiple of the old.
        order: K.

    Returns:
        (..., new_grid_size+K). Beyond [low, high] the finer grid's extension is shorter, so the fading parts differ.

    Raises:
        ValueError: not a multiple (old knots that are no knots of the new grid cannot be reproduced exactly;
            `fit_spline` finds the nearest spline instead), or coefficients of another size.
    """
    check_grid(grid_size, order, 0.0, 1.0)
    if coefficients.size(-1) != grid_size + order:
        raise ValueError(
            f"{coefficients.size(-1)} coefficients are not those of {grid_size} intervals and order {order}"
        )
    if new_grid_size < grid_size or new_grid_size % grid_size:
        known = ", ".join(str(n * grid_size) for n in (2, 3, 4))
        raise ValueError(
            f"{new_grid_size} intervals cannot hold a spline on {grid_size} exactly; multiples can: {known}, …"
        )
    matrix = _refinement_matrix(grid_size, new_grid_size // grid_size, order).to(coefficients.device)
    return (coefficients.double() @ matrix).to(coefficients.dtype)


def check_grid(grid_size: int, order: int, low: float, high: float) -> None:
    """Raise ValueError unless this describes a grid."""
    if grid_size < 1:
        raise ValueError(f"grid_size must be at least 1, got {grid_size}")
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"the grid must run from a low to a higher finite number, got low={low}, high={high}")


def _offsets(x: Tensor, grid_size: int, order: int, low: float, high: float) -> tuple[Tensor, float]:
    """How many intervals x lies right of the start of each basis function, (..., G+K), and the interval h."""
    check_grid(grid_size, order, low, high)
    if not x.is_floating_point():
        raise TypeError(f"splines are evaluated at floating-point numbers, got {x.dtype}; call .float() first")
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    h = (high - low) / grid_size
    start = torch.arange(-order, grid_size, device=x.device, dtype=x.dtype)
    return ((x - low) / h)[..., None] - start, h


def _cardinal(u: Tensor, order: int) -> Tensor:
    """The bump with knots 0, 1, …, order+1: Σ_j (-1)^j C(order+1, j) (c-j-|u-c|)₊^order / order!, c its middle [2].

    Measured from the middle, half of the terms suffice, and so few large numbers cancel that order 10 is still fine.
    """
    if order == 0:
        return torch.where(u.isnan(), u, ((u >= 0) & (u < 1)).to(u.dtype))
    middle = (order + 1) / 2
    inward = middle - (u - middle).abs()  # distance from the nearer end of the support
    total = torch.zeros_like(u)
    for j in range(order // 2 + 1):
        factor = (-1) ** j * math.comb(order + 1, j) / math.factorial(order)
        total = total + factor * (inward - j).clamp_min(0) ** order
    return total


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, and 0 where the denominator is 0."""
    empty = denominator == 0
    return numerator / denominator.masked_fill(empty, 1) * ~empty


def _refinement_matrix(grid_size: int, factor: int, order: int) -> Tensor:
    """Row m holds coarse basis m in terms of the fine ones: N(u) = Σ_j a_j N(factor·u - j) [3], (G+K, factor·G+K).

    The a_j are the coefficients of the polynomial (1 + z + … + z^(factor-1))^(order+1), over factor^order.
    """
    mask = [1]
    for _ in range(order + 1):  # times 1 + z + … + z^(factor-1)
        mask = [sum(mask[max(0, i - factor + 1) : i + 1]) for i in range(len(mask) + factor - 1)]
    matrix = torch.zeros(grid_size + order, factor * grid_size + order, dtype=torch.float64)
    for m in range(grid_size + order):
        for j, a in enumerate(mask):
            fine = order + factor * (m - order) + j  # coarse basis m starts at coarse knot m-order, seen from low
            if 0 <= fine < matrix.size(1):
                matrix[m, fine] = a / factor**order
    return matrix
