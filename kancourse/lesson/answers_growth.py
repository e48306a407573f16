"""The answers to the exercises of lesson 09.

Shapes: C channels, D head dim, H hidden neurons before; Ĉ, D̂, Ĥ after.
"""

import math

import torch
from torch import Tensor


def wider_feed_forward(into: Tensor, out_of: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Two matrices of a feed-forward with more hidden neurons, and the same function.

    Args:
        into: (H, C), from the stream to the neurons.
        out_of: (C, H), back again.
        drawn: (n, C), random numbers for the n new neurons.

    Returns:
        (H + n, C) and (C, H + n): new neurons listen to what is drawn, and what they say is multiplied by zero.
    """
    silent = out_of.new_zeros(out_of.size(0), drawn.size(0))
    return torch.cat((into, drawn)), torch.cat((out_of, silent), dim=1)


def wider_norm(gain: Tensor, eps: float, width: int) -> tuple[Tensor, float]:
    """Gain and epsilon of an RMSNorm whose input gets zeros appended: old outputs stay, new ones are zero.

    With Ĉ - C zeros the mean square is C/Ĉ of what it was: so is epsilon then, and the gain makes up for its root.

    Args:
        gain: (C,).
        eps: added to the mean square.
        width: Ĉ.

    Returns:
        The gain (Ĉ,), ones where it is new, and epsilon.
    """
    share = gain.size(0) / width
    return torch.cat((gain * math.sqrt(share), gain.new_ones(width - gain.size(0)))), eps * share


def nested_places(head_dim: int, width: int) -> Tensor:
    """Where the coordinates of a rotary head go in a wider one, so that each goes on turning as fast as before.

    Coordinates i and i + D/2 are a pair, which turns by base^(-2i/D) per position.

    Args:
        head_dim: D, even.
        width: D̂, a multiple of D.

    Returns:
        (D,): the new place of each old coordinate.
    """
    pairs = torch.arange(head_dim // 2) * (width // head_dim)
    return torch.cat((pairs, pairs + width // 2))


def borrowed_first_step(count: int, beta1: float, beta2: float) -> float:
    """The first step of a new number, in learning rates, when Adam's count was already at `count` before it.

    Its moments start at zero and see one gradient g: m = (1 - β₁) g and v = (1 - β₂) g².
    """
    t = count + 1
    return (1 - beta1) / (1 - beta1**t) * math.sqrt((1 - beta2**t) / (1 - beta2))
