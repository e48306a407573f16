"""The router of a mixture: which experts a token goes to, and how much each of them counts.

Notable points:
- A *gate* turns a token's logits, one per expert, into choices and weights. Three are in use: three functions.
- The balancing bias is added to the scores when experts are chosen, and enters no weight.
- The router computes in float32 under autocast, keeps its numbers in float32 when the model goes to half precision, and
  is no `nn.Linear`, so that nothing which quantises or swaps matrices takes it for one.

Papers: Dai et al. 2024, "DeepSeekMoE" [1]; Jiang et al. 2024, "Mixtral of Experts" [2]; DeepSeek-AI 2024, "DeepSeek-V3"
[3]; Wang et al. 2024, "Auxiliary-Loss-Free Load Balancing" [4].

Glossary (code name ↔ paper symbol): `Router.weight` ↔ e_i, `scores` ↔ s_{i,t}, `weights` ↔ g_{i,t} [1]; `Router.bias` ↔
b_i [4].

Shapes: N tokens, C channels (n_embd), E routed experts, k of them chosen per token.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Gate", "Router", "Routing", "mixtral_gate", "sigmoid_gate", "softmax_gate"]


class Routing(NamedTuple):
    """Where each token goes, and how much each of its experts counts."""

    weights: Tensor  # (N, k)
    chosen: Tensor  # (N, k), numbers of experts, all different in a row
    scores: Tensor  # (N, E), of all experts, before the bias


Gate = Callable[[Tensor, Tensor, int], Routing]  # (logits (N, E), bias (E,), top_k) -> Routing


def softmax_gate(logits: Tensor, bias: Tensor, top_k: int) -> Routing:
    """Weights are the softmax over all experts, as it is, of those chosen: they add up to less than 1 [1].

    With all experts chosen this is the dense mixture.
    """
    scores = logits.softmax(-1)
    chosen = (scores + bias).topk(top_k).indices
    return Routing(scores.gather(-1, chosen), chosen, scores)


def mixtral_gate(logits: Tensor, bias: Tensor, top_k: int) -> Routing:
    """Weights are the softmax over the chosen experts alone, and add up to 1 [2].

    Raises:
        ValueError: one of several is chosen: its weight would be 1 whatever the router does, which could not learn.
    """
    _refuse_constant_weight("mixtral_gate", logits, top_k)
    scores = logits.softmax(-1)
    chosen = (scores + bias).topk(top_k).indices
    return Routing(logits.gather(-1, chosen).softmax(-1), chosen, scores)


def sigmoid_gate(logits: Tensor, bias: Tensor, top_k: int) -> Routing:
    """Scores are sigmoids, each expert's by itself; weights are those of the chosen, divided by their sum [3].

    Raises:
        ValueError: one of several is chosen, as in `mixtral_gate`.
    """
    _refuse_constant_weight("sigmoid_gate", logits, top_k)
    scores = logits.sigmoid()
    chosen = (scores + bias).topk(top_k).indices
    weights = F.logsigmoid(logits.gather(-1, chosen)).softmax(-1)  # = s/Σs, and finite where all s underflow
    return Routing(weights, chosen, scores)


def _refuse_constant_weight(name: str, logits: Tensor, top_k: int) -> None:
    if top_k == 1 < logits.size(-1):
        raise ValueError(f"{name} with top_k 1 gives every weight 1, so the router cannot learn: use softmax_gate")


class Router(nn.Module):
    """A score for each expert: logits = x @ weight.T, in float32.

    Parameters: `weight (E, C)`, drawn with standard deviation 0.02. Buffers: `bias (E,)`, which no gradient moves.
    """

    def __init__(self, n_embd: int, n_expert: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_expert, n_embd))
        self.register_buffer("bias", torch.zeros(n_expert))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) → logits (N, E), float32 (or float64)."""
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.to(self.weight.dtype), self.weight)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Moves and casts as any module, but not to half precision: steps of 0.001 in the bias would be lost there."""

        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype.itemsize >= 4 else tensor.to(moved.device)

        return super()._apply(keep_float32, recurse)
