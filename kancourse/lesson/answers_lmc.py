"""The answers to the exercises of lesson 10 that are too small to be a part of the package of their own.

Shapes: P points of a path, n hidden units, I inputs, O outputs, D numbers of each, A micro-batches.
"""

from collections.abc import Sequence

from torch import Tensor

from kancourse.lmc_assignment import assign


def between(a: Sequence[Tensor], b: Sequence[Tensor], alpha: float) -> tuple[Tensor, ...]:
    """The weights at alpha on the line from a model's tensors a (at 0) to another's b (at 1)."""
    return tuple((1 - alpha) * one + alpha * other for one, other in zip(a, b, strict=True))


def barriers(alphas: Tensor, losses: Tensor) -> tuple[float, float]:
    """Both barriers of a path from alpha 0, the first point, to alpha 1, the last.

    Args:
        alphas, losses: (P,).

    Returns:
        The highest loss over the mean of the two ends; and the greatest height over the straight line between them.
    """
    line = (1 - alphas) * losses[0] + alphas * losses[-1]  # (P,)
    return float(losses.max() - (losses[0] + losses[-1]) / 2), float((losses - line).max())


def shuffle_units(up: Tensor, bias: Tensor, down: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A feed-forward `down @ f(up @ x + bias)` whose hidden unit i is the one that was order[i] before.

    Args:
        up: (n, I).
        bias: (n,).
        down: (O, n).
        order: (n,).
    """
    return up[order], bias[order], down[:, order]


def match_units(a: Tensor, b: Tensor) -> Tensor:
    """The order of B's units that makes Σ_i a[i]·b[order[i]] as large as it can be, each unit used once.

    Args:
        a, b: (n, D), all weights of each unit.
    """
    return assign(a @ b.T)


def accumulate(gradients: Tensor, counts: Tensor) -> Tensor:
    """The gradient of the mean loss over all tokens, from those of micro-batches.

    Args:
        gradients: (A, D), of the mean loss over each micro-batch.
        counts: (A,) tokens that each has.
    """
    return (gradients * (counts / counts.sum())[:, None]).sum(0)


def nats_per_character(loss: float, n_tokens: int, n_characters: int) -> float:
    """A loss in nats per token as nats per character of the same text."""
    return loss * n_tokens / n_characters
