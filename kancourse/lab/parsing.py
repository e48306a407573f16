"""From files to documents: lines and records in, one `Example` at a time out, whatever the size of the file.

- How a corpus falls into documents is the `documents` rule of its row in `sources.py`; how a record becomes one, its
  layout in `layouts.py`.
- A file may lie in a folder or in a .tar.gz: it is a name and a way to open it (`archives.py`).
- A file that cannot be read ends in one sentence: not UTF-8, cut short, no such column, a line that is no JSON.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

from kancourse.lab.layouts import LAYOUTS, Example, Layout, Slot, checked, pick
from kancourse.lab.sources import Row
from kancourse.lab.tokenizers import EOT_TEXT

TEXT_SUFFIXES = (".txt", ".raw", ".tokens")
TABLE_SUFFIXES = (".parquet", ".jsonl", ".json")
Open = Callable[[], BinaryIO]


def is_one_text(path: Path, row: Row) -> bool:
    """Whether the file is a single text: no table, no articles, no line <|endoftext|>."""
    if path.suffix in TABLE_SUFFIXES or row.layout or row.documents in ("wikitext", "line"):
        return False
    return row.documents == "whole" or not any(
        line.strip() == EOT_TEXT for line in _lines(path, lambda: open(path, "rb"))
    )


def examples_of_file(path: PurePath, open_file: Open, row: Row) -> Iterator[Example]:
    """The documents of one text file or table, in order, each with its domain where the row tells where to find it.

    Raises:
        ValueError: a file that cannot be read; the message names the file and the reason.
    """
    if path.suffix in TABLE_SUFFIXES:
        found = assemble(_records(path, open_file, slots_of(row)), row)
    elif row.documents == "wikitext":
        found = (Example(article) for article in wikitext_articles(_lines(path, open_file)))
    elif row.documents == "line":
        found = (Example(line) for line in _cut_lines(path, open_file))
    elif row.documents == "problem":
        found = exercises(_lines(path, open_file))
    elif row.layout:
        columns = ", ".join(slot[0] for slot in LAYOUTS[row.layout].columns)
        raise ValueError(f"{path.name} is text, and {row.name} needs a table with the columns {columns}")
    else:
        found = (Example(text) for text in _divided(path, open_file, row))
    if row.domain is None or row.domain.startswith("column:"):
        yield from found
    else:
        domain = domain_of(path, row)
        yield from (example._replace(domain=domain) for example in found)


def domain_of(path: PurePath, row: Row) -> str:
    """The domain that a file's place tells: the folder it lies in, or a named folder with the one below it.

    A folder called by a number is no domain.
    """
    rule, _, names = row.domain.partition(":")
    folders = path.parts[:-1]
    if rule == "path":
        known = [index for index, folder in enumerate(folders) if folder.lower() in names.split("|")]
        found = folders[known[-1] : known[-1] + 2] if known else ("other",)
        return "/".join(folder.lower() for folder in found if not folder.isdecimal())
    return folders[-1] if folders else row.name


def part_of(path: PurePath) -> str:
    """The part that a file's name tells, or else the nearest folder's; "all" where none does."""
    for name in (path.stem, *reversed(path.parts[:-1])):
        if found := re.search(r"(?:^|[^a-z])(train|val|test)", name.lower()):
            return found[1]
    return "all"


def slots_of(row: Row) -> list[Slot]:
    """The columns that make documents: those of the layout, or the text; then group and domain, where there are any."""
    slots = list(LAYOUTS[row.layout].columns) if row.layout else [(row.text_column,)]
    for rule, _, column in (row.documents.partition(":"), (row.domain or "").partition(":")):
        if rule in ("group", "column"):
            slots.append((column,))
    return slots


def assemble(records: Iterable[tuple], row: Row) -> Iterator[Example]:
    """Documents from records (values in the order of `slots_of`); one without its text is skipped.

    Raises:
        ValueError: a text column holds something else.
    """
    layout = LAYOUTS[row.layout] if row.layout else Layout(((row.text_column,),), Example)
    names = [slot[0] for slot in layout.columns]
    rows = (
        (
            [checked(value, name, row.name, lists=layout.lists) for value, name in zip(values, names, strict=False)],
            values[len(names) :],
        )
        for values in records
    )
    rows = ((texts, labels) for texts, labels in rows if None not in texts)
    if row.layout:
        for texts, labels in rows:
            yield layout.make(*texts)._replace(domain=labels[-1] if labels else None)
    elif row.documents == "wikitext":
        lines = (texts[0] or " \n" for texts, _ in rows)  # its tables hold "" for a blank line
        yield from map(Example, wikitext_articles(lines))
    elif row.documents.startswith("group:"):
        for _, members in groupby(rows, key=lambda pair: pair[1]):
            yield Example("\n\n".join(texts[0] for texts, _ in members))
    else:
        yield from (Example(texts[0]) for texts, _ in rows)


def wikitext_articles(lines: Iterable[str]) -> Iterator[str]:
    """Cut WikiText into articles: a new one begins at a line " = Title = " after a blank line."""
    article: list[str] = []
    blank = True
    for line in lines:
        title = blank and re.fullmatch(r"= [^=\s].* =", line.strip()) and not line.strip().endswith("= =")
        if title and "".join(article).strip():
            yield "".join(article)
            article = []
        article.append(line if line.endswith("\n") else line + "\n")
        blank = not line.strip()
    if "".join(article).strip():
        yield "".join(article)


def exercises(lines: Iterable[str]) -> Iterator[Example]:
    """AMPS's Mathematica files: a line "Problem:", the problem, then "Answer:" and an answer, perhaps several times."""
    parts: list[list[str]] = [[]]  # what stands before, then each section with its heading first
    for line in lines:
        if line.strip() in ("Problem:", "Answer:"):
            parts.append([line.strip()])
        else:
            parts[-1].append(line)
    problem = ""
    for heading, *body in filter(None, parts):
        if heading == "Problem:":
            problem = "".join(body)
        elif heading == "Answer:" and problem.strip():
            yield LAYOUTS["amps"].make(problem, "".join(body))


