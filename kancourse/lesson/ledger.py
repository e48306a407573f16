"""The claims ledger: every stored claim as one row of a table in the README, written from `data/claims/*.json`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kancourse.lesson.claims import Claim, cell, load
from kancourse.paths import PACKAGE, data_dir

BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"


@dataclass(kw_only=True)
class LedgerArgs:
    """Arguments of `python -m kancourse claims ledger`."""

    check: bool = False  # only compare, write nothing
    readme: Path = PACKAGE.parent / "README.md"
    folder: Path | None = None  # of the stored claims; None: data/claims


def table(claims: Sequence[Claim]) -> str:
    """A Markdown table: one row per claim and setting."""
    rows = ["| Claim | Who | Measured here | Against | Verdict | Seeds | Where |", "|---|---|---|---|---|---|---|"]
    for made in claims:
        where = ", ".join(
            str(made.provenance[key]) for key in ("notebook", "record", "date") if made.provenance.get(key)
        )
        for index, setting in enumerate(made.measured):
            measured, against = made.numbers(setting)
            says, who, verdict = (made.says, made.who, made.verdict) if index == 0 else ("", "", "")
            told = [says, who, f"{setting + ': ' if setting else ''}{measured}{' ' + made.unit if made.unit else ''}"]
            rows.append("| " + " | ".join(map(cell, [*told, against, verdict, made.strength, where])) + " |")
    return "\n".join(rows)


def ledger(args: LedgerArgs) -> bool:
    """Write the table between the README's two marks; True when it was up to date.

    Raises:
        ValueError: the README has no marks, or a stored claim's verdict does not follow from its numbers.
    """
    text = args.readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{args.readme.name} needs one line '{BEGIN}' and, below it, one line '{END}'")
    stored = [load(path) for path in sorted((args.folder or data_dir() / "claims").glob("*.json"))]
    before, rest = text.split(BEGIN)
    body = f"{table(stored)}\n" if stored else ""
    fresh = f"{before}{BEGIN}\n{body}{END}{rest.split(END)[1]}"
    if fresh != text and not args.check:
        args.readme.write_text(fresh, encoding="utf-8")
    return fresh == text
