"""Instability analysis: train to step k, let children go on from there with different noise, and see whether they part.

Notable points:
- A child inherits everything at step k: weights, Adam's moments, and the schedule, which is the parent's to the last
  step. Only its seed is another: the order of the data and, where there is any, dropout. Nothing else is random.
- A sweep over k confounds two things: how far the network is, and how many steps at which learning rate are left.
  `fresh_at` is the control: children start from the weights at k with a new optimiser and the full schedule.
- `same_noise_at` is the other control: two children with one seed, which must end at the same numbers, barrier 0.
- Any number of children makes all pairs of them. Pairs with a child in common are not independent.

Paper: Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis" [1].

Glossary (code name ↔ paper symbol): `spawn_at` ↔ k, `steps` ↔ T, a child's seed ↔ u [1].
"""

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from kancourse.gpt import GPT
from kancourse.lab.checkpoint import load_checkpoint, restore_optimizer, save_checkpoint
from kancourse.lab.connectivity import alpha_grid, measure_path, path_batches
from kancourse.lab.corpus import Corpus
from kancourse.lab.device import pick_device
from kancourse.lab.experiment import Experiment
from kancourse.lab.gpt2_weights import load_gpt2
from kancourse.lab.meters import count_parameters
from kancourse.lab.optim import make_adamw
from kancourse.lab.records import environment, settings, summary, write_record
from kancourse.lab.train import LATEST, TrainConfig, train
from kancourse.lmc_states import as_vector
from kancourse.zoo import build

CARRIED, FRESH = "carried", "fresh"


@dataclass(kw_only=True)
class Instability(Experiment):
    """What to train, when to spawn, and how to measure. The other fields are `Experiment`'s; it draws no samples."""

    start: str | None = (
        None  # a checkpoint, or a GPT-2 by name or folder, instead of fresh weights; then no model fields
    )
    spawn_at: tuple[int, ...] = (0, 25, 50, 100, 200, 400)  # k
    n_children: int = 2  # of every k; all pairs of them are compared
    fresh_at: tuple[int, ...] = ()  # the control with a new optimiser and the full schedule
    same_noise_at: tuple[int, ...] = ()  # the control whose barrier must be 0
    n_alphas: int = 11  # points from 0 to 1; 0.5 is added where it is not among them
    path_batches: int | None = None  # of each split, along every path; None: the whole validation split

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_children < 2:
            raise ValueError(f"a pair needs two children, got n_children {self.n_children}")
        if not self.spawn_at and not self.fresh_at and not self.same_noise_at:
            raise ValueError("nothing to spawn: spawn_at, fresh_at and same_noise_at are all empty")
        for name in ("spawn_at", "fresh_at", "same_noise_at"):
            for k in getattr(self, name):
                if not 0 <= k < self.steps:
                    raise ValueError(f"{name} must lie between 0 and the last step, {self.steps - 1}, got {k}")
        alpha_grid(self.n_alphas)

    def child_seed(self, seed: int, child: int) -> int:
        """The seed of a child's noise, unlike every parent's and every other child's."""
        return 10_000 * (seed + 1) + child