def _divided(path: PurePath, open_file: Open, row: Row) -> Iterator[str]:
    """One text, or the texts between lines <|endoftext|>."""
    if row.documents == "whole" or not any(line.strip() == EOT_TEXT for line in _lines(path, open_file)):
        yield "".join(_lines(path, open_file))
        return
    for divider, lines in groupby(_lines(path, open_file), key=lambda line: line.strip() == EOT_TEXT):
        if not divider:
            yield "".join(lines).strip()


def _lines(path: PurePath, open_file: Open) -> Iterator[str]:
    try:
        # A byte-order mark is no part of the text.
        with open_file() as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            yield from text
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None


def _cut_lines(path: PurePath, open_file: Open) -> Iterator[str]:
    """Lines of a file that may begin and end in the middle of a letter, as one cut after so many bytes does."""
    with open_file() as file:
        for number, line in enumerate(file):
            at_a_cut = number == 0 or not line.endswith(b"\n")
            try:
                yield line.decode("utf-8", errors="ignore" if at_a_cut else "strict").strip()
            except UnicodeDecodeError as error:
                raise _not_utf8(path, error) from None


def _not_utf8(path: PurePath, error: UnicodeDecodeError) -> ValueError:
    byte = error.object[error.start]
    return ValueError(f"{path.name} is not UTF-8 text (byte 0x{byte:02x} is out of place); convert it first")


def _records(path: PurePath, open_file: Open, slots: list[Slot]) -> Iterator[tuple]:
    """The values of the wanted columns of each record of a table."""
    if path.suffix == ".parquet":
        yield from _parquet(path, open_file, slots)
        return
    if path.suffix == ".json":
        lines: Iterable[tuple[str, str]] = [(path.name, "".join(_lines(path, open_file)))]
    else:
        numbered = enumerate(_lines(path, open_file), 1)
        lines = ((f"line {number} of {path.name}", line) for number, line in numbered if line.strip())
    for where, line in lines:
        try:
            told = json.loads(line)
        except json.JSONDecodeError as error:
            wanted = " and ".join(repr(slot[0]) for slot in slots)
            raise ValueError(f"{where} is not a JSON object with {wanted}") from error
        for record in told if isinstance(told, list) else [told]:
            yield _values(record, slots, where)


def _values(record: Any, slots: list[Slot], where: str) -> tuple:
    if not isinstance(record, Mapping):
        raise ValueError(f"{where} is not a JSON object with {' and '.join(repr(slot[0]) for slot in slots)}")
    return tuple(record[name] for name in pick(slots, list(record), where))


def _parquet(path: PurePath, open_file: Open, slots: list[Slot]) -> Iterator[tuple]:
    with open_file() as file:
        try:
            table = pyarrow.parquet.ParquetFile(file)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{path.name} is not a Parquet file: it is cut short or something else") from error
        columns = pick(slots, table.schema_arrow.names, path.name)
        for batch in table.iter_batches(columns=columns):
            yield from zip(*(batch.column(column).to_pylist() for column in columns), strict=True)
