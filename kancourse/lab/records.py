"""Records: what was run, with which settings and seeds, on what, and what came out; JSON in `data/results/`.

- A number in a notebook or in the README comes from a record, and a record is written by code, never by hand.
- `results_table` and `studies_table` render all records for `data/results/README.md`; a test keeps them in step.
"""

import json
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from kancourse import __version__
from kancourse.paths import data_dir


def environment() -> dict[str, str | int]:
    """Where and when a run happened: date, versions, processor, threads."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": date.today().isoformat(),
        "kancourse": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "processor": gpu or _processor(),
        "threads": torch.get_num_threads(),
    }


def summary(values: list[float]) -> dict[str, float | int]:
    """Mean and band of one number over seeds."""
    return {"mean": fmean(values), "min": min(values), "max": max(values), "n": len(values)}


def results_dir() -> Path:
    """Where records lie."""
    return data_dir() / "results"


def settings(config: Any) -> dict[str, Any]:
    """The fields of a configuration as a record keeps them: as JSON has them, without this machine's folder."""
    told = json.loads(json.dumps(asdict(config), allow_nan=False))
    told.pop("out_dir", None)
    if told.get("start"):
        told["start"] = Path(told["start"]).name
    return told


def check_record_name(name: str | None) -> None:
    """Raise ValueError for a name that would put a record anywhere but into `data/results/`; None is no record."""
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"a record's name is letters, digits, - and _, without folder or .json, got {name!r}")


def write_record(name: str, record: dict[str, Any]) -> Path:
    """Write `data/results/<name>.json` (whole or not at all) and return its path.

    Raises:
        ValueError: see `check_record_name`.
    """
    check_record_name(name)
    path = results_dir() / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return path


def read_record(name: str) -> dict[str, Any]:
    """Read `data/results/<name>.json`.

    Raises:
        FileNotFoundError: there is no such record; those there are, are listed.
    """
    path = results_dir() / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in results_dir().glob("*.json"))) or "none yet"
        raise FileNotFoundError(f"no record {name!r}; known: {known}")
    return json.loads(path.read_text(encoding="utf-8"))


def results_table() -> str:
    """All records of training runs as a Markdown table: loss beside what gives it meaning."""
    rows = [
        "| run | model | parameters | validation loss: mean (band), seeds | unigram entropy | floor | minutes | on |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path, record in _records("training"):
        loss, corpus = record["val_loss"], record["corpus"]
        floor = "unknown" if corpus["val_floor"] is None else f"{corpus['val_floor']:.3f}"
        minutes = fmean(run["seconds"] for run in record["runs"]) / 60
        rows.append(
            f"| [{path.stem}]({path.name}) | {record['experiment']['model']} on {corpus['corpus']} "
            f"| {record['parameters']['total']:,} | {loss['mean']:.4f} ({loss['min']:.4f} to {loss['max']:.4f}), "
            f"{loss['n']} | {corpus['val_unigram_entropy']:.3f} | {floor} | {minutes:.1f} "
            f"| {_where(record['environment'])} |"
        )
    return "\n".join(rows)


def studies_table() -> str:
    """All records of studies as a Markdown table, a row each: every arm's loss, the best first."""
    rows = [
        "| study | arms: validation loss, mean (band) | seeds | unigram entropy | floor | on |",
        "|---|---|---|---|---|---|",
    ]
    for path, record in _records("study"):
        losses = sorted(((arm["val_loss"], name) for name, arm in record["arms"].items()), key=lambda p: p[0]["mean"])
        told = "<br>".join(
            f"{name}: {loss['mean']:.3f} ({loss['min']:.3f} to {loss['max']:.3f})" for loss, name in losses
        )
        corpus = record["corpus"] or {}
        unigram, floor = (
            "differs" if not corpus else "unknown" if corpus[key] is None else f"{corpus[key]:.3f}"
            for key in ("val_unigram_entropy", "val_floor")
        )
        rows.append(
            f"| [{path.stem}]({path.name}) | {told} | {losses[0][0]['n']} | {unigram} | {floor} "
            f"| {_where(record['environment'])} |"
        )
    return "\n".join(rows)


def _records(kind: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All records of one kind with their paths, by name."""
    for path in sorted(results_dir().glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("kind") == kind:
            yield path, record


def _where(machine: dict[str, str | int]) -> str:
    return f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, {machine['date']}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
