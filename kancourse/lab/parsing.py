"""From files to documents: lines and table rows in, one document at a time out, whatever the size of the file.

- How a corpus falls into documents is the `documents` rule of its row in `sources.py`.
- A file that cannot be read ends in one sentence: not UTF-8, cut short, no such column, a line that is no JSON.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import pyarrow
import pyarrow.parquet

from kancourse.lab.sources import Row
from kancourse.lab.tokenizers import EOT_TEXT

TEXT_SUFFIXES = (".txt", ".raw", ".tokens")
TABLE_SUFFIXES = (".parquet", ".jsonl")


def is_one_text(path: Path, row: Row) -> bool:
    """Whether the file is a single text: no table, no articles, no line <|endoftext|>."""
    if path.suffix in TABLE_SUFFIXES or row.documents == "wikitext":
        return False
    return row.documents == "whole" or not any(line.strip() == EOT_TEXT for line in _lines(path))


def documents_of_files(paths: Sequence[Path], row: Row) -> Iterator[str]:
    """The documents of text files and tables, in order.

    Raises:
        ValueError: a file that cannot be read; the message names the file and the reason.
    """
    for path in paths:
        if path.suffix in TABLE_SUFFIXES:
            yield from assemble(_table_rows(path, columns_of(row)), row)
        elif row.documents == "wikitext":
            yield from wikitext_articles(_lines(path))
        elif is_one_text(path, row):
            yield "".join(_lines(path))
        else:
            for divider, lines in groupby(_lines(path), key=lambda line: line.strip() == EOT_TEXT):
                if not divider:
                    yield "".join(lines).strip()


def columns_of(row: Row) -> list[str]:
    """The columns that make documents: the text, and the group where passages are joined by one."""
    rule, _, column = row.documents.partition(":")
    return [row.text_column, column] if rule == "group" else [row.text_column]


def assemble(rows: Iterable[tuple], row: Row) -> Iterator[str]:
    """Documents from table rows (text, or text and group); a missing text is skipped.

    Raises:
        ValueError: the text column holds something else.
    """
    rows = (values for values in rows if _is_text(values[0], row))
    if row.documents == "wikitext":
        yield from wikitext_articles(text or " \n" for (text,) in rows)  # its tables hold "" for a blank line
    elif row.documents.startswith("group:"):
        for _, members in groupby(rows, key=lambda pair: pair[1]):
            yield "\n\n".join(text for text, _ in members)
    else:
        yield from (text for (text,) in rows)


def _is_text(value: object, row: Row) -> bool:
    if not isinstance(value, str | None):
        raise ValueError(f"the column {row.text_column!r} of {row.name} holds {type(value).__name__}, not text")
    return value is not None


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


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # a byte-order mark is no part of the text
            yield from file
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(
            f"{path.name} is not UTF-8 text (byte 0x{byte:02x} is out of place); convert it first"
        ) from None


def _table_rows(path: Path, columns: list[str]) -> Iterator[tuple]:
    if path.suffix == ".jsonl":
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                yield tuple(record[column] for column in columns)
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                wanted = " and ".join(repr(column) for column in columns)
                raise ValueError(f"line {number} of {path.name} is not a JSON object with {wanted}") from error
        return
    try:
        table = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path.name} is not a Parquet file: it is cut short or something else") from error
    with table:
        if missing := [column for column in columns if column not in table.schema_arrow.names]:
            raise ValueError(f"{path.name} has no column {missing[0]!r}; it has: {', '.join(table.schema_arrow.names)}")
        for batch in table.iter_batches(columns=columns):
            yield from zip(*(batch.column(column).to_pylist() for column in columns), strict=True)
