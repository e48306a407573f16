"""Retention as a mixer: it reads a text like attention, and goes on from a state that never grows.

`MultiScaleRetention` puts around the sum of `retention_forms` what makes a layer of it: queries, keys and values,
rotary positions, a normalisation per head, a gate, and a matrix back to the residual stream.

Notable points:
- `forward` takes chunks (cost linear in T), `step` one token (cost flat) or many; all of them are the same numbers.
- The state is one matrix of head_dim × head_dim per head, so many small heads make a small state: C²/H numbers per
  layer, where a key-value cache has 2C per token.
- Heads are normalised after the sum by RMSNorm without a gain; as nothing before it divides by anything, its epsilon
  meets the same numbers in every form. It is there for heads that say nothing, not for the forms to agree.
- The decay stays float32 whatever the module is cast to, and is no parameter of a checkpoint: the config says it.
- Decays come by name (`DECAYS`); "gated" learns how much to forget from the token itself.

Papers: Sun et al. 2023, "Retentive Network" [1]; Sun et al. 2024, "You Only Cache Once" (gated retention) [2].

Glossary (code name ↔ paper symbol): `c_qkvg` ↔ W_Q, W_K, W_V, W_G side by side [1]; `c_proj` ↔ W_O [1]; `chunk_size`
↔ B [1]; `RetentionState.memory` ↔ S_n [1]; `rate` ↔ W_γ [2], `SHARPNESS` ↔ τ [2].

Shapes: B batch, T new tokens, C channels (n_embd), H heads, D head dim.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kancourse.attention import rope
from kancourse.retention_forms import (
    chunkwise_retention,
    naive_retention,
    parallel_retention,
    recurrent_retention,
    retain,
    retain_one,
    retention_decay,
)

if TYPE_CHECKING:
    from kancourse.gpt import GPTConfig, LinearFactory

__all__ = [
    "DECAYS",
    "FixedDecay",
    "GatedDecay",
    "MultiScaleRetention",
    "RetentionState",
    "chunkwise_retention",
    "naive_retention",
    "parallel_retention",
    "recurrent_retention",
    "retention_decay",
]

SHARPNESS = 16  # γ_t = σ(…)^(1/16): a gate that is half open still remembers for a while
EPS = 1e-6  # of the norm per head


class FixedDecay(nn.Module):
    """One decay per head, the same for every token: (H,) logs, kept in float32 whatever the module is cast to.

    Args:
        rate: `rate(n_head)` makes the logs, e.g. `retention_decay`.
        n_head: H.
    """

    def __init__(self, rate: Callable[[int], Tensor], n_head: int) -> None:
        super().__init__()
        self.rate, self.n_head = rate, n_head
        self.register_buffer("log_decay", rate(n_head), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(H,) logs, whatever the tokens."""
        return self.log_decay

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FixedDecay":
        super()._apply(fn, recurse)  # moves, and casts; only the move is wanted
        self.log_decay = self.rate(self.n_head).to(self.log_decay.device)
        return self


class GatedDecay(nn.Module):
    """A decay per head and token, γ_t = σ(x W + b)^(1/16) [2]: the token says how much of the past to forget.

    With W = 0 it is the multi-scale decay of [1]: that is where b starts.

    Args:
        n_embd, n_head: C and H.
    """

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.rate = nn.Linear(n_embd, n_head, bias=False)
        kept = (SHARPNESS * retention_decay(n_head).double()).exp()  # σ(b) that makes γ of [1]
        self.offset = nn.Parameter(torch.log(kept / (1 - kept)).float())  # (H,)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, H, T) logs."""
        return F.logsigmoid(self.rate(x).float() + self.offset).mT / SHARPNESS


def _fixed(rate: Callable[[int], Tensor]) -> Callable[["GPTConfig"], nn.Module]:
    return lambda config: FixedDecay(rate, config.n_head)


DECAYS: dict[str, Callable[["GPTConfig"], nn.Module]] = {
    "multi-scale": _fixed(retention_decay),
    "single-scale": _fixed(lambda n_head: retention_decay(3)[-1].repeat(n_head)),  # 127/128 in every head
    "none": _fixed(torch.zeros),
    "gated": lambda config: GatedDecay(config.n_embd, config.n_head),
}


