"""Attention as a feed-forward: a token looks up learned patterns, where in attention it looks up other tokens.

A feed-forward is already a memory of keys and values: W_1 holds the keys, W_2 the values, and the activation says how
much of each is read [1]. Two ways to read it as attention does:

- `PatternAttention`: queries, softmax, an average of values, as in attention, but keys and values are parameters. With
  `shared` all parts of a token search one memory, which has H times as many patterns for the same parameters.
- `TokenParameterAttention`: GELU of the scores divided by their norm, and no softmax, so that patterns do not compete
  [2]. The division is an RMSNorm of the hidden layer; apart from it this is the feed-forward of GPT-2.

Notable points:
- By default both have the parameters of the SwiGLU of the same `GPTConfig`.
- `naive_pattern_attention` writes the formula down, and keeps a weight for every token, part and pattern: that is what
  runs out of memory. The fused kernel keeps one number per token and part, and computes the weights again in the
  backward pass.
- All tokens are one long sequence of queries, so keys and values are never copied along the batch.

Papers: Geva et al. 2021, "Transformer Feed-Forward Layers Are Key-Value Memories" [1]; Wang et al. 2024, "TokenFormer"
[2].

Glossary (code name ↔ paper symbol): `n_pattern` ↔ n, `c_fc.weight` ↔ K_P, `c_proj.weight` ↔ V_Pᵀ, √n_pattern ↔ τ [2].

Shapes: B batch, T time, C channels (n_embd), H parts of a token, D = C/H, N patterns (n_pattern).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kancourse.gpt import GPTConfig, LinearFactory

__all__ = ["PatternAttention", "TokenParameterAttention", "naive_pattern_attention", "pattern_attention"]


def naive_pattern_attention(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q·Kᵀ/√D) V for every part of every token, with all the weights laid out at once.

    Args:
        q: (..., H, D).
        keys, values: (H, N, D), or (1, N, D) for a memory that all parts share.

    Returns:
        (..., H, D). The oracle of the fused form; holds (..., H, N) weights.
    """
    scores = (q[..., None, :] * keys).sum(-1) / math.sqrt(q.size(-1))  # (..., H, N)
    return (scores.softmax(-1)[..., None] * values).sum(-2)


def pattern_attention(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """`naive_pattern_attention` by PyTorch's fused kernel, which never lays out the weights.

    Args:
        q: (..., H, D).
        keys, values: (H, N, D), or (1, N, D) for a memory that all parts share.

    Returns:
        (..., H, D).
    """
    n_memory, _, D = keys.shape
    queries = q.reshape(-1, n_memory, D).transpose(0, 1)  # (H, tokens, D), or (1, tokens·H, D) when shared
    found = F.scaled_dot_product_attention(queries[None], keys[None], values[None])[0]
    return found.transpose(0, 1).reshape(q.shape)


class PatternAttention(nn.Module):
    """c_proj(attention of c_query(x) over learned keys and values), each part of a token by itself.

    Args:
        config: `n_embd`; and `ffn_dim`, the width of the SwiGLU whose parameters it is to have (None: 8C/3).
        linear: makes the matrices before and after.
        n_pattern: N; None: as the budget has it.
        n_part: H; None: as many as attention has heads.
        shared: one memory for all parts, instead of one each.

    Raises:
        ValueError: parts that do not divide n_embd, or a budget that leaves no pattern.
    """

    def __init__(
        self,
        config: GPTConfig,
        linear: LinearFactory = nn.Linear,
        *,
        n_pattern: int | None = None,
        n_part: int | None = None,
        shared: bool = False,
    ) -> None:
        super().__init__()
        C, self.n_part = config.n_embd, n_part or config.n_head
        if C % self.n_part:
            raise ValueError(f"n_embd {C} is not divisible by n_part {self.n_part}")
        n_memory, head_dim = (1 if shared else self.n_part), C // self.n_part
        hidden = config.ffn_dim or round(8 * C / 3)
        if n_pattern is None:
            n_pattern = (3 * C * hidden - 2 * C * C) // (2 * n_memory * head_dim)  # what two C×C matrices leave
        if n_pattern < 1:
            raise ValueError(f"n_pattern must be at least 1, got {n_pattern} (n_embd {C}, ffn_dim {hidden})")
        self.c_query = linear(C, C, bias=config.bias)
        # Unit variance: an average of many values is small already, and scores of equal size would stay a plain mean.
        self.keys = nn.Parameter(torch.randn(n_memory, n_pattern, head_dim))
        self.values = nn.Parameter(torch.randn(n_memory, n_pattern, head_dim))
        self.c_proj = linear(C, C, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, T, C), each position by itself."""
        q = self.c_query(x).unflatten(-1, (self.n_part, -1))  # (B, T, H, D)
        return self.resid_dropout(self.c_proj(pattern_attention(q, self.keys, self.values).flatten(-2)))


class TokenParameterAttention(nn.Module):
    """c_proj(gelu(√N · s/|s|)) with the scores s = c_fc(x): TokenFormer's "Pattention" [2], without biases.

    Args:
        config: `n_embd`; and `ffn_dim`, the width of the SwiGLU whose parameters it is to have (None: 8C/3).
        linear: makes keys and values.
        n_pattern: N; None: as the budget has it, 3/2 of the SwiGLU's width.
    """

    def __init__(self, config: GPTConfig, linear: LinearFactory = nn.Linear, *, n_pattern: int | None = None) -> None:
        super().__init__()
        self.n_pattern = n_pattern or 3 * (config.ffn_dim or round(8 * config.n_embd / 3)) // 2
        self.c_fc = linear(config.n_embd, self.n_pattern, bias=False)
        self.c_proj = linear(self.n_pattern, config.n_embd, bias=False)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, T, C), each position by itself."""
        scores = F.normalize(self.c_fc(x), dim=-1) * math.sqrt(self.n_pattern)  # (B, T, N), mean square 1
        return self.resid_dropout(self.c_proj(F.gelu(scores)))
