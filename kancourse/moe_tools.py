"""Looking into a model with experts: where its tokens go, and what is missing when an expert is.

Notable points:
- Nothing here changes a model for good: hooks and gates are put back, whatever happens in between.

Papers: Dai et al. 2024, "DeepSeekMoE" (each token's best experts disabled) [1].

Shapes: L layers that are mixtures, B batch, T time, N tokens, E experts, k chosen per token.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kancourse.moe import MoE
from kancourse.moe_router import Gate, Routing

__all__ = ["mixtures", "routes", "without_best", "without_experts"]


def mixtures(model: nn.Module) -> list[MoE]:
    """The mixtures of a model, in order.

    Raises:
        ValueError: it has none.
    """
    found = [module for module in model.modules() if isinstance(module, MoE)]
    if not found:
        raise ValueError(f"this {type(model).__name__} has no mixture of experts")
    return found


@torch.no_grad()
def routes(model: nn.Module, idx: Tensor) -> Tensor:
    """The experts that each token of ids (B, T) goes to, in every layer: (L, B, T, k), the best first.

    Raises:
        ValueError: the model has no mixture.
    """
    layers, chosen = mixtures(model), {}

    def note(layer: MoE):
        def hook(_: nn.Module, __: tuple, logits: Tensor) -> None:
            chosen[layer] = layer.gate(logits, layer.router.bias, layer.top_k).chosen.view(*idx.shape, -1)

        return hook

    hooks = [layer.router.register_forward_hook(note(layer)) for layer in layers]
    was_training = model.training
    model.eval()
    try:
        model(idx)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return torch.stack([chosen[layer] for layer in layers])


@contextmanager
def without_experts(layer: MoE, experts: Collection[int]) -> Iterator[None]:
    """Within this context no token of the layer chooses these experts; the next best take their place.

    Raises:
        ValueError: an unknown number, or too few experts left.
    """
    gone = sorted(set(experts))
    if not set(gone) <= set(range(layer.n_expert)) or layer.n_expert - len(gone) < layer.top_k:
        known = f"experts are 0 to {layer.n_expert - 1}, and {layer.top_k} must be left"
        raise ValueError(f"cannot switch off experts {gone}: {known}")

    def bar(logits: Tensor, bias: Tensor) -> Tensor:
        return bias.index_fill(0, torch.tensor(gone, device=bias.device, dtype=torch.long), -torch.inf)

    with _barred([layer], bar):
        yield


@contextmanager
def without_best(model: nn.Module, n: int = 1) -> Iterator[None]:
    """Within this context each token's n best experts, in every layer, are closed to it [1]; it takes the next best.

    Raises:
        ValueError: the model has no mixture, n is negative, or too few experts are left.
    """
    layers = mixtures(model)
    for layer in layers:
        if n < 0 or layer.n_expert - n < layer.top_k:
            raise ValueError(f"cannot close {n} of {layer.n_expert} experts, of which {layer.top_k} are to be chosen")

    def bar(scores: Tensor, bias: Tensor) -> Tensor:
        best = (scores + bias).topk(n).indices  # (N, n)
        return bias.expand_as(scores).scatter(-1, best, -torch.inf)  # (N, E)

    with _barred(layers, bar):
        yield


@contextmanager
def _barred(layers: list[MoE], bar) -> Iterator[None]:
    """The layers' gates with another bias: bar(scores (N, E), bias (E,)) → (E,) or (N, E), -inf where nobody may go."""

    def barring(gate: Gate) -> Gate:
        def barred(logits: Tensor, bias: Tensor, top_k: int) -> Routing:
            return gate(logits, bar(gate(logits, bias, top_k).scores, bias), top_k)

        return barred

    gates = [layer.gate for layer in layers]
    for layer, gate in zip(layers, gates, strict=True):
        layer.gate = barring(gate)
    try:
        yield
    finally:
        for layer, gate in zip(layers, gates, strict=True):
            layer.gate = gate
