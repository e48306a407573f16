"""From files and downloads to documents: reads what `sources.py` names, a document at a time.

- `open_source` finds a corpus (local folder first, then download) and says exactly what it found: that goes into the
  cache key and into every record.
- A large file or set streams through; only a corpus that is one single text is held whole.
- What cannot work ends in one sentence: not UTF-8, empty, no such column, another file than published, no network.
"""

import hashlib
import json
import os
import re
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import httpx
import pyarrow
import pyarrow.parquet

from kancourse.lab.sources import CORPORA, Row
from kancourse.lab.tokenizers import EOT_TEXT
from kancourse.paths import cache_dir

TEXT_SUFFIXES = (".txt", ".raw", ".tokens")
TABLE_SUFFIXES = (".parquet", ".jsonl")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A corpus ready to be read.

    Attributes:
        parts: documents by part, {"all": …} still to be split or {"train": …, "val": …}; each call starts afresh.
        identity: what is read, as JSON types: file names with their sha256, or repository and revision.
        by_position: "all" is one text, to be split at a position and not by document.
        note: what a reader of the numbers must know, or "".
    """

    parts: dict[str, Callable[[], Iterator[str]]]
    identity: dict
    by_position: bool = False
    note: str = ""


def open_source(row: Row) -> Opened:
    """The corpus of a table row: from `$KANCOURSE_DATA/<name>/` if there are files, else downloaded when first read.

    Raises:
        ValueError: a local file is empty, or not the published one.
        ConnectionError: a single file that is neither here nor to be had (Hub sets raise it when read).
    """
    if folder := local_folder(row.name):
        return _open_folder(row, folder)
    if row.url:
        return _open_files(row, {"all": [_download(row)]}, identity={"url": row.url, "sha256": row.sha256})
    keys = ("train", "val") if len(row.splits) == 2 else ("all",)
    parts = {key: partial(_hub_documents, row, split) for key, split in zip(keys, row.splits, strict=True)}
    return Opened(parts=parts, identity={"repo": row.repo, "config": row.config, "revision": row.revision})


def open_file(path: Path) -> Opened:
    """A user's own file: documents divided by <|endoftext|> lines, one text if there are none; or a .parquet or .jsonl
    table with a column `text`.

    Raises:
        FileNotFoundError: no such file; the message lists the named corpora.
        ValueError: it is empty or not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; named corpora: microworld, {', '.join(CORPORA)}")
    return _open_files(Row(name=path.name, licence="your own", about="a file of your own"), {"all": [path]})


def local_folder(name: str) -> Path | None:
    """`$KANCOURSE_DATA/<name>` when it holds readable files, else None."""
    root = os.environ.get("KANCOURSE_DATA")
    folder = Path(root, name) if root else None
    return folder if folder and folder.is_dir() and _files_by_part(folder) else None


def works_now() -> str:
    """The corpora that need no network on this machine, for messages."""
    return ", ".join(["microworld", *(name for name in CORPORA if local_folder(name)), "any text file by its path"])


def _files_by_part(folder: Path) -> dict[str, list[Path]]:
    parts: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in TEXT_SUFFIXES + TABLE_SUFFIXES and not re.match("readme|licen[cs]e", path.stem.lower()):
            found = re.search(r"(?:^|[^a-z])(train|val|test)", path.stem.lower())
            parts.setdefault(found[1] if found else "all", []).append(path)
    return parts


def _open_folder(row: Row, folder: Path) -> Opened:
    if row.config and (folder / row.config).is_dir():
        folder = folder / row.config  # a downloaded copy of the Hub repository
    found = _files_by_part(folder)
    note = ""
    if "train" in found and "val" in found:
        parts = {"train": found["train"], "val": found["val"]}
    elif "test" in found and ("train" in found or "val" in found):
        here, gone = ("train", "validation") if "train" in found else ("val", "training")
        parts = {"train": found[here], "val": found["test"]}
        names = [parts[part][0].name for part in parts]
        note = f"the local folder has no {gone} part: {names[0]} is trained on and {names[1]} is the validation split"
    else:
        part, parts = next((part, {"all": found[part]}) for part in ("train", "all", "val", "test") if part in found)
        if part in ("val", "test"):
            note = f"the local folder has only {parts['all'][0].name}: it is split into training and validation"
    return _open_files(row, parts, note=note)


