"""The tables that nobody types: notebooks and verdicts in the README, every run and every claim beside its records.

Each stands between two marks, `<!-- claims:begin -->` and `<!-- claims:end -->`, in the page that `PAGES` names;
`notebooks stamp` and `notebooks execute` write them, `notebooks check` and a test compare them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from kancourse.lab.records import results_table, studies_table
from kancourse.lesson.bootstrap import BADGE, ROOT, badge_line
from kancourse.lesson.claims import FAILS, HOLDS, Claim, cell, load
from kancourse.lesson.document import tags
from kancourse.paths import data_dir

PAGES = {  # the tables of each page
    "README.md": ("notebooks", "tools", "verdicts"),
    "data/results/README.md": ("results", "studies"),
    "data/claims/README.md": ("claims",),
}


@dataclass(kw_only=True)
class TableArgs:
    """Where the tables come from and go to."""

    root: Path = ROOT  # the folder of the README
    notebooks: Path = ROOT / "notebooks"
    claims: Path | None = None  # the folder of stored claims; None: data/claims
    check: bool = False  # only compare, write nothing


def refresh(args: TableArgs, address: str | None) -> dict[str, Path]:
    """Write the tables; returns those that were out of date, with the page of each.

    Args:
        address: the course's public address, for the badges.

    Raises:
        ValueError: a page lacks a pair of marks, or a stored claim's verdict does not follow from its numbers.
    """
    stored = [load(path) for path in sorted((args.claims or data_dir() / "claims").glob("*.json"))]
    notebooks = [(path.name, nbformat.read(path, as_version=4)) for path in sorted(args.notebooks.glob("*.ipynb"))]
    tables = {
        "notebooks": notebooks_table([pair for pair in notebooks if _card(pair[1])], address),
        "tools": tools_table([pair for pair in notebooks if not _card(pair[1])], address),
        "verdicts": verdicts_table(stored, {name: _title(node) for name, node in notebooks}),
        "results": results_table(),
        "studies": studies_table(),
        "claims": claims_table(stored, {name: _title(node) for name, node in notebooks}),
    }
    stale, written = {}, {}
    for name, names in PAGES.items():
        page = args.root / name
        text = page.read_text(encoding="utf-8")
        for table in names:
            fresh = _between(text, table, tables[table], name)
            if fresh != text:
                stale[table] = page
            text = fresh
        written[page] = text
    if not args.check:
        for page in set(stale.values()):
            page.write_text(written[page], encoding="utf-8")
    return stale


def notebooks_table(lessons: Sequence[tuple[str, NotebookNode]], address: str | None) -> str:
    """A row per lesson: its title, and what its card says."""
    rows = ["| lesson | you will build | you need first | minutes on a CPU | last verified |", "|---" * 5 + "|"]
    for name, node in lessons:
        card = _card(node)
        minutes, (date, *_) = card["Minutes on a CPU"], card["Last verified"].split()
        rows.append(_row([_link(name, node, address), card["You will build"], card["You need first"], minutes, date]))
    return "\n".join(rows)


def tools_table(tools: Sequence[tuple[str, NotebookNode]], address: str | None) -> str:
    """A row per notebook that is no lesson: its title, and the first sentence of its text."""
    rows = ["| notebook | what it does |", "|---|---|"]
    for name, node in tools:
        text = " ".join(node.cells[0].source.partition(BADGE)[2].partition("\n\n")[2].split())
        rows.append(_row([_link(name, node, address), text.partition(". ")[0].rstrip(".:") + "."]))
    return "\n".join(rows)


def verdicts_table(claims: Sequence[Claim], titles: dict[str, str]) -> str:
    """A row per lesson: how many of its claims hold, fail, or depend on seed or setting; and all together."""
    rows = ["| lesson | claims | hold | fail | depend |", "|---|---|---|---|---|"]
    groups = [(titles.get(name, name), list(made)) for name, made in _by_notebook(claims)]
    for title, made in [*groups, ("all", list(claims))] if claims else []:
        hold, fail = (sum(one.verdict == word for one in made) for word in (HOLDS, FAILS))
        rows.append(_row([title, *map(str, (len(made), hold, fail, len(made) - hold - fail))]))
    return "\n".join(rows)


def claims_table(claims: Sequence[Claim], titles: dict[str, str]) -> str:
    """A table per lesson, with a row per claim and setting."""
    parts = []
    for name, group in _by_notebook(claims):
        rows = ["| claim | who | measured here | against | verdict | seeds | from |", "|---|---|---|---|---|---|---|"]
        for made in group:
            places = (made.provenance.get(key) for key in ("record", "date"))
            told = [made.says, made.who, "", "", made.verdict, made.strength, ", ".join(filter(None, places))]
            for index, setting in enumerate(made.measured):
                measured, against = made.numbers(setting)
                row = list(told) if index == 0 else [""] * len(told)
                row[2] = f"{setting + ': ' if setting else ''}{measured}{' ' + made.unit if made.unit else ''}"
                rows.append(_row([*row[:3], against, *row[4:]]))
        parts.append(f"## {titles.get(name, name)}\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def _between(text: str, name: str, table: str, page: str) -> str:
    """A page's text with a table between its marks; of a table without rows, nothing."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{page} needs one line '{begin}' and, below it, one line '{end}'")
    before, rest = text.split(begin)
    body = f"{table}\n" if len(table.splitlines()) > 2 else ""
    return f"{before}{begin}\n{body}{end}{rest.split(end)[1]}"


def _by_notebook(claims: Sequence[Claim]) -> list[tuple[str, list[Claim]]]:
    """Claims by the notebook that makes them, in the order of the course."""

    def notebook(made: Claim) -> str:
        return made.provenance.get("notebook") or ""

    return [(name, list(made)) for name, made in groupby(sorted(claims, key=notebook), notebook)]


def _title(node: NotebookNode) -> str:
    return node.cells[0].source.splitlines()[0].removeprefix("# ")


def _link(name: str, node: NotebookNode, address: str | None) -> str:
    return f"[{_title(node)}](notebooks/{name}){badge_line(name, address).removeprefix(BADGE)}"


def _card(node: NotebookNode) -> dict[str, str]:
    """What a lesson's card says, by label; a value may go on in the next lines. Empty for a notebook without one."""
    text = next((one.source for one in node.cells if "card" in tags(one)), "")
    items = [" ".join(item.split()) for item in text.removeprefix("- **").split("\n- **")] if text else []
    return dict(item.split(":** ", 1) for item in items)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(cell, cells)) + " |"
