"""Causal self-attention: every position asks all earlier ones a question and averages their answers.

Notable points:
- `naive_attention` is the formula, one query at a time; the class uses PyTorch's fused kernel and equals it.
- Rotary positions turn queries and keys, so that a dot product sees only how far apart two tokens are.
- Decoding keeps a key-value cache: the cost of a step grows with what has been seen, and so does the memory.

Papers: Vaswani et al. 2017, "Attention Is All You Need" [1]; Su et al. 2021, "RoFormer" (rotary positions) [2].

Glossary (code name ↔ paper symbol): `c_attn` ↔ W_Q, W_K, W_V side by side [1]; `c_proj` ↔ W_O [1]; `head_dim` ↔
d_k = d_model/h [1]; `positions` ↔ m, `base` ↔ 10000 [2].

Shapes: B batch, T new tokens, S tokens seen so far, C channels (n_embd), H heads, D head dim.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from kancourse.gpt import GPTConfig


def rope(x: Tensor, positions: Tensor, base: float = 10_000.0) -> Tensor:
    """Turn each pair (x_i, x_{i+D/2}) by the angle position · base^(-2i/D) [2]: dot products then see only distances.

    Args:
        x: queries or keys, (B, H, T, D), D even.
        positions: absolute positions, (T,), integers.
        base: the longest wavelength is about 2π·base positions.

    Returns:
        The turned x, same shape and dtype; the angles are computed in float32, for a float64 x in float64.
    """
    half = x.size(-1) // 2
    precise = torch.promote_types(x.dtype, torch.float32)
    frequency = base ** (-torch.arange(half, device=x.device, dtype=precise) / half)  # (D/2,)
    angle = positions.to(precise)[:, None] * frequency  # (T, D/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)  # (B, H, T, D)


def naive_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention as the formula says it, one query at a time: softmax(q_t·K_{≤t}ᵀ/√D) V_{≤t} [1].

    Args:
        q, k, v: (B, H, T, D).

    Returns:
        (B, H, T, D). Slow; the oracle of the fast path.
    """
    out = torch.empty_like(q)
    for t in range(q.size(2)):
        score = (q[:, :, t, None] * k[:, :, : t + 1]).sum(-1) / math.sqrt(q.size(-1))  # (B, H, t+1)
        weight = score.softmax(-1)  # (B, H, t+1)
        out[:, :, t] = (weight[..., None] * v[:, :, : t + 1]).sum(2)  # (B, H, D)
    return out


@dataclass
class KVCache:
    """What attention keeps between steps: keys and values of the `length` positions seen so far.

    The buffers are written in place, so a state that has been stepped from must not be stepped from again.
    """

    k: Tensor  # (B, H, block_size, D)
    v: Tensor  # (B, H, block_size, D)
    length: int = 0


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention [1], with a key-value cache for decoding.

    Args:
        config: sizes; `position="rope"` turns queries and keys by their positions.
        linear: makes the two matrices, `linear(in_features, out_features, bias=...)`.
    """

    unbounded = False  # the cache ends at block_size; a mixer with a constant state says True

    def __init__(self, config: "GPTConfig", linear: Callable[..., nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.n_head, self.block_size, self.dropout = config.n_head, config.block_size, config.dropout
        self.rotary = config.position == "rope"
        self.c_attn = linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def empty_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> KVCache:
        """A cache that has seen nothing, for sequences of up to block_size tokens."""
        head_dim = self.c_proj.in_features // self.n_head
        shape = (batch_size, self.n_head, self.block_size, head_dim)
        return KVCache(torch.empty(shape, device=device, dtype=dtype), torch.empty(shape, device=device, dtype=dtype))

    def forward(self, x: Tensor, state: KVCache | None = None) -> Tensor:
        """Mix (B, T, C) → (B, T, C): from an empty past, or going on from `state` (which `step` would also return)."""
        if state is not None:
            return self.step(x, state)[0]
        q, k, v = self._qkv(x, start=0)
        dropout = self.dropout if self.training else 0.0
        return self._out(F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout))

    def step(self, x: Tensor, state: KVCache) -> tuple[Tensor, KVCache]:
        """Mix T more tokens (B, T, C) given the cache of the S before them; returns the output and the longer cache."""
        seen, new = state.length, x.size(1)
        if seen + new > self.block_size:
            raise ValueError(f"{seen} cached and {new} new tokens do not fit block_size {self.block_size}")
        q, k, v = self._qkv(x, start=seen)
        state.k[:, :, seen : seen + new] = k
        state.v[:, :, seen : seen + new] = v
        k, v = state.k[:, :, : seen + new], state.v[:, :, : seen + new]  # (B, H, S+T, D)
        # Query t may see the S cached keys and the new ones up to t; one query may see everything.
        mask = None if new == 1 else torch.ones(new, seen + new, dtype=torch.bool, device=x.device).tril(seen)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self._out(y), KVCache(state.k, state.v, seen + new)

    def _qkv(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        B, T, C = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)  # 3 × (B, H, T, D)
        if self.rotary:
            positions = torch.arange(start, start + T, device=x.device)
            q, k = rope(q, positions), rope(k, positions)
        return q, k, v

    def _out(self, y: Tensor) -> Tensor:
        B, H, T, D = y.shape
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).reshape(B, T, H * D)))  # (B, T, C)
