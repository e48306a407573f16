"""Instability analysis: train to step k, let children go on from there with different noise, and see whether they part.

Notable points:
- A child inherits everything at step k, and only its noise is another (`family.py`).
- A sweep over k confounds two things: how far the network is, and how many steps at which learning rate are left.
  `fresh_at` is the control: children start from the weights at k with a new optimiser and the full schedule.
- `same_noise_at` is the other control: two children with one seed, which must end at the same numbers, barrier 0.
- `strangers` are models of different parents, which share no weight at any time; they and the children of step 0 can
  also be compared after their parts were brought into one order (`aligned`).
- Any number of children makes all pairs of them. Pairs with a child in common are not independent; those of different
  parents (`n_seeds`) are.

Paper: Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis" [1].

Glossary (code name ↔ paper symbol): `spawn_at` ↔ k, `steps` ↔ T [1].
"""

import copy
import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kancourse.gpt import GPT
from kancourse.lab.connectivity import alpha_grid, measure_path, path_batches, write_along
from kancourse.lab.corpus import Corpus
from kancourse.lab.device import pick_device
from kancourse.lab.experiment import Experiment
from kancourse.lab.family import CARRIED, FRESH, Family
from kancourse.lab.meters import count_parameters
from kancourse.lab.records import environment, settings, summary, write_record
from kancourse.lab.start import build_from, load_start
from kancourse.lab.train import TrainConfig
from kancourse.lmc import align, score_points
from kancourse.lmc_path import Batches
from kancourse.lmc_states import State, as_vector
from kancourse.zoo import build

ALIGNMENTS = {"units": False, "residual": True}  # of hidden units and heads; of the residual channels, too


@dataclass(kw_only=True)
class Instability(Experiment):
    """What to train, when to spawn, and how to measure. The other fields are `Experiment`'s; it draws no samples."""

    spawn_at: tuple[int, ...] = (0, 25, 50, 100, 200, 400)  # k
    n_children: int = 2  # of every k; all pairs of them are compared
    fresh_at: tuple[int, ...] = ()  # the control with a new optimiser and the full schedule
    same_noise_at: tuple[int, ...] = ()  # the control whose barrier must be 0
    strangers: bool = False  # compare the first children of step 0 of different parents (the seeds), too
    aligned: tuple[str, ...] = ()  # compare children of step 0 and strangers once more: "units", "residual"
    n_alphas: int = 11  # points from 0 to 1; 0.5 is added where it is not among them
    path_batches: int | None = None  # of each split, along every path; None: the whole validation split
    path_tokens: int = 0  # that every point between the first two of a group writes, after `prompt`

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
        if self.growth and self.fresh_at:
            raise ValueError("fresh_at begins the schedule anew, and a model that has grown would have to grow again")
        if self.strangers and (0 not in self.spawn_at or self.n_seeds < 2):
            raise ValueError("strangers are children of step 0 of different seeds: spawn_at must hold 0, n_seeds >= 2")
        unknown = [name for name in self.aligned if name not in ALIGNMENTS]
        if unknown:
            raise ValueError(f"unknown alignment {unknown[0]!r}; known: {', '.join(ALIGNMENTS)}")
        alpha_grid(self.n_alphas)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One model that is compared: whose child it is, where it began and where it ended."""

    seed: int
    number: int
    origin: State
    end: GPT


def run_instability(
    instability: Instability, *, on_pair: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Run the experiment; with `record` set, write the record. With `out_dir`, one that was stopped goes on.

    Args:
        instability: what to do.
        on_pair: called with every pair's row as soon as it is measured.

    Returns:
        The record: kind, instability, corpus, model, parameters, pairs, soups, environment.
        A pair has seeds (of the two parents), spawn_at, schedule ("carried" or "fresh"), noise ("different" or "same";
        "strangers" of two parents), children, aligned (None, "units" or "residual"), distance (of their weights, L2),
        travelled (of each since k), cosine (of the two travels; None when there is none), train and val, as
        `measure_path` returns them, and with `path_tokens` the texts that the points write. A soup is the mean of
        three models or more: the same keys, and by split the loss of the members and of the soup.
    """
    corpus = instability.load_corpus()
    alphas = alpha_grid(instability.n_alphas)
    device = pick_device(instability.device, instability.dtype).device
    record: dict[str, Any] = {"kind": "instability", "instability": settings(instability), "corpus": corpus.describe()}
    writing = {"prompt": instability.prompt, "temperature": instability.temperature, "seed": instability.seed}
    writing["max_new_tokens"] = instability.path_tokens
    pairs, soups = [], []
    with _folder(instability.out_dir) as root:
        for about, members in _groups(instability, corpus, root):
            probe = copy.deepcopy(members[0].end).to(device)
            if not pairs:
                record |= {"model": probe.config.to_dict(), "parameters": count_parameters(probe)}
                size = {"batch_size": instability.batch_size, "max_batches": instability.path_batches}
                splits = path_batches(corpus, probe.config.block_size, **size)
            alike = about["noise"] == "same" or about["spawn_at"] > 0  # there is nothing to align
            for aligned in (None, *(() if alike else instability.aligned)):
                states = [member.end.state_dict() for member in members]
                for a, b in itertools.combinations(range(len(members)), 2):
                    row = about | {"seeds": [members[a].seed, members[b].seed]}
                    row |= {"children": [members[a].number, members[b].number], "aligned": aligned}
                    ends = [states[a], _in_order(probe, states[a], states[b], aligned)]
                    comparable = aligned is None and row["noise"] != "strangers"
                    row |= _distances(members[a].origin, ends, comparable=comparable)
                    row |= measure_path(probe, *ends, splits, alphas)
                    if instability.path_tokens and (a, b, aligned) == (0, 1, None):
                        row["texts"] = write_along(probe, *ends, alphas, tokenizer=corpus.tokenizer, **writing)
                    pairs.append(row)
                    if on_pair:
                        on_pair(row)
                if len(members) > 2:
                    states[1:] = [_in_order(probe, states[0], state, aligned) for state in states[1:]]
                    row = about | {"seeds": [m.seed for m in members], "children": [m.number for m in members]}
                    soups.append(row | {"aligned": aligned} | _soup(probe, states, splits))
    record |= {"pairs": pairs, "soups": soups, "environment": environment()}
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
    aligned: str | None = None,
) -> dict[int, dict[str, float | int]]:
    """The barrier as a function of k: by spawn step, mean and band over all seeds and pairs."""
    found: dict[int, list[float]] = {}
    for pair in record["pairs"]:
        if (pair["schedule"], pair["noise"], pair["aligned"]) == (schedule, noise, aligned):
            found.setdefault(pair["spawn_at"], []).append(pair[split]["barrier"][measure][definition])
    return {k: summary(values) for k, values in sorted(found.items())}