@dataclass
class RetentionState:
    """What retention keeps between steps, the same size after one token and after a million.

    A state is never written into, so it may be stepped from again, and a text be continued in several ways.
    """

    memory: Tensor  # (B, H, D, D), float32 at least
    length: int = 0  # tokens seen, which is the absolute position of the next


class MultiScaleRetention(nn.Module):
    """(silu(x W_G) ⊙ norm(retention(x))) W_O [1], with heads of C/H for keys and values alike.

    Args:
        config: sizes; `position="rope"` turns queries and keys by their positions.
        linear: makes the two matrices, `linear(in_features, out_features, bias=...)`.
        decay: a name of `DECAYS`.
        gate: multiply by the swish gate; without it there are C² parameters less.
        norm: normalise each head.
        chunk_size: of the chunkwise form; it changes the cost, not the result.

    Raises:
        ValueError: an unknown decay, or a chunk_size below 1.
    """

    unbounded = True  # the state does not grow: there is no end to what it can be stepped through

    def __init__(
        self,
        config: "GPTConfig",
        linear: "LinearFactory" = nn.Linear,
        *,
        decay: str = "multi-scale",
        gate: bool = True,
        norm: bool = True,
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        if decay not in DECAYS:
            raise ValueError(f"unknown decay {decay!r}; known: {', '.join(DECAYS)}")
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
        self.n_head, self.head_dim, self.chunk_size = config.n_head, config.head_dim, chunk_size
        self.rotary, self.gate, self.norm = config.position == "rope", gate, norm
        self.decay = DECAYS[decay](config)
        self.c_qkvg = linear(config.n_embd, (4 if gate else 3) * config.n_embd, bias=config.bias)
        self.c_proj = linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def empty_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> RetentionState:
        """The state of a text of which nothing was seen; float32 at least, whatever the weights are."""
        shape = (batch_size, self.n_head, self.head_dim, self.head_dim)
        return RetentionState(torch.zeros(shape, device=device, dtype=torch.promote_types(dtype, torch.float32)))

    def forward(self, x: Tensor, state: RetentionState | None = None) -> Tensor:
        """Mix (B, T, C) → (B, T, C): from an empty past, or going on from `state` (which `step` would also return).

        Raises:
            ValueError: x is not finite, or the state is of another model.
        """
        return self._mix(x, None, 0)[0] if state is None else self.step(x, state)[0]

    def step(self, x: Tensor, state: RetentionState) -> tuple[Tensor, RetentionState]:
        """Mix T more tokens (B, T, C) given the state after those before; returns the output and the state after them.

        Raises:
            ValueError: as `forward`.
        """
        expected = (x.size(0), self.n_head, self.head_dim, self.head_dim)
        if not isinstance(state, RetentionState):
            raise ValueError(f"retention goes on from a RetentionState, got a {type(state).__name__}")
        if state.memory.shape != expected:
            found = tuple(state.memory.shape)
            raise ValueError(f"the state is {found}, these tokens need {expected}: is it another model's?")
        y, memory = self._mix(x, state.memory, state.length)
        return y, RetentionState(memory, state.length + x.size(1))

    def _mix(self, x: Tensor, memory: Tensor | None, start: int) -> tuple[Tensor, Tensor]:
        if not bool(torch.isfinite(x).all()):
            raise ValueError(
                "the input of retention holds a value that is not finite, which a state would keep for ever"
            )
        B, T, C = x.shape
        q, k, v, *gate = self.c_qkvg(x).unflatten(-1, (-1, self.n_head, self.head_dim)).permute(2, 0, 3, 1, 4)
        if self.rotary:  # each of q, k, v, gate is (B, H, T, D)
            positions = torch.arange(start, start + T, device=x.device)
            q, k = rope(q, positions), rope(k, positions)
        k, decay = k * self.head_dim**-0.5, self.decay(x)
        if T == 1:
            y, memory = retain_one(q, k, v, decay, memory)
        else:
            y, memory = retain(q, k, v, decay, memory, self.chunk_size)
        if self.norm:
            y = F.rms_norm(y, (self.head_dim,), eps=EPS)
        for g in gate:
            y = F.silu(g) * y
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).reshape(B, T, C))), memory
