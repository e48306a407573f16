"""The answers to the exercises of lesson 04.

Shapes: V vocabulary, O out_features, S training steps.
"""

import torch
from torch import Tensor


def kan_gpt_parameters(n_layer: int, n_embd: int, vocab_size: int, per_edge: int, kan_head: bool) -> int:
    """Weights of the matrices of a KAN-GPT: those of the blocks, and of the head if that is a KAN too.

    Embeddings, norms and biases are left out. A block has 12 C² edges: 3 C² make queries, keys and values, C² lead out
    of attention, and 4 C² each into and out of the feed-forward. A head has C·V.
    """
    edges = n_layer * 12 * n_embd**2 + (n_embd * vocab_size if kan_head else 0)
    return per_edge * edges


def one_hot_table(at_zero: Tensor, at_one: Tensor) -> Tensor:
    """What a KAN layer answers to every one-hot input: a table with a row per token.

    Args:
        at_zero, at_one: the values φ(0) and φ(1) of every edge, (O, V).

    Returns:
        (V, O): row v is the output for token v, Σ_i φ_oi(0) with the term i = v replaced by φ_ov(1).
    """
    return (at_zero.sum(1, keepdim=True) - at_zero + at_one).T


def stopping_step(losses: list[float], patience: int) -> int:
    """The step (counted from 1) after which training stops: `patience` steps in a row without a new lowest loss.

    Returns:
        The number of losses if that never happens.
    """
    best, since = float("inf"), 0
    for step, loss in enumerate(losses, 1):
        best, since = (loss, 0) if loss < best else (best, since + 1)
        if since >= patience:
            return step
    return len(losses)


def edges_to_keep(sizes: Tensor, share: float) -> Tensor:
    """Which edges (O, I) stay when the smallest `share` of them is removed: a mask of bools.

    The number removed is rounded; of equal sizes it does not matter which go first.
    """
    keep = torch.ones(sizes.numel(), dtype=torch.bool)
    keep[sizes.flatten().argsort()[: round(share * sizes.numel())]] = False
    return keep.view_as(sizes)