def _open_files(row: Row, parts: dict[str, list[Path]], *, identity: dict | None = None, note: str = "") -> Opened:
    hashes = {path.name: _sha256(path) for paths in parts.values() for path in paths}
    if row.sha256 and row.sha256 not in hashes.values():
        raise ValueError(
            f"{', '.join(hashes)} in the local folder is not the published {row.name} (sha256 {row.sha256[:12]}…, got "
            f"{next(iter(hashes.values()))[:12]}…); fetch it again, or pass a path to use a text of your own"
        )
    one_text = "all" in parts and all(_is_one_text(path, row) for path in parts["all"])
    readers = {part: partial(_documents_of_files, paths, row) for part, paths in parts.items()}
    return Opened(parts=readers, identity=identity or {"files": hashes}, by_position=one_text, note=note)


def _is_one_text(path: Path, row: Row) -> bool:
    if path.suffix in TABLE_SUFFIXES or row.documents == "wikitext":
        return False
    return row.documents == "whole" or not any(line.strip() == EOT_TEXT for line in _lines(path))


def _documents_of_files(paths: Sequence[Path], row: Row) -> Iterator[str]:
    for path in paths:
        if path.suffix in TABLE_SUFFIXES:
            yield from _assemble(_table_rows(path, _columns(row)), row)
        elif row.documents == "wikitext":
            yield from wikitext_articles(_lines(path))
        elif _is_one_text(path, row):
            yield "".join(_lines(path))
        else:
            for divider, lines in groupby(_lines(path), key=lambda line: line.strip() == EOT_TEXT):
                if not divider:
                    yield "".join(lines).strip()


def _columns(row: Row) -> list[str]:
    rule, _, column = row.documents.partition(":")
    return [row.text_column, column] if rule == "group" else [row.text_column]


def _assemble(rows: Iterable[tuple], row: Row) -> Iterator[str]:
    """Documents from table rows (text, or text and group)."""
    if row.documents == "wikitext":
        yield from wikitext_articles(text or " \n" for (text,) in rows)  # its tables hold "" for a blank line
    elif row.documents.startswith("group:"):
        for _, members in groupby(rows, key=lambda pair: pair[1]):
            yield "\n\n".join(text for text, _ in members if text)
    else:
        yield from (text for (text,) in rows if text)


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


def _sha256(path: Path) -> str:
    if path.stat().st_size == 0:
        raise ValueError(f"{path.name} is empty: there is no text to learn from")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _offline(row: Row, cause: Exception) -> ConnectionError:
    place = "input.txt" if row.url else "train and validation files (.parquet, .jsonl or .txt)"
    return ConnectionError(
        f"cannot download {row.name} ({str(cause).splitlines()[0][:200]}); to work offline put {place} into "
        f"$KANCOURSE_DATA/{row.name}/; without a network these work now: {works_now()}"
    )


def _hub_documents(row: Row, split: str) -> Iterator[str]:
    import datasets  # here, because it takes a second to import and most runs never need it

    try:
        rows = datasets.load_dataset(
            row.repo, row.config, split=split, revision=row.revision, streaming=row.streamed
        ).select_columns(_columns(row))
        yield from _assemble((tuple(record[column] for column in _columns(row)) for record in rows), row)
    except (OSError, httpx.HTTPError) as error:
        raise _offline(row, error) from error


def _download(row: Row) -> Path:
    path = cache_dir() / "downloads" / row.sha256 / "input.txt"
    if path.is_file() and _sha256(path) == row.sha256:
        return path
    try:
        if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            raise ConnectionError("HF_HUB_OFFLINE is set")
        with urllib.request.urlopen(row.url, timeout=60) as answer:
            content = answer.read()
    except OSError as error:
        raise _offline(row, error) from error
    if (found := hashlib.sha256(content).hexdigest()) != row.sha256:
        raise ValueError(f"the download of {row.name} has sha256 {found[:12]}…, expected {row.sha256[:12]}…; try again")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)
    return path
