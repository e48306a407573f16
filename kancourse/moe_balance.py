"""Balance of a mixture's load: how to measure it, how to reach it by a bias, and the two older ways, by a loss.

Left to itself a router soon prefers a few experts: they get the gradient, improve, and are preferred the more.

Notable points:
- `update_router_bias` nudges each expert's bias after a step: up if it got less than its share, down if more. The bias
  takes part in choosing experts and in nothing else, so balance costs no gradient.
- `switch_loss` is 1 at perfect balance for any number of experts and choices, because its shares are shares of choices.
- A finite batch looks unbalanced even when the router is perfect: `sampling_floor` says by how much.

Papers: Wang et al. 2024, "Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts" [1]; Fedus et al. 2021,
"Switch Transformers" [2]; Zoph et al. 2022, "ST-MoE" (z-loss) [3].

Glossary (code name ↔ paper symbol): `counts` ↔ c_i, `rate` ↔ u, `bias` ↔ b_i [1]; share of choices ↔ f_i, share of
probability ↔ P_i [2].

Shapes: N tokens, E experts, k experts chosen per token.
"""

import math

import torch
from torch import Tensor

__all__ = ["load_violation", "sampling_floor", "switch_loss", "update_router_bias", "z_loss"]


def load_violation(counts: Tensor) -> Tensor:
    """By how much the busiest expert exceeds the mean load: max/mean - 1, called MaxVio in [1]; 0 is perfect balance.

    Args:
        counts: tokens per expert, (..., E).

    Returns:
        (...), float64. Sum the counts of many batches first for the *global* violation.

    Raises:
        ValueError: no token was counted, or a count is negative.
    """
    counts = counts.double()
    if not counts.numel() or (counts < 0).any() or (counts.sum(-1) <= 0).any():
        raise ValueError(f"load_violation needs tokens per expert, 0 or more and not all 0, got {counts.tolist()}")
    return counts.amax(-1) / counts.mean(-1) - 1


def sampling_floor(n_token: int, n_expert: int, top_k: int) -> float:
    """The load violation to expect of a perfect router that sends each token to k experts out of E by fair draw.

    An expert's count has mean m = N·p and variance N·p·(1-p), with p = k/E; counts are normal when m is large, and
    because they add up to N·k the largest of them lies √(E/(E-1))·e_E standard deviations above the mean, where e_E is
    the expected maximum of E independent standard normals. Real texts repeat words, so their floor is higher.

    Raises:
        ValueError: sizes that make no mixture.
    """
    if n_token < 1 or not 1 <= top_k <= n_expert:
        raise ValueError(f"needs n_token >= 1 and 1 <= top_k <= n_expert, got {n_token}, {top_k}, {n_expert}")
    if top_k == n_expert:
        return 0.0
    z = torch.linspace(-9, 9, 7201, dtype=torch.float64)
    below = torch.special.ndtr(z) ** n_expert  # probability that all E are below z
    expected_maximum = float(torch.trapezoid((z > 0).double() - below, z))
    p = top_k / n_expert
    return expected_maximum * math.sqrt((1 - p) / (n_token * p) * n_expert / (n_expert - 1))


def update_router_bias(bias: Tensor, counts: Tensor, rate: float = 1e-3) -> Tensor:
    """The bias after a step: `rate` up for experts below the mean load, `rate` down for those above [1].

    Args:
        bias: (E,), added to the scores when experts are chosen.
        counts: tokens per expert since the last update, (E,).
        rate: a step; 0.001 in [1], where 0.0001 was slow and 0.01 overshot.

    Returns:
        The new bias, (E,).
    """
    counts = counts.to(bias)
    return bias + rate * (counts.mean() - counts).sign()


def switch_loss(scores: Tensor, chosen: Tensor) -> Tensor:
    """E · Σ_i f_i·P_i [2]: 1 when choices or probabilities are evenly spread, E when all go to one expert (k = 1).

    Args:
        scores: of all experts, not only the chosen, (N, E), 0 or more; each row is normalised here.
        chosen: experts per token, (N, k).

    Returns:
        A scalar; the gradient flows through the scores.
    """
    n_expert = scores.size(-1)
    share = torch.bincount(chosen.flatten(), minlength=n_expert) / chosen.numel()  # f (E,), sums to 1 for any k
    probability = (scores / scores.sum(-1, keepdim=True)).mean(0)  # P (E,)
    return n_expert * (share * probability).sum()


def z_loss(logits: Tensor) -> Tensor:
    """Mean squared log-sum-exp of the router's logits (N, E) [3]: 0 when each row's exponentials add up to 1."""
    return logits.logsumexp(-1).square().mean()