def run_instability(
    instability: Instability, *, on_pair: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Run the experiment; with `record` set, write the record. With `out_dir`, one that was stopped goes on.

    Args:
        instability: what to do.
        on_pair: called with every pair's row as soon as it is measured.

    Returns:
        The record: kind, instability, corpus, model, parameters, pairs, environment. A pair has seed, spawn_at,
        schedule ("carried" or "fresh"), noise ("different" or "same"), children, distance (of their weights, L2),
        travelled (of each since k), cosine (of the two travels; None when one did not move), and train and val, as
        `measure_path` returns them.
    """
    corpus = instability.load_corpus()
    alphas = alpha_grid(instability.n_alphas)
    pairs = []
    with _folder(instability.out_dir) as root:
        for seed in range(instability.seed, instability.seed + instability.n_seeds):
            family = _Family(instability, corpus, seed, root / f"seed-{seed}")
            probe = family.newborn()
            splits = path_batches(
                corpus,
                probe.config.block_size,
                batch_size=instability.batch_size,
                max_batches=instability.path_batches,
            )
            probe.to(pick_device(instability.device, instability.dtype).device)
            for k, schedule, noise, n_children in family.plan():
                origin = family.state_at(k)
                ends = [family.child(k, schedule, noise, number) for number in range(n_children)]
                for pair in itertools.combinations(range(n_children), 2):
                    a, b = (ends[number] for number in pair)
                    row = {"seed": seed, "spawn_at": k, "schedule": schedule, "noise": noise, "children": list(pair)}
                    row |= _distances(origin, a, b) | measure_path(probe, a, b, splits, alphas)
                    pairs.append(row)
                    if on_pair:
                        on_pair(row)
    record = {
        "kind": "instability",
        "instability": settings(instability),
        "corpus": corpus.describe(),
        "model": probe.config.to_dict(),
        "parameters": count_parameters(probe),
        "pairs": pairs,
        "environment": environment(),
    }
    if instability.record:
        write_record(instability.record, record)
    return record


def barrier_curve(
    record: dict[str, Any],
    *,
    split: str = "train",
    measure: str = "loss",
    definition: str = "linear",
    schedule: str = CARRIED,
    noise: str = "different",
) -> dict[int, dict[str, float | int]]:
    """The barrier as a function of k: by spawn step, mean and band over all seeds and pairs."""
    found: dict[int, list[float]] = {}
    for pair in record["pairs"]:
        if (pair["schedule"], pair["noise"]) == (schedule, noise):
            found.setdefault(pair["spawn_at"], []).append(pair[split]["barrier"][measure][definition])
    return {k: summary(values) for k, values in sorted(found.items())}


class _Family:
    """One parent and its children, in one folder: what is there already is not trained again."""

    def __init__(self, instability: Instability, corpus: Corpus, seed: int, folder: Path) -> None:
        self.instability, self.corpus, self.seed, self.folder = instability, corpus, seed, folder
        settings = {f.name: getattr(instability, f.name) for f in fields(TrainConfig)}
        self.config = TrainConfig(**settings | {"seed": seed, "out_dir": None})

    def newborn(self) -> GPT:
        """The model before the first step."""
        start = self.instability.start
        if start is None:
            return build(self.instability.model_config(self.corpus.tokenizer.vocab_size), seed=self.seed).eval()
        if Path(start).suffix == ".safetensors":
            checkpoint = load_checkpoint(start)
            if checkpoint.tokenizer and checkpoint.tokenizer.to_dict() != self.corpus.tokenizer.to_dict():
                raise ValueError(
                    f"{start} and {self.corpus.name} have different vocabularies: pass its tokenizer's name"
                )
            return checkpoint.model
        return load_gpt2(start, block_size=self.instability.block_size, dropout=self.instability.dropout or 0.0)

    def plan(self) -> Iterator[tuple[int, str, str, int]]:
        """Whom to compare: the step at which they part, schedule, noise, and how many children."""
        steps = self.instability
        yield from ((k, CARRIED, "different", steps.n_children) for k in sorted(steps.spawn_at))
        yield from ((k, FRESH, "different", steps.n_children) for k in sorted(steps.fresh_at))
        yield from ((k, CARRIED, "same", 2) for k in sorted(steps.same_noise_at))

    def state_at(self, k: int) -> dict[str, Tensor]:
        """The parent's weights after k steps."""
        return self.newborn().state_dict() if k == 0 else load_checkpoint(self._parent_at(k)).model.state_dict()

    def child(self, k: int, schedule: str, noise: str, number: int) -> dict[str, Tensor]:
        """The weights at which one child of step k ends. With the same noise, all have the seed of child 0."""
        folder = self.folder / f"{k}-{schedule}-{noise}-{number}"
        if noise == "same" and number == 0:  # this one is trained for the other pairs, too
            folder = self.folder / f"{k}-{schedule}-different-0"
        seed = self.instability.child_seed(self.seed, 0 if noise == "same" else number)
        config = replace(self.config, seed=seed, out_dir=str(folder))
        model = self.newborn()
        if schedule == CARRIED and k > 0 and not (folder / LATEST).exists():
            self._inherit(k, config, folder / LATEST)
        elif schedule == FRESH:
            model.load_state_dict(self.state_at(k))
        train(model, self.corpus, config)
        return model.cpu().state_dict()

    def _parent_at(self, k: int) -> Path:
        """The parent's checkpoint at step k; it goes on from the last one before."""
        path = self.folder / f"parent-{k}" / LATEST
        steps = self.instability
        before = [j for j in (*steps.spawn_at, *steps.fresh_at, *steps.same_noise_at) if 0 < j < k]
        if not path.exists() and before:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            shutil.copyfile(self._parent_at(max(before)), partial)
            partial.replace(path)
        train(self.newborn(), self.corpus, replace(self.config, out_dir=str(path.parent)), until=k)
        return path

    def _inherit(self, k: int, config: TrainConfig, path: Path) -> None:
        """Write the checkpoint from which a child goes on: the parent's at k, with the child's settings."""
        parent = load_checkpoint(self._parent_at(k))
        settings = {"lr": config.lr, "beta1": config.beta1, "beta2": config.beta2, "weight_decay": config.weight_decay}
        optimizer = make_adamw(parent.model, **settings)
        restore_optimizer(optimizer, parent.model, parent.optimizer_state)
        state = parent.train_state | {"train": asdict(config)}
        save_checkpoint(path, parent.model, tokenizer=parent.tokenizer, optimizer=optimizer, train_state=state)


def _distances(origin: dict[str, Tensor], first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Any]:
    start, one, other = as_vector(origin), as_vector(first), as_vector(second)
    ways = [one - start, other - start]
    lengths = [float(way.norm()) for way in ways]
    cosine = float(ways[0] @ ways[1]) / (lengths[0] * lengths[1]) if min(lengths) > 0 else None
    return {"distance": float((one - other).norm()), "travelled": lengths, "cosine": cosine}


@contextmanager
def _folder(out_dir: str | None) -> Iterator[Path]:
    """The folder to keep checkpoints in, or one that is gone afterwards."""
    if out_dir:
        yield Path(out_dir)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
