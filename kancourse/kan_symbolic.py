"""From a curve to a formula: which a·f(b·x + c) + d with a well-known f comes nearest?

Notable points:
- For given b and c the best a and d follow by least squares, so only b and c are searched: all pairs of a wide grid at
  once, then ever finer grids around the best few. Nothing is random.
- Where constants can do each other's work (a·exp(bx+c) is a·eᶜ·exp(bx)), the redundant one is fixed; `FORMS` says how.
- Formulas that fit equally well come simplest first: a straight line is also a very wide sine.

Paper: Liu et al. 2024, "KAN: Kolmogorov-Arnold Networks", section 2.5 (suggesting symbolic forms) [1].

Shapes: n points of the curve, P pairs (b, c), S starts, Q steps per axis of a finer grid.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FORMS", "Formula", "suggest_formulas"]

# name: (f, which of b and c are searched, how it is written), from simple to less so
FORMS: dict[str, tuple[Callable[[Tensor], Tensor], str, str]] = {
    "x": (lambda z: z, "neither", "({})"),
    "x²": (torch.square, "c", "({})²"),
    "|x|": (torch.abs, "c", "|{}|"),
    "x³": (lambda z: z**3, "c", "({})³"),
    "sqrt": (torch.sqrt, "sign and c", "sqrt({})"),
    "exp": (torch.exp, "b", "exp({})"),
    "log": (torch.log, "sign and c", "log({})"),
    "1/x": (torch.reciprocal, "c", "1/({})"),
    "sin": (torch.sin, "positive b and c", "sin({})"),
    "tanh": (torch.tanh, "positive b and c", "tanh({})"),
    "arctan": (torch.arctan, "positive b and c", "arctan({})"),
    "gauss": (lambda z: torch.exp(-z.square()), "positive b and c", "exp(-({})²)"),
}
SAME_FIT = 1e-6  # differences of R² below this do not count
STARTS, STEPS, ROUNDS, ZOOM = 6, 9, 24, 0.45


@dataclass(frozen=True)
class Formula:
    """a·f(b·x + c) + d, and how well it fits."""

    name: str  # a key of FORMS
    a: float
    b: float
    c: float
    d: float
    r2: float  # share of the curve's variance that it explains; 1 is perfect

    def __call__(self, x: Tensor) -> Tensor:
        return self.a * FORMS[self.name][0](self.b * x + self.c) + self.d

    def __str__(self) -> str:
        inner = "x" if (self.b, self.c) == (1, 0) else f"{self.b:.4g}·x {self.c:+.4g}"
        return f"{self.a:.4g}·{FORMS[self.name][2].format(inner)} {self.d:+.4g}, R² {self.r2:.6f}"


def suggest_formulas(x: Tensor, y: Tensor, *, top: int = 3) -> list[Formula]:
    """The formulas nearest to a curve, best first; of equally good ones the simpler first.

    Args:
        x, y: the curve, (n,) each, at least 5 different points; for a layer's edges see `edge_curves`.
        top: how many to return.

    Returns:
        At most `top` formulas. A constant curve is the line with slope 0.

    Raises:
        ValueError: shapes that do not belong together, too few points, or numbers that are not finite.
    """
    if x.ndim != 1 or x.shape != y.shape or len(x.unique()) < 5:
        raise ValueError(f"suggest_formulas wants x and y (n,) with 5 points or more, got {(*x.shape,)}, {(*y.shape,)}")
    x, y = x.detach().cpu().double(), y.detach().cpu().double()
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("suggest_formulas got NaN or infinity; leave those points out")
    if y.max() == y.min():
        return [Formula("x", 0.0, 1.0, 0.0, float(y[0]), 1.0)]
    found = [_fit(name, x, y) for name in FORMS]
    best = max(formula.r2 for formula in found)
    found.sort(key=lambda formula: -min(formula.r2, best - SAME_FIT))  # stable: equals stay in the order of FORMS
    return found[:top]


def _fit(name: str, x: Tensor, y: Tensor) -> Formula:
    """The best formula of one form."""
    f, searched, _ = FORMS[name]
    centre, half = (x.max() + x.min()) / 2, (x.max() - x.min()) / 2
    u = (x - centre) / half  # in [-1, 1]; there the search is for f(rate·(u - zero))
    one, rates = torch.ones(1).double(), torch.logspace(-1, 1.1, 40, dtype=torch.float64)
    zeros = torch.linspace(-3, 3, 121, dtype=torch.float64)
    b, c = {
        "neither": (one, 0 * one),
        "c": (one, zeros),
        "sign and c": (torch.cat((one, -one)), zeros),
        "b": (torch.cat((rates, -rates)), 0 * one),
        "positive b and c": (rates, zeros),
    }[searched]
    rate, zero = (grid.flatten() for grid in torch.meshgrid(b, c, indexing="ij"))  # (P,)
    best = _r2(f, u, y, rate, zero).topk(min(STARTS, len(rate))).indices
    rate, zero = rate[best], zero[best]  # (S,)
    window_b, window_c = 0.2 if "b" in searched else 0.0, 0.1 if "c" in searched else 0.0
    step = torch.linspace(-1, 1, STEPS, dtype=torch.float64)
    row = torch.arange(len(rate))
    for _ in range(ROUNDS):
        finer_rate = rate[:, None, None] * torch.exp(window_b * step)[:, None]  # (S, Q, 1)
        finer_zero = zero[:, None, None] + window_c * step  # (S, 1, Q)
        pairs = [grid.flatten(1) for grid in torch.broadcast_tensors(finer_rate, finer_zero)]  # (S, Q·Q)
        best = _r2(f, u, y, *pairs).argmax(-1)
        rate, zero = (grid[row, best] for grid in pairs)
        window_b, window_c = ZOOM * window_b, ZOOM * window_c
    winner = _r2(f, u, y, rate, zero).argmax()
    slope, root = float(rate[winner] / half), float(centre + half * zero[winner])  # f(slope·(x - root))
    if "b" not in searched:
        slope = math.copysign(1.0, slope)
    offset = -slope * root if "c" in searched else 0.0
    if name == "sin":
        offset -= math.pi * round(offset / math.pi)  # half turns change only the sign of a
    value = f(slope * x + offset)  # (n,)
    a = float(((value - value.mean()) * (y - y.mean())).sum() / (value - value.mean()).square().sum())
    d = float(y.mean() - a * value.mean())
    r2 = 1 - float((a * value + d - y).square().sum() / (y - y.mean()).square().sum())
    return Formula(name, a, slope, offset, d, r2)


def _r2(f: Callable[[Tensor], Tensor], u: Tensor, y: Tensor, rate: Tensor, zero: Tensor) -> Tensor:
    """R² of the best a·f(rate·(u-zero)) + d, for rate and zero of any one shape; -1 where f is not defined or flat."""
    value = f(rate[..., None] * (u - zero[..., None]))  # (..., n)
    value = value - value.mean(-1, keepdim=True)
    y = y - y.mean()
    r2 = (value @ y) ** 2 / (value.square().sum(-1) * y.square().sum())
    return r2.nan_to_num(nan=-1.0, posinf=-1.0, neginf=-1.0)
