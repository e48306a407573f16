"""The loss on the plane through three models.

Paper: Garipov et al. 2018, "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs" [1].

Glossary (code name ↔ paper symbol): `x`, `y` ↔ coordinates along û, v̂ [1], which are made from w_2 - w_1 and w_3 - w_1
by Gram and Schmidt.

Shapes: S = 3 models, n points along each axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kancourse.gpt import GPT
from kancourse.lmc_path import Batches, score_points
from kancourse.lmc_states import State, as_vector, model_states


@dataclass(frozen=True, kw_only=True, eq=False)
class LossPlane:
    """A grid of losses; coordinates are distances between weights.

    Attributes:
        x, y: (n,) coordinates of the grid; model A lies at (0, 0), B on the x axis.
        loss: (n, n) nats per token, loss[i, j] at (x[j], y[i]).
        error: (n, n) share of tokens for which another one was thought likelier.
        models: (3, 2) where A, B and C lie.
    """

    x: Tensor
    y: Tensor
    loss: Tensor
    error: Tensor
    models: Tensor


def loss_plane(
    model: GPT,
    states: Sequence[State],
    batches: Batches,
    *,
    n: int = 11,
    margin: float = 0.25,
    chunk_size: int | None = None,
    memory: int = 2**29,
) -> LossPlane:
    """Score a grid of n × n points of the plane on which three models lie.

    Args:
        model: gives the architecture and the device; its own weights are neither used nor changed.
        states: three state dicts of that architecture.
        batches: (x, y) pairs; every point sees all of them.
        n: points along each axis.
        margin: how far the grid goes beyond the models, as a share of their extent.
        chunk_size, memory: as for `score_points`.

    Raises:
        ValueError: not three states, all on one line, or what `score_points` refuses.
    """
    if len(states) != 3 or n < 2 or margin < 0:
        raise ValueError(f"a plane wants three models, n of at least 2 and margin >= 0: {len(states)}, {n}, {margin}")
    models = _coordinates(model, states)
    low, high = models.amin(0), models.amax(0)
    edge = margin * (high - low)
    x, y = (
        torch.linspace(float(a), float(b), n, dtype=torch.float64) for a, b in zip(low - edge, high + edge, strict=True)
    )
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")  # (n, n) each
    third = grid_y / models[2, 1]
    second = (grid_x - third * models[2, 0]) / models[1, 0]
    weights = torch.stack((1 - second - third, second, third), dim=-1).flatten(0, 1)  # (n·n, 3)
    scores = score_points(model, states, weights, batches, chunk_size=chunk_size, memory=memory)
    return LossPlane(x=x, y=y, loss=scores.loss.view(n, n), error=scores.error.view(n, n), models=models)


def _coordinates(model: GPT, states: Sequence[State]) -> Tensor:
    """(3, 2): A at the origin, B on the x axis, C above it."""
    a, b, c = map(as_vector, model_states(model, states))
    to_b, to_c = b - a, c - a
    length = to_b.norm()
    along = to_c @ to_b / length
    height = (to_c - along / length * to_b).norm()
    if not float(height) > 1e-6 * float(to_c.norm()):  # rounding; also when A is B
        raise ValueError("the three models lie on one line, which spans no plane")
    return torch.tensor([[0.0, 0.0], [length, 0.0], [along, height]], dtype=torch.float64)
