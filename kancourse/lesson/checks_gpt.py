"""Exercises of lesson 03: what a token may see, attention, the first loss, temperature, and the key-value cache.

Shapes: B batch, H heads, T time, S tokens seen so far, D head dim, V vocabulary.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from kancourse.lesson.exercises import TODO, exercise


@exercise(
    reference="kancourse.lesson.answers.causal_mask",
    cases=lambda: [(1,), (4,), (7,)],
    mutants=(
        lambda n_time: torch.ones(n_time, n_time, dtype=torch.bool).tril(-1),  # a token does not see itself
        lambda n_time: torch.ones(n_time, n_time, dtype=torch.bool).triu(),  # looks ahead instead of back
        lambda n_time: torch.ones(n_time, n_time, dtype=torch.bool),  # no mask
    ),
)
def causal_mask(n_time):
    return TODO


def _qkv(n_time: int, seed: int, *, n_new: int | None = None, shape: tuple[int, int, int] = (2, 3, 5)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    B, H, D = shape
    return [torch.randn(B, H, n_new or n_time, D, generator=generator) for _ in range(3)]  # 3 × (B, H, T, D)


def _attention_cases() -> Iterator[tuple]:
    yield tuple(_qkv(1, 0))
    yield tuple(_qkv(6, 1))


def _attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float, mask: bool = True, dim: int = -1) -> Tensor:
    score = q @ k.transpose(-2, -1) * scale  # (B, H, T, T)
    if mask:
        score = score.masked_fill(~torch.ones(score.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    return score.softmax(dim) @ v


@exercise(
    reference="kancourse.attention.naive_attention",
    cases=_attention_cases,
    mutants=(
        lambda q, k, v: _attend(q, k, v, scale=1.0),  # the 1/√D is missing
        lambda q, k, v: _attend(q, k, v, scale=1 / math.sqrt(q.size(-1)), mask=False),  # sees the future
        lambda q, k, v: _attend(q, k, v, scale=1 / math.sqrt(q.size(-1)), dim=-2),  # softmax over the queries
    ),
)
def scaled_dot_product_attention(q, k, v):
    return TODO


def _logit_cases() -> Iterator[tuple]:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    yield logits, 1.0
    yield logits, 0.5
    yield torch.tensor([0.3, 0.3, 0.3]), 0.7  # all equal: entropy does not move
    yield torch.tensor([9.0, 8.0, 7.0, -20.0]), 0.1  # cold: a small variance beside large squares


def _variance(logits: Tensor, temperature: float) -> float:
    p = (logits.double() / temperature).softmax(-1)
    mean = (p * logits).sum()
    return float((p * (logits - mean) ** 2).sum())


def _difference_of_squares(logits: Tensor, temperature: float) -> Tensor:
    p = (logits / temperature).softmax(-1)
    return ((p * logits**2).sum() - (p * logits).sum() ** 2) / temperature**3


@exercise(
    reference="kancourse.lab.sample.entropy_slope",
    cases=_logit_cases,
    mutants=(
        lambda logits, temperature: _variance(logits, temperature) / temperature**2,  # one power short
        lambda logits, temperature: _variance(logits, 1.0) / temperature**3,  # the variance at T = 1
        lambda logits, temperature: -_variance(logits, temperature) / temperature**3,  # hotter is more certain
        _difference_of_squares,  # right on paper, but float32 cancels at a low temperature
    ),
)
def temperature_entropy_slope(logits, temperature):
    return TODO


@exercise(
    reference="kancourse.lesson.answers.initial_loss",
    cases=lambda: [(1,), (65,), (50257,)],
    mutants=(math.log2, lambda vocab_size: 1 / vocab_size, lambda vocab_size: -math.log(vocab_size)),
)
def initial_loss(vocab_size):
    return TODO


def _cache_cases() -> Iterator[tuple]:
    for seen in (0, 1, 5):
        past_k, past_v, _ = _qkv(seen, seed=seen) if seen else [torch.zeros(2, 3, 0, 5)] * 3
        q, k, v = _qkv(1, seed=10 + seen)
        yield q, k, v, past_k, past_v


def _new_first(q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    k, v = (
        torch.cat((k, past_k), dim=2),
        torch.cat((v, past_v), dim=2),
    )  # the right output, but the cache is out of order
    return F.scaled_dot_product_attention(q, k, v), k, v


def _forgets_itself(q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out = F.scaled_dot_product_attention(q, past_k, past_v) if past_k.size(2) else torch.zeros_like(v)
    return out, torch.cat((past_k, k), dim=2), torch.cat((past_v, v), dim=2)


def _masked_to_the_first(
    q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    k, v = torch.cat((past_k, k), dim=2), torch.cat((past_v, v), dim=2)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True), k, v  # one query row: it sees position 0 only


@exercise(
    reference="kancourse.lesson.answers.kv_cache_step",
    cases=_cache_cases,
    mutants=(_new_first, _forgets_itself, _masked_to_the_first),
)
def kv_cache_step(q, k, v, past_k, past_v):
    return TODO
