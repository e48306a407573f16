"""Claims: who said what, what was measured here, and a verdict computed from the numbers by a rule written down.

- The rule is data ("measured < baseline - 0.05"), so a test can compute every stored verdict again.
- Bands decide, not means: a claim *holds* when even the worst seed satisfies the rule against the best baseline seed,
  *fails* when even the best seed does not against the worst, and *depends on the seed* in between.
- Measured in several settings, it holds or fails when it does so in all of them, and else depends on the setting.
- With fewer than three seeds every verdict is marked provisional.
- `KANCOURSE_RECORD=1` (set by `notebooks execute`) writes `data/claims/<id>.json`, with where and when it was measured.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import display

from kancourse.lab.records import environment
from kancourse.paths import data_dir

Runs = float | Sequence[float]
HOLDS, FAILS, SEED = "holds", "fails", "depends on the seed"

_NUMBER = r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?"
_TARGET = rf"(?P<target>baseline|{_NUMBER})(?:\s*(?P<sign>[-+*])\s*(?P<amount>{_NUMBER}))?"
_RULES = (
    re.compile(rf"measured\s*(?P<op><=|>=|<|>)\s*{_TARGET}"),
    re.compile(rf"measured within (?P<width>{_NUMBER}) of {_TARGET}"),
)
_GRAMMAR = '"measured < 1.75", "measured >= baseline + 0.1", "measured within 0.2 of baseline" (and *, <=, >)'


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim and its measurement; everything in it is stored, and `verdict` follows from the rest."""

    id: str
    who: str
    says: str
    holds_when: str
    measured: dict[str, list[float]]  # setting -> one value per seed
    baseline: dict[str, list[float]]  # setting -> one value per seed; empty when the rule names none
    band: dict[str, tuple[float, float]]  # setting -> lowest and highest measured value
    unit: str
    over: str  # what the settings are, "level"
    seeds: list[int] | None  # None: nothing random was measured
    timed: bool = False  # a time, or a ratio of times: no seed, and yet another number when measured again
    verdict: str
    provenance: dict[str, Any]

    @property
    def strength(self) -> str:
        """How many seeds stand behind the verdict, in words."""
        if self.timed:
            timings = max(map(len, self.measured.values()))
            return "one timing" if timings == 1 else f"{timings} timings"
        if self.seeds is None:
            return "no randomness"
        count = len(self.seeds)
        return "one seed, provisional" if count == 1 else "2 seeds, provisional" if count == 2 else f"{count} seeds"

    def numbers(self, setting: str) -> tuple[str, str]:
        """What was measured in one setting and what it is compared with: mean and band, in words."""
        baseline = self.baseline.get(setting)
        measured = _words(self.measured[setting], self.band[setting])
        return measured, _words(baseline, (min(baseline), max(baseline))) if baseline else self.holds_when

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        unit = f" ({self.unit})" if self.unit else ""
        rows = [(setting, *self.numbers(setting)) for setting in self.measured]
        head = f"**Claim: {self.verdict}** ({self.strength})"
        table = [f"| {self.over or ''} | measured here{unit} | against |", "|---|---|---|"]
        table += [f"| {cell(setting)} | {one} | {other} |" for setting, one, other in rows]
        rule = f"Holds when: {self.holds_when}{', for the worst seed' if self.seeds else ''}."
        markdown = "\n".join([head, "", f"> {self.says} ({self.who})", "", *table, "", rule])
        plain = [f"{self.verdict.upper()} ({self.strength}): {self.says} ({self.who})"]
        plain += [
            f"  {setting + ': ' if setting else ''}measured{unit} {one}, against {other}"
            for setting, one, other in rows
        ]
        return {"text/markdown": markdown, "text/plain": "\n".join([*plain, f"  {rule}"])}


