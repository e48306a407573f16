"""The answers to exercises that are too small to be a part of the package of their own.

Answers that are ideas live with their idea, for example `kancourse.attention.naive_attention`.

Shapes: B batch, H heads, S tokens seen so far, D head dim, T time, V vocabulary.
"""

import math

import torch
from torch import Tensor


def unigram_entropy(counts: Tensor) -> float:
    """Entropy in nats of how often each token occurs, from (V,) counts: -Σ p ln p. A count of 0 adds nothing."""
    p = counts[counts > 0].double() / counts.sum()
    return float(-(p * p.log()).sum())


def perplexity(loss: float) -> float:
    """How many equally likely tokens a model with this loss (nats per token) hesitates between: e to the loss."""
    return math.exp(loss)


def causal_mask(n_time: int) -> Tensor:
    """(T, T) of bools: row t says which positions s the token at t may look at, those with s <= t."""
    position = torch.arange(n_time)
    return position[None, :] <= position[:, None]  # (T, T)


def initial_loss(vocab_size: int) -> float:
    """The loss in nats of a model that finds all V tokens equally likely: ln V."""
    return math.log(vocab_size)


def kv_cache_step(q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One decoding step of attention with a cache.

    Args:
        q, k, v: (B, H, 1, D), of the new token alone.
        past_k, past_v: (B, H, S, D), of the S tokens before it; S may be 0.

    Returns:
        the new token's output (B, H, 1, D), and both caches, one position longer: (B, H, S+1, D).
    """
    k, v = torch.cat((past_k, k), dim=2), torch.cat((past_v, v), dim=2)  # (B, H, S+1, D)
    weight = (q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).softmax(-1)  # (B, H, 1, S+1): it may see all of them
    return weight @ v, k, v
