"""The answers to exercises of lesson 08b that are too small to be a part of the package of their own.

Shapes: N tokens, C channels, U units, P parameters.
"""

from torch import Tensor


def n_patterns(n_embd: int, hidden: int, n_memory: int, head_dim: int) -> int:
    """How many patterns a SwiGLU's parameters pay for, once two C×C matrices are taken off.

    Args:
        n_embd: C.
        hidden: the SwiGLU's width, which has 3·C·hidden parameters.
        n_memory: memories of keys and values: one per part of a token, or one that all parts share.
        head_dim: numbers in a key, and in a value.
    """
    return (3 * n_embd * hidden - 2 * n_embd**2) // (2 * n_memory * head_dim)


def gated_sum(units: Tensor, logits: Tensor) -> Tensor:
    """Σ_u sigmoid(logits_u) · units_u: what the units say (N, U, C), opened by (N, U) logits → (N, C)."""
    return (logits.sigmoid()[..., None] * units).sum(-2)


def clip_scale(norms: Tensor, grad_clip: float) -> Tensor:
    """What all gradients are multiplied by, so that together they are no longer than grad_clip.

    Args:
        norms: (P,) the norm of every parameter's own gradient.
    """
    return (grad_clip / norms.square().sum().sqrt()).clamp(max=1.0)