def _groups(instability: Instability, corpus: Corpus, root: Path) -> Iterator[tuple[dict[str, Any], list[Member]]]:
    """All who are compared with each other, group after group, and what the record says of them."""
    settings = {f.name: getattr(instability, f.name) for f in fields(TrainConfig)}
    steps = {*instability.spawn_at, *instability.fresh_at, *instability.same_noise_at}
    first_children = []
    for seed in range(instability.seed, instability.seed + instability.n_seeds):
        config = TrainConfig(**settings | {"seed": seed})
        newborn = partial(_newborn, instability, corpus, seed)
        family = Family(config, corpus, newborn, steps=steps, folder=root / f"seed-{seed}")
        plan = [(k, CARRIED, "different") for k in sorted(instability.spawn_at)]
        plan += [(k, FRESH, "different") for k in sorted(instability.fresh_at)]
        plan += [(k, CARRIED, "same") for k in sorted(instability.same_noise_at)]
        for k, schedule, noise in plan:
            origin = family.parent(k).state_dict()
            if noise == "same":
                ends = [family.child(k, schedule, 0), family.child(k, schedule, 1, twin_of=0)]
            else:
                ends = [family.child(k, schedule, number) for number in range(instability.n_children)]
            members = [Member(seed=seed, number=n, origin=origin, end=end) for n, end in enumerate(ends)]
            if (k, schedule, noise) == (0, CARRIED, "different"):
                first_children.append(members[0])
            yield {"spawn_at": k, "schedule": schedule, "noise": noise}, members
    if instability.strangers:
        yield {"spawn_at": 0, "schedule": CARRIED, "noise": "strangers"}, first_children


def _newborn(instability: Instability, corpus: Corpus, seed: int) -> GPT:
    """The model before the first step."""
    config = instability.model_config(corpus.tokenizer.vocab_size)
    if instability.start is None:
        return build(config, seed=seed).eval()
    start = load_start(instability.start)
    if start.tokenizer and start.tokenizer.to_dict() != corpus.tokenizer.to_dict():
        raise ValueError(
            f"{instability.start} and {corpus.name} have different vocabularies: leave the tokenizer to the checkpoint"
        )
    return build_from(start, config).eval()


def _in_order(probe: GPT, a: State, b: State, aligned: str | None) -> State:
    """B's state as it is, or with its parts in the order of A's."""
    return b if aligned is None else align(probe, a, b, residual=ALIGNMENTS[aligned])


def _soup(probe: GPT, states: list[State], splits: dict[str, Batches]) -> dict[str, Any]:
    """The loss of each, and of their mean, by split."""
    n = len(states)
    weights = torch.cat((torch.eye(n), torch.full((1, n), 1 / n))).double()  # (n + 1, n)
    losses = {split: score_points(probe, states, weights, batches).loss.tolist() for split, batches in splits.items()}
    return {split: {"members": loss[:-1], "soup": loss[-1]} for split, loss in losses.items()}


def _distances(origin: State, ends: list[State], *, comparable: bool) -> dict[str, Any]:
    """How far apart two models are; if they come from one place, how far each has come, and at which angle."""
    one, other = (as_vector(end) for end in ends)
    told = {"distance": float((one - other).norm()), "travelled": None, "cosine": None}
    start = as_vector(origin)
    if not comparable or start.shape != one.shape:  # of another place, or grown since
        return told
    ways = [one - start, other - start]
    lengths = [float(way.norm()) for way in ways]
    cosine = float(ways[0] @ ways[1]) / (lengths[0] * lengths[1]) if min(lengths) > 0 else None
    return told | {"travelled": lengths, "cosine": cosine}


@contextmanager
def _folder(out_dir: str | None) -> Iterator[Path]:
    """The folder to keep checkpoints in, or one that is gone afterwards."""
    if out_dir:
        yield Path(out_dir)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
