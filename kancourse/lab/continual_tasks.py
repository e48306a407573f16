"""Continual learning in one and two dimensions: data that comes once, in order, and is never seen again.

- `stream_sine`: the points of a sine from left to right, some steps on each alone [1].
- `peaks`: a landscape of Gaussian peaks, one region after the other [2]; in two dimensions regions share coordinates,
  which is what a sum of functions of single coordinates cannot keep apart.
- Every protocol also has its control: the same data all at once, as often (`jointly`), which forgets nothing.

Papers: Lan & Mahmood 2023, "Elephant Neural Networks" [1]; Liu et al. 2024, "KAN", section 3.4 [2].

Shapes: R runs, N points, K tasks (regions).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kancourse.lab.continual import ManyAdam

PEAK_SHARPNESS = 300.0


class Points(NamedTuple):
    """Inputs (N, I) and the targets at them (N,)."""

    x: Tensor
    y: Tensor


def sine(n_points: int) -> Points:
    """sin(πx) at equal steps on [0, 2], in order."""
    x = torch.linspace(0, 2, n_points)[:, None]
    return Points(x, torch.sin(math.pi * x[:, 0]))


def mse(net: nn.Module, points: Points) -> Tensor:
    """(R,) mean squared error of each run's only output."""
    return (net(points.x)[..., 0] - points.y).square().mean(-1)


def stream_sine(
    net: nn.Module,
    lrs: Sequence[float],
    *,
    n_points: int = 200,
    n_steps: int = 10,
    on_point: Callable[[int], None] | None = None,
) -> Tensor:
    """One pass over the sine from left to right, `n_steps` of Adam on each point alone.

    Args:
        net: of R runs, one input and one output; trained in place.
        lrs: R learning rates.
        on_point: called after each point with how many were seen.

    Returns:
        (R,) mean squared error at 1,000 points of all of it, afterwards.
    """
    optimizer, (x, y) = ManyAdam(net, lrs), sine(n_points)
    for seen in range(n_points):
        here = Points(x[seen : seen + 1], y[seen : seen + 1])
        for _ in range(n_steps):
            optimizer.step(mse(net, here))
        if on_point:
            on_point(seen + 1)
    with torch.no_grad():
        return mse(net, sine(1000))


def peaks(n_dims: int = 1, *, n_points: int = 100) -> list[Points]:
    """The regions of the landscape, each with its peak exp(−300·|x − c|²) in the middle.

    One dimension: five regions of [−1, 1], as in [2]. Two: the four quadrants of [−1, 1]², whose peaks are wider.

    Args:
        n_points: per region, about; in two dimensions the nearest square.
    """
    if n_dims == 1:
        middles, half, sharpness = [(c,) for c in (-0.8, -0.4, 0.0, 0.4, 0.8)], 0.2, PEAK_SHARPNESS
    elif n_dims == 2:
        middles, half, sharpness = list(itertools.product((-0.5, 0.5), repeat=2)), 0.5, PEAK_SHARPNESS / 10
    else:
        raise ValueError(f"there are peaks in 1 or 2 dimensions, got {n_dims}")
    n_side = round(n_points ** (1 / n_dims))
    step = ((torch.arange(n_side) + 0.5) / n_side * 2 - 1) * half  # cell middles: regions share no point
    grid = torch.cartesian_prod(*[step] * n_dims).view(-1, n_dims)
    centres = torch.tensor(middles)
    regions = [grid + centre for centre in centres]
    return [Points(x, (-sharpness * (x[:, None] - centres).square().sum(-1)).exp().sum(-1)) for x in regions]


def one_after_another(net: nn.Module, lrs: Sequence[float], tasks: Sequence[Points], *, n_steps: int = 300) -> Tensor:
    """Train on each task alone, in order, with one optimiser throughout, in place.

    Returns:
        (R, K, K): row k has the errors on all tasks after the k-th.
    """
    optimizer, rows = ManyAdam(net, lrs), []
    for task in tasks:
        for _ in range(n_steps):
            optimizer.step(mse(net, task))
        with torch.no_grad():
            rows.append(torch.stack([mse(net, other) for other in tasks], dim=1))
    return torch.stack(rows, dim=1)


def jointly(net: nn.Module, lrs: Sequence[float], tasks: Sequence[Points], *, n_steps: int = 300) -> Tensor:
    """The control: all tasks at once, as many steps as they would have one after another. (R, K) errors afterwards."""
    optimizer = ManyAdam(net, lrs)
    everything = Points(*(torch.cat(parts) for parts in zip(*tasks, strict=True)))
    for _ in range(n_steps * len(tasks)):
        optimizer.step(mse(net, everything))
    with torch.no_grad():
        return torch.stack([mse(net, task) for task in tasks], dim=1)


def choose_rate(
    scores: Tensor, lrs: Sequence[float], *, n_sweep: int = 2, highest: bool = False
) -> tuple[float, list[int]]:
    """Of runs laid out as rates × seeds: the rate with the best mean on the first seeds, and which runs are its others.

    The seeds that choose are not scored, so that a lucky run does not count twice.

    Args:
        scores: (len(lrs)·S,), all S seeds of the first rate first.
        lrs: the rates.
        n_sweep: how many seeds choose.
        highest: the highest is best; else the lowest. NaN is worst.

    Returns:
        The rate, and the places of its S − n_sweep runs.
    """
    n_seeds = len(scores) // len(lrs)
    swept = scores.double().view(len(lrs), n_seeds)[:, :n_sweep].mean(1)
    best = int((swept.nan_to_num(-math.inf) if highest else -swept.nan_to_num(math.inf)).argmax())
    return lrs[best], list(range(best * n_seeds + n_sweep, (best + 1) * n_seeds))


def average_forgetting(scores: Tensor) -> Tensor:
    """How much of what was known is lost in the end: best before − at the end, the mean over all tasks but the last.

    Args:
        scores: (..., K, K), the higher the better; row k: all tasks after training on the k-th.

    Returns:
        (...).
    """
    earlier = scores[..., :-1, :-1].amax(-2)  # (..., K-1): the best of each task before the last was learned
    return (earlier - scores[..., -1, :-1]).mean(-1)
