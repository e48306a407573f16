"""The elephant: an activation that is nearly flat almost everywhere, so that one update changes little elsewhere.

E(x) = 1 / (1 + |x/a|^d): about 1 for |x| < a, about 0 beyond, with steep flanks between. Outside the flanks its slope
is nearly zero as well, so a unit that an input does not hit neither speaks nor learns.

Notable points:
- Values and slopes are finite for every input, in float16 and bfloat16 too: halves are computed in float32, and the
  slope is written so that no infinity meets a zero. `naive_elephant` is the formula as it stands.
- For the backward pass only x is kept, as `silu` does. Works under `torch.func` (grad, vmap, jvp) and `torch.compile`.
- It is a sigmoid of a logarithm, E(x) = σ(−d·ln|x/a|); width `a` and the scale of x are one and the same knob.
- Locality needs **a narrow a and inputs spread over many bumps** (`spread_bias`). With a = 1 and inputs within ±1 every
  unit answers 1: as a gate, that is a feed-forward that has no gate (`ElephantGLU` says more).

Papers: Lan & Mahmood 2023, "Elephant Neural Networks: Born to Be a Continual Learner" [1]; Shazeer 2020, "GLU Variants
Improve Transformer" [2].

Glossary (code name ↔ symbol): `a` ↔ a, `d` ↔ d, learned width ↔ σ, learned height ↔ h [1].

Shapes: B batch, T time, C channels, H hidden units, `...` any.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kancourse.gpt import GPTConfig, LinearFactory, SwiGLU

__all__ = [
    "Elephant",
    "ElephantGLU",
    "GatedFeedForward",
    "SwiGLU",
    "XElephant",
    "XElephantGLU",
    "elephant",
    "elephant_slope",
    "naive_elephant",
    "spread_bias",
]

GateFactory = Callable[[int], nn.Module]  # (hidden units) -> module on (..., H)


def naive_elephant(x: Tensor, a: float = 1.0, d: float = 8.0) -> Tensor:
    """The formula [1] as it stands: (...) → (...). In float16 its gradient is NaN from |x/a| = 3.63 on. The oracle."""
    return 1 / (1 + (x / a).abs() ** d)


def elephant(x: Tensor, a: float | Tensor = 1.0, d: float = 8.0) -> Tensor:
    """1 / (1 + |x/a|^d), finite with a finite gradient for every x.

    Args:
        x: (...), floating-point.
        a: half the width at half the height, above 0; a tensor (broadcasts against x) may be learned.
        d: steepness, above 1. Powers of two are fastest.

    Returns:
        (...), of x's dtype. NaN where x is NaN.

    Raises:
        ValueError: a not above 0, or d not above 1 and finite.
        TypeError: x is not floating-point.
    """
    _check(x, a, d)
    if isinstance(a, Tensor):
        x, a = x / a, 1.0
    return _Elephant.apply(x, a, d)


def elephant_slope(x: Tensor, a: float = 1.0, d: float = 8.0) -> Tensor:
    """The derivative by x: −(d/x)·|x/a|^d / (1 + |x/a|^d)², and 0 at x = 0. Arguments and errors as `elephant`."""
    _check(x, a, d)
    return _slope(x, a, d).to(x.dtype)


def spread_bias(n: int, std: float = 1.28) -> Tensor:
    """(n,) biases in equal steps, with mean 0 and about this standard deviation: they deal the bumps out evenly [1]."""
    return torch.linspace(-math.sqrt(3) * std, math.sqrt(3) * std, n)


class Elephant(nn.Module):
    """The elephant as a layer; with `learnable` every unit has its own width and height, kept above 0 [1].

    Args:
        features: H, units with a width and height of their own; None: one of each for all.
        a, d: as `elephant`; a is where a learned width starts (learned heights start at 1).
        learnable: learn them.

    Parameters, if learnable: `log_width` and `log_height`, (H,) or (), natural logarithms.
    """

    def __init__(self, features: int | None = None, *, a: float = 1.0, d: float = 8.0, learnable: bool = False) -> None:
        super().__init__()
        _check(torch.zeros(()), a, d)
        self.a, self.d, self.learnable = a, d, learnable
        if learnable:
            shape = () if features is None else (features,)
            self.log_width = nn.Parameter(torch.full(shape, math.log(a)))
            self.log_height = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """(..., H) → (..., H)."""
        if not self.learnable:
            return elephant(x, self.a, self.d)
        # In float32 at least: x/width must not overflow where x itself is near the end of float16.
        tall = self.log_height.exp() * elephant(x.to(_wide(x)), self.log_width.exp(), self.d)
        return tall.to(x.dtype)

    def extra_repr(self) -> str:
        return f"a={self.a:g}, d={self.d:g}, learnable={self.learnable}"


class XElephant(Elephant):
    """x·E(x): the line through 0 with slope 1 that comes back to 0 beyond ±a. Its gradient is alive at 0."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., H) → (..., H)."""
        return x * super().forward(x)


