"""Two models of ours on a corpus: the path between them on training and on validation text, as plain data.

Shapes: P points on the path.
"""

from collections.abc import Iterable
from typing import Any

import torch

from kancourse.gpt import GPT
from kancourse.lab.batches import evaluation_batches
from kancourse.lab.corpus import Corpus
from kancourse.lmc import bootstrap_barrier, error_barrier, score_path
from kancourse.lmc_path import Batches
from kancourse.lmc_states import State

MEASURES = ("loss", "error")  # nats per token, and the share of tokens for which another one was thought likelier


def alpha_grid(n: int) -> torch.Tensor:
    """n even points from 0 to 1, and 0.5 where it is not among them (of thirty, say).

    Raises:
        ValueError: n below 2, which cannot hold both ends.
    """
    if n < 2:
        raise ValueError(f"a path needs at least its 2 ends, got n_alphas {n}")
    grid = [i / (n - 1) for i in range(n)]
    return torch.tensor(sorted({*grid, 0.5}), dtype=torch.float64)


def path_batches(
    corpus: Corpus, block_size: int, *, batch_size: int = 32, max_batches: int | None = None
) -> dict[str, Batches]:
    """The same rows for every point: the validation split (or so many batches), and as much of the training split."""
    val = evaluation_batches(corpus.val, block_size, batch_size, max_batches=max_batches)
    train = evaluation_batches(corpus.train, block_size, batch_size, max_batches=max(1, len(val)))
    return {"train": train, "val": val}


def measure_path(
    model: GPT, state_a: State, state_b: State, splits: dict[str, Batches], alphas: Iterable[float]
) -> dict[str, dict[str, Any]]:
    """Score the path on every split.

    Returns:
        By split: `alphas`, `loss`, `error` (P each), `n_tokens`, and `barrier`: by measure, Frankle's and the linear
        one with their 95% bands over rows, where they are, and how deep the path dips.

    Raises:
        ValueError: states that do not fit, an empty split, or what else `score_path` and `error_barrier` refuse.
    """
    alphas = torch.as_tensor(alphas, dtype=torch.float64)
    told = {}
    for split, batches in splits.items():
        scores = score_path(model, state_a, state_b, alphas, batches)
        told[split] = {
            "alphas": alphas.tolist(),
            "loss": scores.loss.tolist(),
            "error": scores.error.tolist(),
            "n_tokens": int(scores.row_targets.sum()),
            "barrier": {},
        }
        for measure in MEASURES:
            barrier = error_barrier(alphas, getattr(scores, measure))
            band = bootstrap_barrier(scores, measure=measure)
            told[split]["barrier"][measure] = {
                "frankle": barrier.frankle,
                "frankle_band": list(band.frankle),
                "frankle_alpha": barrier.frankle_alpha,
                "linear": barrier.linear,
                "linear_band": list(band.linear),
                "linear_alpha": barrier.linear_alpha,
                "dip": barrier.dip,
            }
    return told