def claim(
    id: str,
    *,
    who: str,
    says: str,
    measured: Runs | Mapping[str, Runs],
    holds_when: str,
    seeds: Sequence[int] | None,
    timed: bool = False,
    baseline: Runs | Mapping[str, Runs] | None = None,
    band: tuple[float, float] | None = None,
    unit: str = "",
    over: str = "",
    record: str | None = None,
) -> Claim:
    """Show a claim beside what was measured, with a verdict computed from the numbers, and record it when asked.

    Args:
        id: lower-case letters, digits and underscores; the file name of the record.
        who: who said it, with year.
        says: the claim, one sentence.
        measured: a value per seed; or one value; or either of them per setting, `{"level 1": [...], "level 3": [...]}`.
        holds_when: the rule: "measured < 1.75", "measured >= baseline + 0.1", "measured < baseline * 0.5",
            "measured within 0.2 of baseline".
        seeds: the seeds, in the order of the values; None when nothing random was measured.
        timed: what was measured is a time, or a ratio of times.
        baseline: what it is compared with, in the shape of `measured` (or one for all settings).
        band: lowest and highest value, when `measured` is the single mean of a recorded run.
        unit: of the values, "nats per token".
        over: what the settings are, "level"; used in "depends on level".
        record: the file in `data/results/` the numbers come from.

    Raises:
        ValueError: a rule outside the grammar, a number that is not finite, values that do not match the seeds.
    """
    if not re.fullmatch(r"[a-z0-9_]+", id):
        raise ValueError(f"claim {id!r}: an id is lower-case letters, digits and underscores")
    values = _by_setting(id, "measured", measured)
    against = {} if baseline is None else _by_setting(id, "baseline", baseline)
    if set(against) == {""}:
        against = dict.fromkeys(values, against[""])
    if against and set(against) != set(values):
        raise ValueError(f"claim {id!r}: measured in {', '.join(values)} but the baseline in {', '.join(against)}")
    if seeds is not None and not len(seeds):
        raise ValueError(f"claim {id!r}: no seeds given; None says that nothing random was measured")
    bands = {setting: (min(runs), max(runs)) for setting, runs in values.items()}
    if band is not None:
        if any(len(runs) != 1 for runs in values.values()) or not band[0] <= values[""][0] <= band[1]:
            raise ValueError(f"claim {id!r}: band {band} must go with one measured value inside it, got {measured!r}")
        bands = {"": (float(band[0]), float(band[1]))}
    elif seeds is not None and any(len(runs) != len(seeds) for runs in values.values()):
        counts = ", ".join(str(len(runs)) for runs in values.values())
        raise ValueError(f"claim {id!r}: {counts} measured values but {len(seeds)} seeds")
    made = Claim(
        id=id,
        who=who,
        says=says,
        holds_when=holds_when,
        measured=values,
        baseline=against,
        band=bands,
        unit=unit,
        over=over,
        seeds=None if seeds is None else [int(seed) for seed in seeds],
        timed=timed,
        verdict=judge(holds_when, bands, against, over),
        provenance=_provenance(record),
    )
    display(made)
    if os.environ.get("KANCOURSE_RECORD") == "1":
        save(made, data_dir() / "claims")
    return made


def judge(
    rule: str, bands: Mapping[str, Sequence[float]], baseline: Mapping[str, Sequence[float]], over: str = ""
) -> str:
    """The verdict: of the rule in every setting, then of all settings together (see the module's docstring).

    Raises:
        ValueError: the rule is outside the grammar, or names a baseline that is not there.
    """
    each = {setting: _judge_one(rule, *band, baseline.get(setting)) for setting, band in bands.items()}
    if len(set(each.values())) == 1:
        return next(iter(each.values()))
    parts = [
        f"{verdict} for {', '.join(setting for setting in each if each[setting] == verdict)}"
        for verdict in dict.fromkeys(each.values())
    ]
    return f"depends on {over or 'the setting'}: {'; '.join(parts)}"


def _judge_one(rule: str, low: float, high: float, baseline: Sequence[float] | None) -> str:
    match = next((found for pattern in _RULES if (found := pattern.fullmatch(rule.strip()))), None)
    if match is None:
        raise ValueError(f"rule {rule!r} is not understood; known: {_GRAMMAR}")
    if match["target"] == "baseline":
        if not baseline:
            raise ValueError(f"rule {rule!r} names a baseline, but none is given")
        ends = [min(baseline), max(baseline)]
    else:
        ends = [float(match["target"])] * 2
    if match["sign"]:
        amount = float(match["amount"])
        ends = [
            end * amount if match["sign"] == "*" else end + (amount if match["sign"] == "+" else -amount)
            for end in ends
        ]
    least, most = min(ends), max(ends)
    if "width" in match.groupdict():
        width = float(match["width"])
        worst, best = max(high - least, most - low), max(low - most, least - high, 0.0)
        return HOLDS if worst <= width else FAILS if best > width else SEED
    if match["op"] in (">", ">="):  # the mirror image
        low, high, least, most = -high, -low, -most, -least
    if match["op"] in ("<", ">"):
        return HOLDS if high < least else FAILS if low >= most else SEED
    return HOLDS if high <= least else FAILS if low > most else SEED


def save(made: Claim, folder: Path) -> Path:
    """Write a claim's JSON, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{made.id}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(made), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def load(path: Path) -> Claim:
    """Read a stored claim, and compute its verdict again.

    Raises:
        ValueError: the file is not a claim, or its verdict does not follow from its numbers.
    """
    try:
        stored = Claim(**json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path.name} is not a stored claim: {error}") from error
    again = judge(stored.holds_when, stored.band, stored.baseline, stored.over)
    if again != stored.verdict:
        raise ValueError(f"{path.name} says {stored.verdict!r}, but its numbers give {again!r}")
    return stored


def _by_setting(id: str, what: str, values: Runs | Mapping[str, Runs]) -> dict[str, list[float]]:
    """Everything as setting -> list of floats; the only setting's name is "" when none was given."""
    lists = {}
    for setting, runs in (values if isinstance(values, Mapping) else {"": values}).items():
        numbers = np.atleast_1d(np.asarray(runs, dtype=float))
        if numbers.ndim > 1 or not numbers.size or not np.isfinite(numbers).all():
            raise ValueError(f"claim {id!r}: {what} {setting or ''} must be finite numbers, got {numbers.tolist()}")
        lists[str(setting)] = numbers.tolist()
    return lists


def _provenance(record: str | None) -> dict[str, Any]:
    return {"notebook": os.environ.get("KANCOURSE_NOTEBOOK"), "record": record, **environment()}


def _words(runs: Sequence[float], band: Sequence[float]) -> str:
    mean, low, high = (_number(value) for value in (sum(runs) / len(runs), *band))
    return mean if low == high else f"{mean} [{low}, {high}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", r"\|")
