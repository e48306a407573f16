"""Linear mode connectivity: walk straight from one trained model to another, and see whether the loss stays low.

Two networks, each good, have a *barrier* between them when the models on the line between them are bad. Where there is
none they lie in one valley, and their mean is a model, too.

Notable points:
- `interpolate` makes a point between two models, `loss_path` scores many of them at once, `error_barrier` says how high
  the path goes, by both definitions in use; they differ when the ends differ.
- `align` first undoes what is only a matter of order: a network whose hidden units or heads change places is the same
  function, but far away. `soup` averages several models, `loss_plane` draws the plane through three.
- A band comes from resampling the rows of text (`bootstrap_barrier`). It says how sure this pair's barrier is, not how
  much pairs differ: for that, train more pairs.
- Barriers are measured on training *and* validation text: where validation loss is far above training loss, a mean may
  seem good only because it is less sure of itself.

Papers: Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis" [1]; Entezari et al. 2022,
"The Role of Permutation Invariance in Linear Mode Connectivity of Neural Networks" [2]; Wortsman et al. 2022, "Model
soups" [3].

Glossary (code name ↔ paper symbol): `alpha` ↔ α [1], [2]; `Barrier.frankle` ↔ error barrier height,
sup_α E_α(W_1, W_2) - (E(W_1) + E(W_2))/2 [1]; `Barrier.linear` ↔ B(θ_1, θ_2) [2].

Shapes: P points on the path, R rows of text, N resamplings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kancourse.lmc_align import align, match, permute, random_permutations
from kancourse.lmc_path import PathScores, loss_path, naive_loss_path, score_path, score_points
from kancourse.lmc_plane import LossPlane, loss_plane
from kancourse.lmc_states import interpolate, soup

__all__ = [
    "Band",
    "Barrier",
    "LossPlane",
    "PathScores",
    "align",
    "bootstrap_barrier",
    "error_barrier",
    "interpolate",
    "loss_path",
    "loss_plane",
    "match",
    "naive_loss_path",
    "permute",
    "random_permutations",
    "score_path",
    "score_points",
    "soup",
]


@dataclass(frozen=True, kw_only=True)
class Barrier:
    """How high a path goes, in the unit of its losses.

    Attributes:
        frankle: the highest loss minus the mean of the two ends [1].
        linear: the greatest height over the straight line between the two ends [2]; 0 when the path stays below it.
        frankle_alpha, linear_alpha: where.
        dip: how deep the path goes below that line, 0 or negative.
        start, end: the losses of the two models.
    """

    frankle: float
    linear: float
    frankle_alpha: float
    linear_alpha: float
    dip: float
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Band:
    """Bounds of both barriers between which the middle share `level` of the resamplings lies."""

    frankle: tuple[float, float]
    linear: tuple[float, float]
    level: float


def error_barrier(alphas: Sequence[float] | Tensor, losses: Sequence[float] | Tensor) -> Barrier:
    """The barrier on a path, by both definitions.

    Args:
        alphas: P points from 0 to 1, both ends among them.
        losses: P losses, or errors.

    Raises:
        ValueError: not a loss for every alpha, an end is missing, a point lies beyond them, or a loss is not finite.
    """
    alphas, losses = _checked(alphas, losses)
    peak, height, excess = _heights(alphas, losses)
    ends = [losses[alphas == end][0].item() for end in (0.0, 1.0)]
    return Barrier(
        frankle=float(peak),
        linear=float(height),
        frankle_alpha=float(alphas[losses.argmax()]),
        linear_alpha=float(alphas[excess.argmax()]),
        dip=float(excess.min()),
        start=ends[0],
        end=ends[1],
    )


def bootstrap_barrier(
    scores: PathScores,
    *,
    measure: str = "loss",
    n: int = 1000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Band:
    """How far the barrier would move on other text of the same kind: rows drawn anew, with replacement, n times.

    All points of the path are scored on the same drawn rows. A highest point is sought anew each time, so a barrier
    that is nothing but noise has a band somewhat above 0.

    Args:
        scores: of `score_path`, the ends included.
        measure: "loss" or "error".
        n: resamplings.
        level: share of them inside the band.
        generator: draws the rows; default: one seeded with 0.

    Raises:
        ValueError: an unknown measure, n below 1, or a level outside (0, 1).
    """
    sums = {"loss": scores.row_loss, "error": scores.row_wrong}
    if measure not in sums:
        raise ValueError(f"unknown measure {measure!r}; known: {', '.join(sums)}")
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"a band needs n of at least 1 and a level between 0 and 1, got {n=}, {level=}")
    generator = generator or torch.Generator().manual_seed(0)
    n_rows = len(scores.row_targets)
    drawn = torch.randint(n_rows, (n, n_rows), generator=generator)
    times = torch.zeros(n, n_rows, dtype=torch.float64)  # how often each row was drawn
    times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    losses = (times @ sums[measure].T) / (times @ scores.row_targets)[:, None]  # (N, P)
    alphas, losses = _checked(scores.alphas, losses)
    peak, height, _ = _heights(alphas, losses)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    bounds = torch.stack((peak, height)).quantile(tails, dim=1).T.tolist()  # two pairs
    return Band(frankle=tuple(bounds[0]), linear=tuple(bounds[1]), level=level)


def _checked(alphas: Sequence[float] | Tensor, losses: Sequence[float] | Tensor) -> tuple[Tensor, Tensor]:
    alphas = torch.as_tensor(alphas, dtype=torch.float64).detach().cpu().flatten()
    losses = torch.as_tensor(losses, dtype=torch.float64).detach().cpu()
    if losses.shape[-1:] != alphas.shape:
        raise ValueError(f"every alpha needs a loss: got {len(alphas)} alphas and losses of shape {(*losses.shape,)}")
    if len(alphas) == 0 or float(alphas.min()) != 0 or float(alphas.max()) != 1:
        raise ValueError("a barrier is measured from alpha 0 to 1, both included, none beyond: these are other alphas")
    if not bool(losses.isfinite().all()):
        raise ValueError("a loss on the path is not finite, so there is no barrier to tell")
    return alphas, losses


def _heights(alphas: Tensor, losses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (..., P) → both barriers (...), and the height over the line between the ends (..., P)."""
    start, end = losses[..., alphas == 0][..., :1], losses[..., alphas == 1][..., :1]
    excess = losses - torch.lerp(start, end, alphas)  # of equal ends lerp makes exactly them
    return losses.amax(-1) - torch.lerp(start, end, 0.5).squeeze(-1), excess.amax(-1), excess