class GatedFeedForward(nn.Module):
    """The gated feed-forward [2] with any gate: c_proj(gate(c_gate x) ⊙ c_fc x). With `nn.SiLU` it is `SwiGLU`.

    Args:
        config: sizes; hidden is `ffn_dim`, or 8C/3, with which it has an MLP's parameters.
        linear: makes the three matrices.
        gate: `gate(hidden)` makes what stands on c_gate.
    """

    def __init__(self, config: GPTConfig, linear: LinearFactory = nn.Linear, *, gate: GateFactory) -> None:
        super().__init__()
        hidden = config.ffn_dim or round(8 * config.n_embd / 3)
        self.c_gate = linear(config.n_embd, hidden, bias=config.bias)
        self.c_fc = linear(config.n_embd, hidden, bias=config.bias)
        self.c_proj = linear(hidden, config.n_embd, bias=config.bias)
        self.gate = gate(hidden)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, T, C), each position by itself."""
        return self.resid_dropout(self.c_proj(self.gate(self.c_gate(x)) * self.c_fc(x)))


class ElephantGLU(GatedFeedForward):
    """A gated feed-forward whose gate is the bare elephant.

    **The gate is open at the start.** Weights of standard deviation s on a normalised input give gate inputs of
    standard deviation s·√C. Well below `a` every gate is 1, its slope 0, and the layer is one without a gate, which
    learns one only as fast as `c_gate` grows. An `a` of about s·√C starts with gates half open.

    Args:
        config, linear: as `GatedFeedForward`.
        a, d, learnable: as `Elephant`.
    """

    gate_class: type[Elephant] = Elephant

    def __init__(
        self,
        config: GPTConfig,
        linear: LinearFactory = nn.Linear,
        *,
        a: float = 1.0,
        d: float = 8.0,
        learnable: bool = False,
    ) -> None:
        super().__init__(config, linear, gate=partial(self.gate_class, a=a, d=d, learnable=learnable))


class XElephantGLU(ElephantGLU):
    """A gated feed-forward with the gate x·E(x): near 0 a product of two linear maps, far out closed."""

    gate_class = XElephant


class _Elephant(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, a: float, d: float) -> Tensor:
        return (1 / (1 + _power(x.to(_wide(x)) / a, d))).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        x, ctx.a, ctx.d = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return (grad * _slope(x, ctx.a, ctx.d)).to(x.dtype), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        (x,) = ctx.saved_tensors
        return (tangent * _slope(x, ctx.a, ctx.d)).to(x.dtype)


def _slope(x: Tensor, a: float, d: float) -> Tensor:
    """In at least float32. Where the power overflows, the largest number stands for it, and the slope is 0."""
    wide = x.to(_wide(x))
    power = _power(wide / a, d).clamp(max=torch.finfo(wide.dtype).max)
    height = 1 / (1 + power)
    return -d * (height * (power * height)) / wide.where(wide != 0, 1)


def _power(r: Tensor, d: float) -> Tensor:
    """|r|^d; each factor 2 of d is a square, which is many times faster than a power."""
    if d % 2:
        r = r.abs()
    while d % 2 == 0:
        r, d = r.square(), d / 2
    return r if d == 1 else r.pow(d)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _check(x: Tensor, a: float | Tensor, d: float) -> None:
    if not x.is_floating_point():
        raise TypeError(f"an elephant takes floating-point numbers, got {x.dtype}")
    if not isinstance(a, Tensor) and not 0 < a < math.inf:
        raise ValueError(f"an elephant's width a must be above 0 and finite, got {a}")
    if not 1 < d < math.inf:
        raise ValueError(f"an elephant's steepness d must be above 1 and finite, got {d}")
