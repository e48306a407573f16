"""Mixture of experts: many feed-forwards, of which each token visits a few.

Notable points:
- Token-choice top-k, and *dropless*: every token reaches all experts it chose, however crowded they are. So an output
  depends on its own token alone, never on later ones or on the other sequences of the batch.
- Sorted dispatch: the tokens are sorted by expert and each expert runs once, on its own. The cost follows what is
  active, not what exists; `naive_moe`, the formula by loops, is the oracle.
- Shared experts see every token; routed ones may be many and small ("fine-grained", DeepSeekMoE).
- Balance without a loss: a bias that decides who is chosen and never how much he counts, moved in `after_step()` by the
  counts of the training forwards since the last one. The Switch loss and the z-loss are there too, as weights.
- Experts that got no token still run (on nothing) in training: their gradients are zeros, not None, which optimiser
  state and data-parallel training count on.

Papers: Shazeer et al. 2017, "Outrageously Large Neural Networks" [1]; Dai et al. 2024, "DeepSeekMoE" [2]; Wang et al.
2024, "Auxiliary-Loss-Free Load Balancing" [3].

Glossary (code name ↔ paper symbol): `n_expert` ↔ mN - K_s, `n_shared` ↔ K_s, `top_k` ↔ mK - K_s, `weights` ↔
g_{i,t} [2]; `bias_rate` ↔ u [3].

Shapes: B batch, T time, N = B·T tokens, C channels (n_embd), E routed experts, k of them chosen per token.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from kancourse.gpt import GPTConfig, LinearFactory, PartFactory, SwiGLU
from kancourse.moe_balance import load_violation, sampling_floor, switch_loss, update_router_bias, z_loss
from kancourse.moe_router import Gate, Router, Routing, mixtral_gate, sigmoid_gate, softmax_gate

__all__ = [
    "MoE",
    "Router",
    "Routing",
    "load_violation",
    "mixtral_gate",
    "moe_feed_forward",
    "naive_moe",
    "run_experts",
    "sampling_floor",
    "sigmoid_gate",
    "softmax_gate",
    "swiglu_expert",
    "switch_loss",
    "update_router_bias",
    "z_loss",
]


ExpertFactory = Callable[[int], nn.Module]  # (n_embd) -> module on (..., C)


def run_experts(
    x: Tensor, routing: Routing, experts: nn.ModuleList, counts: list[int], *, idle_too: bool = False
) -> Tensor:
    """Σ_j weights[n, j] · experts[chosen[n, j]](x[n]) for every token n, each expert called once.

    Args:
        x: (N, C).
        counts: tokens per expert, E of them.
        idle_too: call also the experts that got no token, on none, so that their gradients are zeros, not None.

    Returns:
        (N, C).
    """
    n, k = routing.chosen.shape
    order = routing.chosen.flatten().argsort(stable=True)  # (N·k,) by expert, and within an expert by token
    back = torch.empty_like(order).scatter_(0, order, torch.arange(n * k, device=x.device))  # where each one went
    rows = F.embedding(order // k, x)  # (N·k, C): x[order // k] with a gradient that is fast to add up
    pieces = zip(experts, rows.split(counts), strict=True)
    sent = torch.cat([expert(piece) for expert, piece in pieces if len(piece) or idle_too or not n])  # (N·k, C)
    # The weighted sum of each token's k rows, without laying them side by side first.
    return F.embedding_bag(back.view(n, k), sent, per_sample_weights=routing.weights.to(sent.dtype), mode="sum")


def swiglu_expert(n_embd: int) -> nn.Module:
    """The expert of an `MoE` that is told nothing else: a SwiGLU as wide as its input."""
    return SwiGLU(GPTConfig(n_embd=n_embd, n_head=1, ffn_dim=n_embd, bias=False))


class MoE(nn.Module):
    """y = Σ shared experts(x) + Σ over the k chosen of weight · expert(x) [2].

    Args:
        n_embd: C.
        n_expert: E, routed experts.
        top_k: k, how many of them a token visits.
        n_shared: experts that every token visits besides.
        expert: makes one, `expert(n_embd) -> module` on (..., C), each token by itself.
        gate: from logits to choices and weights: `sigmoid_gate`, `softmax_gate`, `mixtral_gate`.
        bias_rate: step of the balancing bias; 0: no bias.
        balance_weight: times `switch_loss`, added to the training loss through `auxiliary_loss()`.
        z_weight: times `z_loss`, likewise.

    `load` holds the tokens per expert, (E,), of the last optimiser step's forwards (None before the first).

    Raises:
        ValueError: sizes that make no mixture, negative rates, or a gate that cannot learn with this top_k.
    """

    def __init__(
        self,
        n_embd: int,
        *,
        n_expert: int = 8,
        top_k: int = 2,
        n_shared: int = 1,
        expert: ExpertFactory = swiglu_expert,
        gate: Gate = sigmoid_gate,
        bias_rate: float = 1e-3,
        balance_weight: float = 0.0,
        z_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if n_embd < 1 or n_expert < 1 or n_shared < 0:
            raise ValueError(
                f"an MoE needs n_embd >= 1, n_expert >= 1 and n_shared >= 0, got {n_embd}, {n_expert} and {n_shared}"
            )
        if not 1 <= top_k <= n_expert:
            raise ValueError(f"top_k must lie between 1 and n_expert {n_expert}, got {top_k}")
        if min(bias_rate, balance_weight, z_weight) < 0:
            rates = f"{bias_rate}, {balance_weight}, {z_weight}"
            raise ValueError(f"bias_rate, balance_weight and z_weight cannot be negative, got {rates}")
        gate(torch.zeros(1, n_expert), torch.zeros(n_expert), top_k)  # what it cannot do, it says here
        self.n_embd, self.n_expert, self.top_k, self.gate = n_embd, n_expert, top_k, gate
        self.bias_rate, self.balance_weight, self.z_weight = bias_rate, balance_weight, z_weight
        self.router = Router(n_embd, n_expert)
        self.experts = nn.ModuleList(expert(n_embd) for _ in range(n_expert))
        self.shared = nn.ModuleList(expert(n_embd) for _ in range(n_shared))
        self.load: Tensor | None = None
        self._counts: Tensor | None = None  # since the last after_step
        self._auxiliary: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) → (..., C), each token by itself.

        Raises:
            ValueError: another number of channels.
            FloatingPointError: the router meets a number that is not finite: in x, or in its weights.
        """
        if x.size(-1) != self.n_embd:
            raise ValueError(f"MoE takes {self.n_embd} channels on the last axis, got shape {(*x.shape,)}")
        flat = x.reshape(-1, self.n_embd)  # (N, C)
        logits = self.router(flat)  # (N, E)
        routing = self.gate(logits, self.router.bias, self.top_k)
        if not math.isfinite(float(logits.detach().sum())):
            bad = int((~logits.isfinite()).any(-1).sum())
            raise FloatingPointError(f"the router of an MoE met nan or infinity in {bad} of {len(flat)} tokens")
        if len(flat) == 1 and not self.training:  # decoding: nothing to sort
            sent = torch.cat([self.experts[number](flat) for number in routing.chosen[0].tolist()])  # (k, C)
            y = (sent * routing.weights.T).sum(0, keepdim=True).to(sent.dtype)
        else:
            counts = torch.bincount(routing.chosen.flatten(), minlength=self.n_expert)  # (E,)
            if self.training:
                self._take_note(logits, routing, counts)
            y = run_experts(flat, routing, self.experts, counts.tolist(), idle_too=self.training)
        for expert in self.shared:
            y = y + expert(flat)
        return y.reshape(x.shape)

    def auxiliary_loss(self) -> Tensor | None:
        """What the last forward in training mode adds to the training loss: a scalar, or None if both weights are 0."""
        return self._auxiliary

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the bias by the load since the last call; the trainer calls it after every optimiser step.

        With several processes the loads of all are added up, so that all keep the same bias. A frozen router keeps its
        bias, too.
        """
        counts, self._counts, self._auxiliary = self._counts, None, None
        if counts is None:
            return
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
        self.load = counts
        if self.router.weight.requires_grad:
            self.router.bias.copy_(update_router_bias(self.router.bias, counts, self.bias_rate))

    def _take_note(self, logits: Tensor, routing: Routing, counts: Tensor) -> None:
        self._counts = counts if self._counts is None else self._counts + counts
        self._auxiliary = None
        if self.balance_weight or self.z_weight:
            balance = self.balance_weight * switch_loss(routing.scores, routing.chosen)
            self._auxiliary = balance + self.z_weight * z_loss(logits)

    def extra_repr(self) -> str:
        gate = getattr(self.gate, "__name__", repr(self.gate))
        return f"n_embd={self.n_embd}, n_expert={self.n_expert}, top_k={self.top_k}, gate={gate}"


def naive_moe(x: Tensor, layer: MoE) -> Tensor:
    """What `layer` computes, token by token and expert by expert. Slow; the oracle. (..., C) → (..., C)."""
    outputs = []
    for token in x.reshape(-1, 1, layer.n_embd):  # (1, C)
        weights, chosen, _ = layer.gate(layer.router(token), layer.router.bias, layer.top_k)  # (1, k) both
        y = torch.zeros_like(token)
        for expert in layer.shared:
            y = y + expert(token)
        for weight, number in zip(weights[0], chosen[0].tolist(), strict=True):
            y = y + weight * layer.experts[number](token)
        outputs.append(y)
    return torch.cat(outputs).reshape(x.shape)


def moe_feed_forward(
    config: GPTConfig,
    linear: LinearFactory,
    *,
    expert: PartFactory = SwiGLU,
    expert_dim: int | None = None,
    n_expert: int = 8,
    top_k: int = 2,
    n_shared: int = 1,
    **options: Any,
) -> MoE:
    """The mixture in a GPT's feed-forward seat; its experts are feed-forwards of any kind.

    Args:
        config, linear: as every ffn gets them; `linear` makes the experts' matrices, not the router.
        expert: `expert(config, linear)` makes one.
        expert_dim: hidden width of each; None: `ffn_dim` (or SwiGLU's 8C/3) divided by top_k + n_shared, so that a
            token meets as many weights as in one dense SwiGLU.
        n_expert, top_k, n_shared, options: of `MoE`.
    """
    if expert_dim is None:
        dense = config.ffn_dim or round(8 * config.n_embd / 3)
        expert_dim = max(1, round(dense / max(1, top_k + n_shared)))
    narrow = replace(config, ffn_dim=expert_dim)
    return MoE(
        config.n_embd,
        n_expert=n_expert,
        top_k=top_k,
        n_shared=n_shared,
        expert=lambda n_embd: expert(narrow, linear),
        **options,
    )
