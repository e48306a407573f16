"""Memory across segments: attention over a window that slides, and the same thing read segment by segment.

Transformer-XL [1] reads a long text in segments and keeps, for every layer, the keys and values of the segment before.
If each query sees just the last `window` positions, that is banded attention, cut into pieces: the same numbers, at a
cost that grows with T·window, and with a state that does not grow.

Notable points:
- The memory of layer i is what layer i computed. Layer i-1's keys have the right shape and the wrong meaning.
- Keys are kept as they were before rotary positions turned them, and turned by where they lie *from here*: -1, -2, …
  Positions restart with every segment and never grow, and only distances matter [2].
- Through L layers a token hears from as far as L·(window - 1) positions back.
- `SegmentedAttention` reads every segment by itself: what is left when the memory is not handed on, and the control.
- `segment=n` trains as Transformer-XL does: nothing is learned through what earlier segments kept (their keys and
  values are constants there). Values are the same; so are gradients with respect to the segment's own tokens.

Papers: Dai et al. 2019, "Transformer-XL" [1]; Su et al. 2021, "RoFormer" [2]; Beltagy et al. 2020, "Longformer"
(sliding windows) [3].

Glossary (code name ↔ paper symbol): `segment` ↔ L, `window` - 1 ↔ M, the memory's length with `same_length` [1];
`window` - 1 ↔ w/2, as only the past is seen [3].

Shapes: B batch, T queries, S keys (the last T of them are the queries' own), P kept, C channels, H heads, D head dim.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kancourse.attention import CausalSelfAttention, KVCache, rope
from kancourse.gpt import GPTConfig, LinearFactory

__all__ = [
    "BandedAttention",
    "SegmentMemory",
    "SegmentedAttention",
    "band_mask",
    "banded_attention",
    "naive_banded_attention",
]


def band_mask(n_query: int, n_key: int, window: int) -> Tensor:
    """(T, S) of bools: which keys each query sees, the last `window` up to its own. The queries are the last T keys."""
    behind = torch.arange(n_key - n_query, n_key)[:, None] - torch.arange(n_key)  # (T, S)
    return (behind >= 0) & (behind < window)


def naive_banded_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """The formula, one query at a time: q (B, H, T, D) over the last `window` of k, v (B, H, S, D). The oracle."""
    out = torch.empty_like(q)
    for t in range(q.size(2)):
        end = k.size(2) - q.size(2) + t + 1
        seen = slice(max(0, end - window), end)
        weight = (q[:, :, t, None] * k[:, :, seen]).sum(-1).div(math.sqrt(q.size(-1))).softmax(-1)  # (B, H, ≤window)
        out[:, :, t] = (weight[..., None] * v[:, :, seen]).sum(2)
    return out


def banded_attention(q: Tensor, k: Tensor, v: Tensor, window: int, *, dropout: float = 0.0) -> Tensor:
    """Attention of T queries over S ≥ T keys, of which each query sees the last `window` up to its own.

    Args:
        q: (B, H, T, D), of the last T positions.
        k, v: (B, H, S, D).
        window: how many positions a query sees, its own included.
        dropout: of the weights.

    Returns:
        (B, H, T, D).
    """
    mask = band_mask(q.size(2), k.size(2), window).to(q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


@dataclass(frozen=True)
class SegmentMemory:
    """What one layer keeps of the past: keys, not yet turned by position, and values of the last positions."""

    k: Tensor  # (B, H, P, D)
    v: Tensor  # (B, H, P, D)

    def detach(self) -> "SegmentMemory":
        """The same numbers, through which nothing is learned."""
        return SegmentMemory(self.k.detach(), self.v.detach())


class BandedAttention(CausalSelfAttention):
    """Causal self-attention in which a token sees the last `window` positions; decoding has no end.

    Args:
        config: as for `CausalSelfAttention`; with `position="learned"` a decode still ends at block_size.
        linear: makes the two matrices.
        window: positions that a query sees, its own included.
        segment: cut gradients where Transformer-XL does, between segments of so many tokens; None: nowhere.

    Raises:
        ValueError: a window or a segment below 1.
    """

    unbounded = True

    def __init__(
        self, config: GPTConfig, linear: LinearFactory = nn.Linear, *, window: int = 32, segment: int | None = None
    ) -> None:
        super().__init__(config, linear)
        if window < 1 or (segment is not None and segment < 1):
            raise ValueError(f"window and segment must be at least 1, got {window} and {segment}")
        self.window, self.segment = window, segment

    def empty_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> SegmentMemory:
        """A memory of nothing."""
        nothing = torch.empty(batch_size, self.n_head, 0, self.c_proj.in_features // self.n_head, device=device)
        return SegmentMemory(nothing.to(dtype), nothing.to(dtype))

    def forward(self, x: Tensor, state: SegmentMemory | None = None) -> Tensor:
        """Mix (B, T, C) → (B, T, C): from an empty past, or going on from `state` (which `step` would also return)."""
        if state is not None:
            return self.step(x, state)[0]
        q, k, v = self._qkv(x, start=0)  # the whole sequence is here, so positions may be counted from its start
        past_k, past_v = (k, v) if self.segment is None else (k.detach(), v.detach())
        dropout, length = self.dropout if self.training else 0.0, self.segment or self.window
        pieces = []
        for start in range(0, x.size(1), length):
            own, kept = slice(start, start + length), slice(max(0, start - self.window + 1), start)
            seen_k = torch.cat((past_k[:, :, kept], k[:, :, own]), dim=2)  # (B, H, P+length, D)
            seen_v = torch.cat((past_v[:, :, kept], v[:, :, own]), dim=2)
            pieces.append(banded_attention(q[:, :, own], seen_k, seen_v, self.window, dropout=dropout))
        return self._out(torch.cat(pieces, dim=2))

    def step(self, x: Tensor, state: SegmentMemory) -> tuple[Tensor, SegmentMemory]:
        """Mix a segment of T more tokens (B, T, C), given the memory; returns the output and the memory after it."""
        B, T, C = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)  # 3 × (B, H, T, D)
        k, v = torch.cat((state.k, k), dim=2), torch.cat((state.v, v), dim=2)  # (B, H, P+T, D)
        kept = max(0, k.size(2) - self.window + 1)
        memory = SegmentMemory(k[:, :, kept:], v[:, :, kept:])
        if self.rotary:
            positions = torch.arange(-state.k.size(2), T, device=x.device)  # from the segment's first token
            q, k = rope(q, positions[-T:]), rope(k, positions)
        return self._out(banded_attention(q, k, v, self.window)), memory


class SegmentedAttention(CausalSelfAttention):
    """Causal self-attention within segments of the text, each by itself: positions count on, sight ends at a border.

    Args:
        config, linear: as for `CausalSelfAttention`.
        segment: tokens in a segment, counted from the first token of the sequence.

    Raises:
        ValueError: a segment below 1.
    """

    def __init__(self, config: GPTConfig, linear: LinearFactory = nn.Linear, *, segment: int = 32) -> None:
        super().__init__(config, linear)
        if segment < 1:
            raise ValueError(f"segment must be at least 1, got {segment}")
        self.segment = segment

    def forward(self, x: Tensor, state: KVCache | None = None) -> Tensor:
        """Mix (B, T, C) → (B, T, C): from an empty past, or going on from `state` (which `step` would also return)."""
        if state is not None:
            return self.step(x, state)[0]
        dropout = self.dropout if self.training else 0.0
        pieces = zip(*(part.split(self.segment, dim=2) for part in self._qkv(x, start=0)), strict=True)
        mixed = [F.scaled_dot_product_attention(*piece, is_causal=True, dropout_p=dropout) for piece in pieces]
        return self._out(torch.cat(mixed, dim=2))

    def step(self, x: Tensor, state: KVCache) -> tuple[Tensor, KVCache]:
        """Mix T more tokens (B, T, C) given the cache; keys of earlier segments lie in it, and are not looked at."""
        seen, end = state.length, state.length + x.size(1)
        if end > self.block_size:
            raise ValueError(f"{seen} cached and {x.size(1)} new tokens do not fit block_size {self.block_size}")
        q, k, v = self._qkv(x, start=seen)
        state.k[:, :, seen:end], state.v[:, :, seen:end] = k, v
        place = torch.arange(end, device=x.device)
        mask = band_mask(end - seen, end, end).to(x.device) & (
            place[seen:, None] // self.segment == place // self.segment
        )
        y = F.scaled_dot_product_attention(q, state.k[:, :, :end], state.v[:, :, :end], attn_mask=mask)
        return self._out(y), KVCache(state.k, state.v, end)
