"""Where documents come from: a local folder first, then a download; and exactly what was found, for key and record.

- A local folder may hold a downloaded copy of the Hub repository, plain text files, or only some of the parts: then the
  note says what stands in for what.
- Nothing is fetched before it is read; without a network one sentence says where to put a file and what works now.
"""

import hashlib
import os
import re
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kancourse.lab.parsing import (
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    assemble,
    columns_of,
    documents_of_files,
    is_one_text,
)
from kancourse.lab.sources import CORPORA, Row
from kancourse.lab.token_cache import fingerprint
from kancourse.paths import cache_dir

HASHED_WHOLE = 1 << 30  # bytes


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A corpus ready to be read.

    Attributes:
        parts: documents by part, {"all": …} still to be split or {"train": …, "val": …}; each call starts afresh.
        identity: what is read, as JSON types: file names (within their folder) and sha256, or repository and revision.
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
    together = [path for paths in parts.values() for path in paths]
    root = Path(os.path.commonpath([path.parent for path in together]))
    hashes = {path.relative_to(root).as_posix(): _sha256(path) for path in together}
    if row.sha256 and row.sha256 not in hashes.values():
        raise ValueError(
            f"{', '.join(hashes)} in the local folder is not the published {row.name} (sha256 {row.sha256[:12]}…, got "
            f"{next(iter(hashes.values()))[:12]}…); fetch it again, or pass a path to use a text of your own"
        )
    one_text = "all" in parts and all(is_one_text(path, row) for path in parts["all"])
    readers = {part: partial(documents_of_files, paths, row) for part, paths in parts.items()}
    return Opened(parts=readers, identity=identity or {"files": hashes}, by_position=one_text, note=note)


def _sha256(path: Path) -> str:
    """The file's sha256; of a very large file, that of its two ends, and its length."""
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path.name} is empty: there is no text to learn from")
    if size > HASHED_WHOLE:  # hashing 40 GB at every start would take longer than a lesson
        return f"{fingerprint(path)['ends_sha256']} (ends of {size} bytes)"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _offline(row: Row, cause: Exception) -> ConnectionError:
    place = "input.txt" if row.url else "train and validation files (.parquet, .jsonl or .txt)"
    reason = (str(cause).splitlines() or [type(cause).__name__])[0][:200]
    return ConnectionError(
        f"cannot download {row.name} ({reason}); to work offline put {place} into "
        f"$KANCOURSE_DATA/{row.name}/; without a network these work now: {works_now()}"
    )


def _hub_documents(row: Row, split: str) -> Iterator[str]:
    import datasets  # both here, because they take a second to import and most runs never need them
    from huggingface_hub.errors import HTTPError  # whatever HTTP library the hub's client uses

    try:
        rows = datasets.load_dataset(
            row.repo, row.config, split=split, revision=row.revision, streaming=row.streamed
        ).select_columns(columns_of(row))
        yield from assemble((tuple(record[column] for column in columns_of(row)) for record in rows), row)
    except (OSError, HTTPError) as error:
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
