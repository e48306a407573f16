"""Every combination of some ideas, on and off: what each of them does on average, and what they do together.

With n ideas there are 2ⁿ cells, and each of them counts for every effect: a difference of two means over half of the
cells each, where one idea at a time would compare two single cells.

Notable points:
- The *effect* of an idea is the mean of the cells with it minus the mean of the cells without.
- The *interaction* of two is half the difference between the effect of the one with and without the other; so on for
  three or more. An interaction of 0 says that each does the same whether or not the other is there.
- Effects are averages of the cells with signs, so the mean and all 2ⁿ − 1 of them give back every cell (`predicted`).

Book: Box, Hunter and Hunter 1978, "Statistics for Experimenters", chapter 10.

Shapes: cells (2, …, 2), an axis per idea, index 0 off and 1 on; further axes, of seeds, are left alone.
"""

from collections.abc import Sequence
from itertools import chain, combinations

import torch
from torch import Tensor

__all__ = ["effect", "effects", "predicted"]


def effect(cells: Tensor, ideas: Sequence[int]) -> Tensor:
    """The effect of one idea, or the interaction of several.

    Args:
        cells: (2, …, 2, …).
        ideas: the axes of the ideas; of one axis its effect.

    Returns:
        What is left of `cells` when the axes of length 2 in front are averaged away: () or (seeds,).

    Raises:
        ValueError: no idea, one twice, or one without an axis of two.
    """
    n = _n_ideas(cells)
    if not ideas or len(set(ideas)) < len(ideas) or not all(0 <= idea < n for idea in ideas):
        raise ValueError(f"an effect is of different ideas among 0 to {n - 1}, got {list(ideas)}")
    signed = cells
    for idea in ideas:
        shape = [1] * cells.dim()
        shape[idea] = 2
        signed = signed * torch.tensor([-1.0, 1.0], dtype=cells.dtype).view(shape)
    return 2 * signed.mean(tuple(range(n)))


def effects(cells: Tensor, names: Sequence[str], *, most: int = 2) -> dict[tuple[str, ...], Tensor]:
    """All effects of up to `most` ideas together, by their names; single ideas first.

    Raises:
        ValueError: not a name for every axis.
    """
    if len(names) != _n_ideas(cells):
        raise ValueError(f"{len(names)} names for {_n_ideas(cells)} ideas")
    chosen = chain.from_iterable(combinations(range(len(names)), size) for size in range(1, most + 1))
    return {tuple(names[i] for i in ideas): effect(cells, ideas) for ideas in chosen}


def predicted(cells: Tensor, *, most: int) -> Tensor:
    """The cells as they would be if effects of more than `most` ideas together were nothing; shaped as `cells`."""
    n = _n_ideas(cells)
    told = cells.mean(tuple(range(n)), keepdim=True).expand_as(cells).clone()
    for size in range(1, most + 1):
        for ideas in combinations(range(n), size):
            sign = torch.ones([2] * n + [1] * (cells.dim() - n), dtype=cells.dtype)
            for idea in ideas:
                shape = [1] * cells.dim()
                shape[idea] = 2
                sign = sign * torch.tensor([-1.0, 1.0], dtype=cells.dtype).view(shape)
            told += sign * effect(cells, ideas) / 2
    return told


def _n_ideas(cells: Tensor) -> int:
    """How many axes of length two there are in front."""
    n = next((axis for axis, size in enumerate(cells.shape) if size != 2), cells.dim())
    if not n:
        raise ValueError(f"cells have an axis of two per idea in front, got {tuple(cells.shape)}")
    return n
