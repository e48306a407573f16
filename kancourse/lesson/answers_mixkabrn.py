"""Answers to the exercises of lesson 11 that are no function of the package."""

import torch
from torch import Tensor

from kancourse.bit_codes import LARGEST_CODE

__all__ = ["interaction", "looked_up", "repaired_mixture", "static_codes", "stored_and_met"]


def static_codes(z: Tensor, reach: float) -> Tensor:
    """Whole numbers −127 … 127 for numbers between −reach and reach; what lies beyond counts as the end."""
    return (z.clamp(-reach, reach) * (LARGEST_CODE / reach)).round()


def looked_up(codes: Tensor, table: Tensor) -> Tensor:
    """Features of codes (N, I) from a table (255, F) of all codes, side by side: (N, I·F)."""
    return table[codes.long() + LARGEST_CODE].flatten(1)


def stored_and_met(expert: int, n_expert: int, top_k: int, n_shared: int, router: int) -> tuple[int, int]:
    """Parameters of a mixture: all that are stored, and those that one token meets."""
    return (n_expert + n_shared) * expert + router, (top_k + n_shared) * expert + router


def repaired_mixture(outputs: Tensor, logits: Tensor) -> Tensor:
    """Experts' outputs (B, T, C, E) weighted by the softmax over experts of logits (B, T, E): (B, T, C)."""
    return (outputs * logits.softmax(-1).unsqueeze(-2)).sum(-1)


def interaction(cells: Tensor, a: int, b: int) -> Tensor:
    """Half the difference between the effect of idea a with idea b and without it; cells (2, …, 2)."""
    with_b, without_b = cells.select(b, 1), cells.select(b, 0)
    a = a - (a > b)  # its axis, now that b's is gone

    def effect(half: Tensor) -> Tensor:
        return half.select(a, 1).mean() - half.select(a, 0).mean()

    return torch.as_tensor(effect(with_b) - effect(without_b)) / 2
