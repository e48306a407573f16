"""A probe for KAN-GPTs and their dense twins: how many edges can go.

In every matrix, or KAN layer, of the blocks the edges that move their output least are removed, ever more of them, with
no training afterwards. An edge's size is the standard deviation of what it sends: for a matrix that is |weight| ·
std(input), for a KAN layer `edge_importance`.

Shapes: B batch, T time, N tokens, I in_features, O out_features.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from kancourse.gpt import GPT
from kancourse.kan import KANLinear, edge_importance
from kancourse.lab.corpus import Corpus
from kancourse.lab.evaluate import evaluate

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)


@torch.no_grad()
def pruning(model: GPT, corpus: Corpus, seed: int) -> dict[str, Any]:
    """Validation loss after the least important share of edges is gone from every layer of the blocks, for each share.

    Raises:
        ValueError: the blocks hold neither matrices nor KAN layers.
    """
    x, _ = corpus.sampler(model.config.block_size, 16, seed=seed).batch(0)  # (B, T), of the training split
    sizes = edge_sizes(model, x)
    losses = []
    for share in SHARES:
        pruned = copy.deepcopy(model)
        for name, size in sizes.items():
            n_removed = round(share * size.numel())
            keep = torch.ones(size.numel(), dtype=torch.bool)
            keep[size.flatten().argsort()[:n_removed]] = False
            remove_edges(pruned.get_submodule(name), keep.view_as(size))
        losses.append(evaluate(pruned, corpus.val, max_batches=12).loss)
    return {"share": list(SHARES), "val_loss": losses, "edges": sum(size.numel() for size in sizes.values())}


@torch.no_grad()
def edge_sizes(model: GPT, idx: Tensor) -> dict[str, Tensor]:
    """The standard deviation of what every edge of the blocks sends, for ids (B, T): module name -> (O, I)."""
    sizes: dict[str, Tensor] = {}

    def measure(name: str, module: nn.Module, x: Tensor) -> None:
        if isinstance(module, KANLinear):
            sizes[name] = edge_importance(module, x)
        else:
            sizes[name] = module.weight.abs() * x.flatten(0, -2).std(0)

    found = {
        name: module for name, module in model.named_modules() if name.startswith("blocks.") and _has_edges(module)
    }
    if not found:
        raise ValueError("the blocks hold neither nn.Linear nor KANLinear: there is no edge to size up")
    hooks = [
        module.register_forward_pre_hook(lambda module, args, name=name: measure(name, module, args[0]))
        for name, module in found.items()
    ]
    try:
        model(idx.to(next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


@torch.no_grad()
def remove_edges(module: nn.Module, keep: Tensor) -> None:
    """Silence the edges of a layer where `keep` (O, I) is False."""
    if isinstance(module, KANLinear):
        module.prune(keep)
    else:
        module.weight.mul_(keep)


def _has_edges(module: nn.Module) -> bool:
    return isinstance(module, KANLinear | nn.Linear)
