"""A study: several arms that differ in a few fields, each with its own best learning rate, over the same seeds.

- An arm is a few fields of `Experiment` over a common base; a sweep tries the learning rates on a seed of its own, on
  which no arm is scored, and takes the one of the best validation loss.
- All arms see the same seeds, so the same data in the same order.
- Where the best rate lies at the end of the sweep, the record says so (`lr_at_edge`): the true best may lie outside.
- With `out_dir` every run has a folder there, and a study that was stopped goes on where it was.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from inspect import formatannotation
from pathlib import Path
from statistics import fmean
from typing import Any

from kancourse.lab.experiment import Experiment, run_experiment
from kancourse.lab.parameters import Parameter, check_parameters
from kancourse.lab.records import check_record_name, environment, settings, write_record
from kancourse.zoo import check_fields

OWN = ("n_seeds", "record", "out_dir")  # fields of the study, which neither base nor arms may set
PER_ARM = ("experiment", "model", "parameters", "flops_per_token", "val_loss", "runs")


@dataclass(kw_only=True)
class Study:
    """What to compare. Base and arms hold fields of `Experiment`."""

    arms: dict[str, dict[str, Any]]
    base: dict[str, Any] = field(default_factory=dict)
    lrs: tuple[float, ...] | None = None  # learning rates to try for every arm; None: as base and arms say
    sweep_seed: int = 1000  # of the sweep
    sweep_steps: int | None = None  # its length; None: a whole run
    n_seeds: int = 3
    out_dir: str | None = None
    record: str | None = None  # write data/results/<record>.json

    def __post_init__(self) -> None:
        check_record_name(self.record)
        if not self.arms:
            raise ValueError("a study needs at least one arm")
        for name, changes in (("base", self.base), *self.arms.items()):
            check_fields(Experiment, changes)
            _check_types(name, changes)
            for key in changes:
                if key in OWN:
                    raise ValueError(f"{name} sets {key}, which belongs to the whole study")
                if key == "lr" and self.lrs:
                    raise ValueError(f"{name} sets lr, and the study sweeps lrs: choose one")
        for arm in self.arms:
            self.experiment(arm)  # sizes that do not fit are refused before anything is trained
        seeds = range(self.base.get("seed", 0), self.base.get("seed", 0) + self.n_seeds)
        if self.lrs and self.sweep_seed in seeds:
            raise ValueError(f"sweep_seed {self.sweep_seed} is one of the seeds the arms are scored on")

    def experiment(self, arm: str, **changes: Any) -> Experiment:
        """The experiment of one arm."""
        given = self.base | self.arms[arm] | {"n_seeds": self.n_seeds} | changes
        if self.out_dir:
            given["out_dir"] = str(Path(self.out_dir) / arm.replace("/", "_"))
        return Experiment(**given)


def run_study(study: Study, *, on_arm: Callable[[str, dict[str, Any]], None] | None = None) -> dict[str, Any]:
    """Run every arm; with `record` set, write the record.

    Args:
        study: what to compare.
        on_arm: called after each arm with its name and its part of the record.

    Returns:
        The record: kind, study, corpus (None when the arms' differ: then each arm has its own), arms, environment. An
        arm has `lr`, `sweep` (validation loss by learning rate, or None), `lr_at_edge`, and of a training record
        experiment, model, parameters, flops_per_token, val_loss and runs.
    """
    arms, corpora = {}, []
    for name in study.arms:
        lr, sweep = _best_lr(study, name)
        told = run_experiment(study.experiment(name, **({} if lr is None else {"lr": lr})))
        edges = (min(study.lrs), max(study.lrs)) if study.lrs and len(study.lrs) > 1 else ()
        arms[name] = {"lr": told["experiment"]["lr"], "sweep": sweep, "lr_at_edge": lr in edges}
        arms[name] |= {key: told[key] for key in PER_ARM}
        corpora.append(told["corpus"])
        if on_arm:
            on_arm(name, arms[name])
    shared = corpora[0] if all(corpus == corpora[0] for corpus in corpora) else None
    if shared is None:
        for arm, corpus in zip(arms.values(), corpora, strict=True):
            arm["corpus"] = corpus
    record = {"kind": "study", "study": settings(study), "corpus": shared, "arms": arms, "environment": environment()}
    if study.record:
        write_record(study.record, record)
    return record


def _check_types(where: str, changes: dict[str, Any]) -> None:
    """Raise ValueError, naming base or arm, field, type and value, when a value is not of its field's type."""
    known = {
        f.name: Parameter(name=f.name, annotation=formatannotation(f.type), required=False) for f in fields(Experiment)
    }
    as_in_yaml = {key: list(value) if isinstance(value, tuple) else value for key, value in changes.items()}
    check_parameters(where, as_in_yaml, known)


def _best_lr(study: Study, arm: str) -> tuple[float | None, list[dict[str, float]] | None]:
    """The learning rate of the best validation loss on the sweep's seed; a run that diverges scores infinity."""
    if not study.lrs:
        return None, None
    quick = {"n_seeds": 1, "seed": study.sweep_seed, "n_judged": 0, "sample_tokens": 1, "probes": ()}
    if study.sweep_steps:
        quick["steps"] = study.sweep_steps
    sweep = []
    for lr in study.lrs:
        trial = study.experiment(arm, lr=lr, **quick)
        if trial.out_dir:
            trial = replace(trial, out_dir=f"{trial.out_dir}/sweep-{lr:g}")
        try:
            loss = run_experiment(trial)["val_loss"]["mean"]
        except FloatingPointError:
            loss = None  # JSON has no infinity
        sweep.append({"lr": lr, "val_loss": loss})
    finished = [row for row in sweep if row["val_loss"] is not None]
    if not finished:
        raise FloatingPointError(f"{arm}: no learning rate of {list(study.lrs)} gives a finite loss")
    return min(finished, key=lambda row: row["val_loss"])["lr"], sweep


def study_table(record: dict[str, Any]) -> str:
    """A study's record as a Markdown table, the best arm first: cost, learning rate, and loss with its band."""
    rows = ["| arm | parameters | FLOPs per token | learning rate | validation loss: mean (band), seeds | minutes |"]
    rows.append("|---|---|---|---|---|---|")
    for name, arm in sorted(record["arms"].items(), key=lambda item: item[1]["val_loss"]["mean"]):
        loss, minutes = arm["val_loss"], fmean(run["seconds"] for run in arm["runs"]) / 60
        edge = ", at the end of the sweep" if arm["lr_at_edge"] else ""
        rows.append(
            f"| {name} | {arm['parameters']['total']:,} | {arm['flops_per_token']:,.0f} | {arm['lr']:g}{edge} "
            f"| {loss['mean']:.4f} ({loss['min']:.4f} to {loss['max']:.4f}), {loss['n']} | {minutes:.1f} |"
        )
    return "\n".join(rows)
