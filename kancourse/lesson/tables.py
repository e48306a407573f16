"""The README's tables, written from what they are about: notebooks, recorded runs and studies, and claims.

Each stands between two marks, `<!-- claims:begin -->` and `<!-- claims:end -->`; `notebooks stamp` and `notebooks
execute` write them, `notebooks check` and a test compare them. Nobody types a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from kancourse.lab.records import results_table, studies_table
from kancourse.lesson.bootstrap import BADGE, ROOT, badge_line
from kancourse.lesson.claims import Claim, cell, load
from kancourse.lesson.contract import CARD
from kancourse.lesson.document import tags
from kancourse.paths import data_dir


@dataclass(kw_only=True)
class ReadmeArgs:
    """Where the tables come from and go to."""

    readme: Path = ROOT / "README.md"
    notebooks: Path = ROOT / "notebooks"
    claims: Path | None = None  # the folder of stored claims; None: data/claims
    check: bool = False  # only compare, write nothing


def refresh(args: ReadmeArgs, address: str | None) -> list[str]:
    """Write the tables; returns the names of those that were out of date.

    Args:
        address: the course's public address, for the badges.

    Raises:
        ValueError: the README lacks a pair of marks, or a stored claim's verdict does not follow from its numbers.
    """
    stored = [load(path) for path in sorted((args.claims or data_dir() / "claims").glob("*.json"))]
    tables = {
        "notebooks": notebooks_table(sorted(args.notebooks.glob("*.ipynb")), address),
        "results": results_table(),
        "studies": studies_table(),
        "claims": claims_table(stored),
    }
    text, stale = args.readme.read_text(encoding="utf-8"), []
    for name, table in tables.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise ValueError(f"{args.readme.name} needs one line '{begin}' and, below it, one line '{end}'")
        before, rest = text.split(begin)
        body = f"{table}\n" if len(table.splitlines()) > 2 else ""  # no heading without a row
        fresh = f"{before}{begin}\n{body}{end}{rest.split(end)[1]}"
        if fresh != text:
            stale.append(name)
        text = fresh
    if stale and not args.check:
        args.readme.write_text(text, encoding="utf-8")
    return stale


def notebooks_table(paths: Sequence[Path], address: str | None) -> str:
    """One row per notebook: its title, and what its card says. A tool notebook without a card has its title only."""
    rows = ["| notebook | " + " | ".join(label.lower() for label in CARD) + " |", "|---" * (len(CARD) + 1) + "|"]
    for path in paths:
        cells = nbformat.read(path, as_version=4).cells
        title = cells[0].source.splitlines()[0].removeprefix("# ")
        badge = badge_line(path.name, address).removeprefix(BADGE)
        card = next((one.source for one in cells if "card" in tags(one)), "")
        told = {line.split(":** ")[0]: line.split(":** ")[1] for line in card.splitlines() if ":** " in line}
        rows.append(
            _row([f"[{title}](notebooks/{path.name}){badge}", *(told.get(f"- **{label}", "") for label in CARD)])
        )
    return "\n".join(rows)


def claims_table(claims: Sequence[Claim]) -> str:
    """One row per claim and setting."""
    rows = ["| claim | who | measured here | against | verdict | seeds | where |", "|---|---|---|---|---|---|---|"]
    for made in claims:
        places = [made.provenance.get(key) for key in ("notebook", "record", "date")]
        where = ", ".join(place for place in places if place)
        for index, setting in enumerate(made.measured):
            measured, against = made.numbers(setting)
            says, who, verdict = (made.says, made.who, made.verdict) if index == 0 else ("", "", "")
            told = f"{setting + ': ' if setting else ''}{measured}{' ' + made.unit if made.unit else ''}"
            rows.append(_row([says, who, told, against, verdict, made.strength, where]))
    return "\n".join(rows)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(cell, cells)) + " |"
