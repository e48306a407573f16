"""Local files: which files a folder holds for a corpus, for which part each is, and their hashes.

- `$KANCOURSE_DATA/<name>/` may hold a downloaded copy of the Hub repository, files as published elsewhere, or only some
  of the parts.
"""

import hashlib
import os
import re
from pathlib import Path

from kancourse.lab.archives import ARCHIVE_SUFFIX
from kancourse.lab.parsing import TABLE_SUFFIXES, TEXT_SUFFIXES, part_of
from kancourse.lab.sources import CORPORA
from kancourse.lab.token_cache import fingerprint

HASHED_WHOLE = 1 << 30  # bytes
MANY_FILES = 100  # more are named in a record by one hash for all


def local_folder(name: str) -> Path | None:
    """`$KANCOURSE_DATA/<name>` when it holds readable files, else None."""
    root = os.environ.get("KANCOURSE_DATA")
    folder = Path(root, name) if root else None
    return folder if folder and folder.is_dir() and files_by_part(folder) else None


def works_now() -> str:
    """The corpora that need no network on this machine, for messages."""
    return ", ".join(["microworld", *(name for name in CORPORA if local_folder(name)), "any text file by its path"])


def files_by_part(folder: Path) -> dict[str, list[Path]]:
    """Readable files by part: "train", "val", "test", or "all" for names that say nothing; "archive" for archives."""
    parts: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(ARCHIVE_SUFFIX):
            parts.setdefault("archive", []).append(path)
        elif path.suffix in TEXT_SUFFIXES + TABLE_SUFFIXES and not re.match("readme|licen[cs]e", path.stem.lower()):
            parts.setdefault(part_of(path.relative_to(folder)), []).append(path)
    return parts


def hashes_of(paths: list[Path]) -> dict[str, str]:
    """The sha256 of each file, by its name below the folder that holds them all."""
    root = Path(os.path.commonpath([path.parent for path in paths]))
    return {path.relative_to(root).as_posix(): file_sha256(path) for path in paths}


def few_hashes(hashes: dict[str, str]) -> dict[str, str]:
    """Files and their hashes; of very many, how many there are and one hash of them all."""
    if len(hashes) <= MANY_FILES:
        return hashes
    listed = "\n".join(f"{sha}  {name}" for name, sha in sorted(hashes.items()))
    return {f"{len(hashes)} files": hashlib.sha256(listed.encode()).hexdigest()}


def file_sha256(path: Path) -> str:
    """The file's sha256; of a very large file, that of its two ends, and its length."""
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path.name} is empty: there is no text to learn from")
    if size > HASHED_WHOLE:  # hashing 40 GB at every start would take longer than a lesson
        return f"{fingerprint(path)['ends_sha256']} (ends of {size} bytes)"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
