"""Several instability analyses that differ in a few settings, in one record: kinds of model, ways to train.

An arm is a few fields of `Instability` over a common base, as in a study (`study.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kancourse.lab.family import FRESH
from kancourse.lab.instability import Instability, run_instability
from kancourse.lab.records import check_record_name, environment, settings, summary, write_record
from kancourse.zoo import check_fields

OWN = ("record", "out_dir")  # fields of the whole, which neither base nor arms may set
PER_ARM = ("instability", "model", "parameters", "pairs", "soups")


@dataclass(kw_only=True)
class Instabilities:
    """What to compare. Base and arms hold fields of `Instability`."""

    base: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    out_dir: str | None = None  # with it, one that was stopped goes on
    record: str | None = None  # write data/results/<record>.json

    def __post_init__(self) -> None:
        check_record_name(self.record)
        if not self.arms:
            raise ValueError("nothing to analyse: there is no arm")
        for name, changes in (("base", self.base), *self.arms.items()):
            check_fields(Instability, changes)
            for key in OWN:
                if key in changes:
                    raise ValueError(f"{name} sets {key}, which belongs to the whole")
        for arm in self.arms:
            self.instability(arm)  # what does not fit is refused before anything is trained

    def instability(self, arm: str) -> Instability:
        """The analysis of one arm."""
        given = self.base | self.arms[arm]
        if self.out_dir:
            given["out_dir"] = str(Path(self.out_dir) / arm.replace("/", "_"))
        return Instability(**given)


def run_instabilities(
    what: Instabilities, *, on_pair: Callable[[str, dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Run every arm; with `record` set, write the record.

    Args:
        what: what to compare.
        on_pair: called with the arm's name and every pair's row as soon as it is measured.

    Returns:
        The record: kind, instabilities, corpus (None when the arms' differ: then each arm has its own), arms,
        environment. An arm has what a record of `run_instability` has of its own.
    """
    arms, corpora = {}, []
    for name in what.arms:
        told = run_instability(what.instability(name), on_pair=on_pair and (lambda row, name=name: on_pair(name, row)))
        arms[name] = {key: told[key] for key in PER_ARM}
        corpora.append(told["corpus"])
    shared = corpora[0] if all(corpus == corpora[0] for corpus in corpora) else None
    if shared is None:
        for arm, corpus in zip(arms.values(), corpora, strict=True):
            arm["corpus"] = corpus
    record = {"kind": "instabilities", "instabilities": settings(what), "corpus": shared}
    record |= {"arms": arms, "environment": environment()}
    if what.record:
        write_record(what.record, record)
    return record


def barrier_table(record: dict[str, Any]) -> str:
    """A record's pairs as a Markdown table: for every arm and every way to part the loss barrier, mean and band."""
    rows = [
        "| arm | compared | pairs | barrier on training text | on validation text | loss of the ends (validation) |"
    ]
    rows.append("|---|---|---|---|---|---|")
    for name, arm in record["arms"].items():
        groups: dict[str, list[dict[str, Any]]] = {}
        for pair in arm["pairs"]:
            groups.setdefault(who(pair), []).append(pair)
        for compared, pairs in groups.items():
            heights = [summary([p[split]["barrier"]["loss"]["linear"] for p in pairs]) for split in ("train", "val")]
            ends = summary([loss for p in pairs for loss in (p["val"]["loss"][0], p["val"]["loss"][-1])])
            cells = [f"{value['mean']:.4f} ({value['min']:.4f} to {value['max']:.4f})" for value in (*heights, ends)]
            rows.append(f"| {name} | {compared} | {len(pairs)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def who(pair: dict[str, Any]) -> str:
    """Who is compared in a pair, in words."""
    k, aligned = pair["spawn_at"], f", aligned: {pair['aligned']}" if pair["aligned"] else ""
    if pair["noise"] == "strangers":
        return f"strangers{aligned}"
    schedule = ", fresh schedule" if pair["schedule"] == FRESH else ""
    noise = ", the same noise" if pair["noise"] == "same" else ""
    return f"children of step {k}{schedule}{noise}{aligned}"
