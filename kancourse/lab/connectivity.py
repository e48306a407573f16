"""Two models of ours on a corpus: the path between them on training and on validation text, as plain data.

Shapes: P points on the path.
"""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from kancourse.gpt import GPT
from kancourse.lab.batches import evaluation_batches
from kancourse.lab.checkpoint import Checkpoint, load_checkpoint
from kancourse.lab.corpus import Corpus
from kancourse.lab.sample import generate
from kancourse.lab.tokenizers import Tokenizer
from kancourse.lmc import bootstrap_barrier, error_barrier, interpolate, score_path
from kancourse.lmc_path import Batches
from kancourse.lmc_states import State

MEASURES = ("loss", "error")  # nats per token, and the share of tokens for which another one was thought likelier


def load_pair(path_a: str | Path, path_b: str | Path) -> tuple[Checkpoint, Checkpoint]:
    """Two checkpoints between which a straight line makes sense.

    Raises:
        ValueError: different architectures or vocabularies, or no tokenizer; both sides are named.
    """
    a, b = load_checkpoint(path_a), load_checkpoint(path_b)
    ours, theirs = a.model.config.to_dict(), b.model.config.to_dict()
    odd = [f"{name} {ours[name]!r} and {theirs[name]!r}" for name in ours if ours[name] != theirs[name]]
    odd = [text for text in odd if not text.startswith("dropout ")]  # which is no part of the function
    if odd:
        raise ValueError(f"{path_a} and {path_b} are of different architectures: {', '.join(odd)}")
    for path, checkpoint in ((path_a, a), (path_b, b)):
        if checkpoint.tokenizer is None:
            raise ValueError(f"{path} carries no tokenizer, so it cannot read text")
    if a.tokenizer.to_dict() != b.tokenizer.to_dict():
        raise ValueError(f"{path_a} and {path_b} have different vocabularies: {a.tokenizer.name}, {b.tokenizer.name}")
    return a, b


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


def write_along(
    model: GPT,
    state_a: State,
    state_b: State,
    alphas: Iterable[float],
    *,
    tokenizer: Tokenizer,
    prompt: str = "",
    max_new_tokens: int = 60,
    temperature: float = 0.8,
    seed: int = 0,
) -> list[str]:
    """What the models on the path write, all with the same random numbers: the prompt and how each goes on."""
    probe, texts = copy.deepcopy(model).eval(), []
    for alpha in alphas:
        probe.load_state_dict(interpolate(state_a, state_b, float(alpha)))
        new = generate(
            probe,
            prompt,
            tokenizer=tokenizer,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            stop_at_end=False,
            generator=torch.Generator().manual_seed(seed),
        )
        texts.append(prompt + new)
    return texts


def path_table(told: dict[str, dict[str, Any]]) -> str:
    """What `measure_path` returns as text: every point, then the barriers."""
    splits = list(told)
    lines = ["alpha  " + "  ".join(f"{split + ' loss':>10}  {split + ' error':>11}" for split in splits)]
    for i, alpha in enumerate(told[splits[0]]["alphas"]):
        scores = [f"{told[split]['loss'][i]:10.4f}  {told[split]['error'][i]:11.4f}" for split in splits]
        lines.append(f"{alpha:5.3f}  " + "  ".join(scores))
    for split in splits:
        for measure, unit in zip(MEASURES, ("nats per token", "of the tokens"), strict=True):
            barrier = told[split]["barrier"][measure]
            low, high = barrier["frankle_band"]
            lines.append(
                f"{split} {measure} barrier: {barrier['frankle']:.4f} {unit} over the mean of the ends "
                f"(95% band over rows {low:.4f} to {high:.4f}), {barrier['linear']:.4f} over the line between them"
            )
    return "\n".join(lines)
