"""A mini-mixture: several small SwiGLU units, each opened by a sigmoid of its own, all added up.

Notable points:
- No unit is ever left out: there is no top-k, no balance to keep, and nothing to save either. It is one SwiGLU whose
  hidden channels come in groups that a token can turn down together. With gates that stay at 1/2 it *is* a SwiGLU, with
  half the output matrix: so it can say all that a SwiGLU can.
- `naive_mini_mixture` adds up the units one by one; the layer multiplies once.
- "Upcast is very important", says the source of this experiment, without saying which. Both readings can be tried here:
  `gate_dtype="bfloat16"` computes the gates without casting *up to float32*; `FlatMixture` has units that are not
  projected *up to a hidden width* (and back): products of two C×C matrices, added as they are.

Paper: Shazeer 2020, "GLU Variants Improve Transformer" (SwiGLU).

Shapes: B batch, T time, C channels (n_embd), U units, W width of a unit.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kancourse.gpt import GPTConfig, LinearFactory

__all__ = ["FlatMixture", "MiniMixture", "naive_mini_mixture"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class _SigmoidGates(nn.Module):
    """One number in (0, 1) per unit and token: (..., C) → (..., U), computed in a type of its own."""

    def __init__(self, n_embd: int, n_unit: int, dtype: str) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ValueError(f"unknown gate_dtype {dtype!r}; known: {', '.join(DTYPES)}")
        self.dtype = DTYPES[dtype]
        self.weight = nn.Parameter(0.02 * torch.randn(n_unit, n_embd))

    def forward(self, x: Tensor) -> Tensor:
        # float32 means at least that: a float64 model keeps its own.
        dtype = torch.promote_types(x.dtype, self.dtype) if self.dtype == torch.float32 else self.dtype
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.to(dtype), self.weight.to(dtype)).sigmoid().to(x.dtype)


class MiniMixture(nn.Module):
    """y = Σ_u sigmoid(gate_u·x) · SwiGLU_u(x).

    Args:
        config: `n_embd`; and `ffn_dim`, the width of all units together (None: 8C/3, rounded down to equal units).
        linear: makes the units' matrices, not the gates.
        n_unit: U.
        gate_dtype: what the gates are computed in, "float32" or "bfloat16", whatever the rest is.

    Raises:
        ValueError: a width that the units cannot share, or an unknown type.
    """

    def __init__(
        self,
        config: GPTConfig,
        linear: LinearFactory = nn.Linear,
        *,
        n_unit: int = 4,
        gate_dtype: str = "float32",
    ) -> None:
        super().__init__()
        hidden = config.ffn_dim or round(8 * config.n_embd / 3) // n_unit * n_unit
        if n_unit < 1 or hidden < n_unit or hidden % n_unit:
            raise ValueError(f"{n_unit} units cannot share a width of {hidden} evenly")
        self.n_unit = n_unit
        self.gates = _SigmoidGates(config.n_embd, n_unit, gate_dtype)
        self.c_gate = linear(config.n_embd, hidden, bias=config.bias)
        self.c_fc = linear(config.n_embd, hidden, bias=config.bias)
        self.c_proj = linear(hidden, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, T, C), each position by itself."""
        units = (F.silu(self.c_gate(x)) * self.c_fc(x)).unflatten(-1, (self.n_unit, -1))  # (B, T, U, W)
        return self.resid_dropout(self.c_proj((self.gates(x)[..., None] * units).flatten(-2)))


class FlatMixture(nn.Module):
    """y = Σ_u sigmoid(gate_u·x) · silu(A_u x) ⊙ B_u x, A_u and B_u of C×C: units projected neither up nor back.

    Args:
        config: `n_embd`; and `ffn_dim`, the width of the SwiGLU whose parameters it is to have (None: 8C/3).
        linear: makes the units' matrices, not the gates.
        n_unit: U; None: as the budget has it, at least 1.
    """

    def __init__(self, config: GPTConfig, linear: LinearFactory = nn.Linear, *, n_unit: int | None = None) -> None:
        super().__init__()
        C, hidden = config.n_embd, config.ffn_dim or round(8 * config.n_embd / 3)
        self.n_unit = n_unit or max(1, round(3 * hidden / (2 * C)))
        self.gates = _SigmoidGates(C, self.n_unit, "float32")
        self.c_gate = linear(C, self.n_unit * C, bias=config.bias)
        self.c_fc = linear(C, self.n_unit * C, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, T, C), each position by itself."""
        units = (F.silu(self.c_gate(x)) * self.c_fc(x)).unflatten(-1, (self.n_unit, -1))  # (B, T, U, C)
        return self.resid_dropout((self.gates(x)[..., None] * units).sum(-2))


def naive_mini_mixture(x: Tensor, layer: MiniMixture) -> Tensor:
    """What `layer` computes, unit by unit; for units made of `nn.Linear`. (..., C) → (..., C); the oracle."""
    total = torch.zeros_like(x) if layer.c_proj.bias is None else layer.c_proj.bias.expand_as(x)
    width = layer.c_proj.in_features // layer.n_unit

    def rows(matrix: nn.Linear, unit: int) -> Tensor:
        piece = slice(unit * width, (unit + 1) * width)
        return F.linear(x, matrix.weight[piece], None if matrix.bias is None else matrix.bias[piece])

    for unit in range(layer.n_unit):
        down = layer.c_proj.weight[:, unit * width : (unit + 1) * width]  # (C, W)
        swiglu = F.linear(F.silu(rows(layer.c_gate, unit)) * rows(layer.c_fc, unit), down)
        total = total + (x @ layer.gates.weight[unit]).sigmoid()[..., None] * swiglu
    return total
