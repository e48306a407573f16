"""The loss along a path of weights, many points in one evaluation.

Notable points:
- `naive_loss_path` loads one point after another into the model; `score_points` gives `torch.func` the weights of many
  points at once, and equals it. One call then does the work of many small ones, which pays on small batches; on large
  ones a CPU is busy anyway, and points are taken one at a time (`kancourse bench lmc` finds the break-even).
- Memory is bounded: so many points, and rows of a batch, are taken at a time as fit `memory`.
- All points see the same tokens, and sums are kept for each row, so bands can be drawn by resampling rows.
- Parts that vmap cannot batch (an operator of our own, or code that looks at values) make it one point at a time.

Paper: Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis" [1].

Shapes: P points (alphas), S models, R rows of text, B rows of a batch, T tokens, V vocabulary.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from kancourse.bitnet import BitLinear
from kancourse.gpt import GPT, IGNORE
from kancourse.kan_grid import SplineGrid
from kancourse.lmc_states import State, check_alphas, interpolate, mix_tensors, model_states
from kancourse.moe import MoE
from kancourse.retention import MultiScaleRetention

Batches = Iterable[tuple[Tensor, Tensor]]  # (x, y) of token ids, (B, T) each, -100 where nothing is to be predicted

ONE_AT_A_TIME = (SplineGrid, BitLinear, MoE, MultiScaleRetention)
CPU_TOKENS = 256  # in a batch: beyond, a CPU has enough to do with one point (`kancourse bench lmc`)


@dataclass(frozen=True, kw_only=True, eq=False)
class PathScores:
    """What the points score. Sums over each row, so that rows can be resampled.

    Attributes:
        weights: (P, S), each point's weights of the models.
        row_loss: (P, R) nats, summed over the targets of a row.
        row_wrong: (P, R) how many targets were not the likeliest token.
        row_targets: (R,) how many targets.
    """

    weights: Tensor
    row_loss: Tensor
    row_wrong: Tensor
    row_targets: Tensor

    @property
    def alphas(self) -> Tensor:
        """(P,) the share of the last model."""
        return self.weights[:, -1]

    @property
    def loss(self) -> Tensor:
        """(P,) nats per token."""
        return self.row_loss.sum(1) / self.row_targets.sum()

    @property
    def error(self) -> Tensor:
        """(P,) share of tokens for which another one was thought likelier."""
        return self.row_wrong.sum(1) / self.row_targets.sum()


@torch.no_grad()
def naive_loss_path(model: GPT, state_a: State, state_b: State, alphas: Sequence[float], batches: Batches) -> Tensor:
    """The loss at every alpha, one after another, by loading the weights: (P,) nats per token. Slow; the oracle."""
    probe, batches, losses = copy.deepcopy(model).eval(), list(batches), []
    for alpha in alphas:
        probe.load_state_dict(interpolate(state_a, state_b, float(alpha)))
        counts = [int((y != IGNORE).sum()) for _, y in batches]
        total = sum(float(probe.loss(x, y)) * n for (x, y), n in zip(batches, counts, strict=True) if n)
        losses.append(total / sum(counts))
    return torch.tensor(losses, dtype=torch.float64)


def loss_path(
    model: GPT,
    state_a: State,
    state_b: State,
    alphas: Sequence[float] | Tensor,
    batches: Batches,
    *,
    within: tuple[float, float] = (0.0, 1.0),
    chunk_size: int | None = None,
    memory: int = 2**29,
) -> Tensor:
    """The loss along the line from A to B: (P,) nats per token, float64. `score_path` tells more.

    Args and errors: as `score_path`.
    """
    scores = score_path(model, state_a, state_b, alphas, batches, within=within, chunk_size=chunk_size, memory=memory)
    return scores.loss


def score_path(
    model: GPT,
    state_a: State,
    state_b: State,
    alphas: Sequence[float] | Tensor,
    batches: Batches,
    *,
    within: tuple[float, float] = (0.0, 1.0),
    chunk_size: int | None = None,
    memory: int = 2**29,
) -> PathScores:
    """Loss and next-token error along the line (1 - alpha)·A + alpha·B.

    Args:
        model: gives the architecture and the device; its own weights are neither used nor changed.
        state_a, state_b: state dicts of that architecture.
        alphas: P points.
        batches: (x, y) pairs, as `lab.batches.evaluation_batches` makes them; every point sees all of them.
        within: alphas that are meant.
        chunk_size, memory: see `score_points`.

    Raises:
        ValueError: no alphas, one outside `within`, states that do not fit, no batch, or no target in any.
    """
    alphas = torch.as_tensor(alphas, dtype=torch.float64).flatten()
    check_alphas(alphas.tolist(), within)
    weights = torch.stack((1 - alphas, alphas), dim=1)  # (P, 2)
    return score_points(model, (state_a, state_b), weights, batches, chunk_size=chunk_size, memory=memory)


@torch.no_grad()
def score_points(
    model: GPT,
    states: Sequence[State],
    weights: Tensor,
    batches: Batches,
    *,
    chunk_size: int | None = None,
    memory: int = 2**29,
) -> PathScores:
    """Score the points Σ_s weights[p, s]·states[s], in eval mode.

    Args:
        model: gives the architecture and the device; its own weights are neither used nor changed.
        states: S state dicts of that architecture.
        weights: (P, S), rows that sum to 1.
        batches: (x, y) pairs.
        chunk_size: points per evaluation; None: what is fastest here and fits `memory`.
        memory: bytes that the weights of the points and their activations may take, about; one point and one row of
            text are always taken.

    Raises:
        ValueError: no points, states that do not fit, no batch, or no target in any; or chunk_size above 1 for a
            model with parts that cannot be batched.
    """
    batches = list(batches)
    if not any(bool((y != IGNORE).any()) for _, y in batches):
        raise ValueError("the evaluation set is empty: no batch holds a target")
    weights = torch.as_tensor(weights, dtype=torch.float64)
    if weights.ndim != 2 or not len(weights) or weights.size(1) != len(states):
        raise ValueError(f"{len(states)} models need weights of shape (points, {len(states)}), got {(*weights.shape,)}")
    single = next((type(m).__name__ for m in model.modules() if isinstance(m, ONE_AT_A_TIME)), None)
    if chunk_size is not None and (chunk_size < 1 or (single and chunk_size > 1)):
        reason = f"a model with {single} layers is evaluated one point at a time" if single else "it is at least 1"
        raise ValueError(f"chunk_size {chunk_size}: {reason}")
    fitted = model_states(model, states)
    device = next(model.parameters()).device
    n_points, n_rows = _chunk(model, fitted, batches, 1 if single else chunk_size, memory, len(weights))
    pieces = [
        (x[start : start + n_rows].to(device), y[start : start + n_rows].to(device))
        for x, y in batches
        for start in range(0, len(x), n_rows)
    ]
    was_training = model.training
    model.eval()
    totals = []
    for start in range(0, len(weights), n_points):
        some = weights[start : start + n_points]
        # Chunks are of one size, or the last would go through other kernels, and equal points score unequally.
        padded = torch.cat((some, some[-1:].expand(n_points - len(some), -1)))
        points = {name: mix_tensors([state[name] for state in fitted], padded) for name in fitted[0]}  # (P, ...)
        scored = torch.cat([_score(model, points, x, y) for x, y in pieces], dim=2)  # (2, P, R)
        totals.append(scored[:, : len(some)].to("cpu", torch.float64))
    model.train(was_training)
    row_loss, row_wrong = torch.cat(totals, dim=1)
    row_targets = torch.cat([(y != IGNORE).sum(1) for _, y in batches]).to("cpu", torch.float64)
    counted = row_targets > 0
    return PathScores(
        weights=weights,
        row_loss=row_loss[:, counted],
        row_wrong=row_wrong[:, counted],
        row_targets=row_targets[counted],
    )


def _score(model: GPT, points: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Summed loss and wrong guesses of each row at P points: (2, P, B)."""

    def one(state: dict[str, Tensor]) -> Tensor:
        logits = functional_call(model, state, (x,))  # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), y.flatten(), ignore_index=IGNORE, reduction="none")
        wrong = (logits.argmax(-1) != y) & (y != IGNORE)
        return torch.stack((loss.view_as(y).sum(1), wrong.sum(1).to(loss.dtype)))  # (2, B)

    if len(next(iter(points.values()))) == 1:
        return one({name: tensor[0] for name, tensor in points.items()})[:, None]
    # On a CPU the fused attention has no batching rule, so PyTorch would walk through the points with a warning.
    with sdpa_kernel(SDPBackend.MATH) if x.device.type == "cpu" else nullcontext():
        return vmap(one, out_dims=1)(points)


def _chunk(
    model: GPT, states: list[dict[str, Tensor]], batches: list, chunk_size: int | None, memory: int, n_points: int
) -> tuple[int, int]:
    """How many points, and rows of a batch, to take at a time."""
    config = model.config
    length = max(x.size(1) for x, _ in batches)
    rows = max(len(x) for x, _ in batches)
    weights = sum(tensor.nbytes for tensor in states[0].values())
    # Logits three times over (themselves, their softmax, a copy), the feed-forward, the attention square.
    floats = length * (3 * config.vocab_size + 16 * config.n_embd + 3 * config.n_head * length)
    row = 4 * floats
    if chunk_size is None:
        on_cpu = next(model.parameters()).device.type == "cpu"
        wanted = 1 if on_cpu and rows * length > CPU_TOKENS else n_points
        chunk_size = max(1, min(wanted, memory // (weights + rows * row)))
    chunk_size = min(chunk_size, n_points)
    left = memory - chunk_size * weights
    return math.ceil(n_points / math.ceil(n_points / chunk_size)), max(1, min(rows, left // (chunk_size * row)))
