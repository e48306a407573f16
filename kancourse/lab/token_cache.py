"""The token cache: ids of a corpus as files, made once, found again by a hash of everything that made them.

- A cache folder appears by one rename of a finished temporary folder: whoever looks sees a whole cache or none, after
  a kill at any moment and with any number of writers at once.
- Opening checks each file's length and the sha256 of its two ends; what was cut short or replaced is made again.
- Writing appends documents, so a streamed corpus never sits in memory.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kancourse.lab.tokens import TokenArray, id_type
from kancourse.paths import cache_dir

FORMAT = 1  # raise when the files below change meaning: old caches are then left alone and new ones made
_ENDS = 1 << 20  # bytes hashed at each end of a file
_CHUNK = 1 << 22  # tokens held back before a write
_DAMAGE = (ValueError, KeyError, TypeError, OSError)  # what reading a foreign or cut cache can raise

log = logging.getLogger(__name__)


class SplitWriter(contextlib.AbstractContextManager):
    """Appends documents to the files of one split; holds no more than a few million tokens in memory."""

    def __init__(self, folder: Path, split: str, *, eot_id: int, vocab_size: int):
        self._files = {name: (folder / f"{split}.{name}").open("xb") for name in ("ids", "starts")}
        self._ids: list[np.ndarray] = []
        self._starts: list[int] = []
        self._waiting = 0
        self._closing = np.array([eot_id], dtype=id_type(vocab_size))
        self.facts = {"split": split, "eot_id": eot_id, "vocab_size": vocab_size}
        self.facts |= {"n_tokens": 0, "n_characters": 0, "n_bytes": 0, "log_prob": 0.0}

    def add(self, ids: np.ndarray, text: str, log_prob: float | None) -> None:
        """One document: its ids without end-of-text, its text (for the counts), its log-probability if known."""
        self._starts.append(self.facts["n_tokens"])
        self._ids += [ids.astype(self._closing.dtype), self._closing]
        self._waiting += len(ids) + 1
        self.facts["n_tokens"] += len(ids) + 1
        self.facts["n_characters"] += len(text)
        self.facts["n_bytes"] += len(text.encode("utf-8"))
        known = log_prob is not None and self.facts["log_prob"] is not None
        self.facts["log_prob"] = self.facts["log_prob"] + log_prob if known else None
        if self._waiting >= _CHUNK:
            self._write()

    def _write(self) -> None:
        if self._ids:
            self._files["ids"].write(np.concatenate(self._ids).tobytes())
            self._files["starts"].write(np.array(self._starts, dtype=np.int64).tobytes())
        self._ids, self._starts, self._waiting = [], [], 0

    def __exit__(self, *_) -> None:
        for file in self._files.values():
            file.close()

    def finish(self) -> dict:
        """Write what waits, make it durable, and return the split's facts with its files' fingerprints."""
        self._write()
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self.facts["files"] = {name: fingerprint(Path(file.name)) for name, file in self._files.items()}
        return self.facts


def fingerprint(path: Path) -> dict:
    """Length and sha256 of the two ends of a file: cheap at any size, and enough to notice a cut or foreign file."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_ENDS))
        file.seek(max(0, size - _ENDS))
        digest.update(file.read(_ENDS))
    return {"bytes": size, "ends_sha256": digest.hexdigest()}


def cache_key(made_from: Mapping) -> str:
    """The name of a cache folder: a hash of everything that made it (JSON types), the file format included."""
    text = json.dumps({"format": FORMAT, **made_from}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def open_or_build(made_from: Mapping, build: Callable[[Path], dict]) -> dict:
    """The facts of the cached corpus made from `made_from`, its splits as `TokenArray`s under "splits".

    Arguments:
        made_from: everything that decides the content; a cache is found again only when all of it is equal.
        build: writes the files into the (temporary) folder it is given and returns the facts to keep as JSON, with
            what `SplitWriter.finish` returned under "splits".

    Raises:
        OSError: the cache folder cannot be written; the message says how to choose another.
    """
    key = cache_key(made_from)
    try:
        root = cache_dir() / "tokens"
        folder, temporary = root / key, root / f".making-{uuid.uuid4().hex}"
        if folder.exists():
            try:
                return _open(folder)
            except _DAMAGE as error:
                log.warning("the token cache %s is damaged (%s); making it again", folder, error)
        root.mkdir(exist_ok=True)
        _sweep(root)
        temporary.mkdir()
    except OSError as error:
        raise OSError(f"cannot write the token cache ({error}); set KANCOURSE_CACHE to a folder you own") from error
    try:
        facts = build(temporary)
        with (temporary / "facts.json").open("x", encoding="utf-8") as file:
            json.dump(facts, file)
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno, f"no room for tokens in {root}; set KANCOURSE_CACHE to a disk with room"
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _open(folder)


def _publish(temporary: Path, folder: Path) -> None:
    """Rename into place; an earlier whole cache wins (same content), a damaged one is moved out of the way."""
    try:
        os.rename(temporary, folder)
    except OSError:  # the folder exists: somebody was faster, or it is the damaged one
        try:
            _open(folder)
        except _DAMAGE:
            aside = folder.with_name(f".making-{uuid.uuid4().hex}")
            os.rename(folder, aside)
            os.rename(temporary, folder)
            shutil.rmtree(aside, ignore_errors=True)


def _open(folder: Path) -> dict:
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    splits = {}
    for split in facts["splits"]:
        arrays = {}
        for name, kind in (("ids", id_type(split["vocab_size"])), ("starts", np.int64)):
            path = folder / f"{split['split']}.{name}"
            if (found := fingerprint(path)) != split["files"][name]:
                raise ValueError(f"{path.name} has {found['bytes']:,} bytes, not the ones that were written")
            arrays[name] = np.asarray(np.memmap(path, dtype=kind, mode="r"))
        numbers = {name: split[name] for name in ("eot_id", "vocab_size", "n_characters", "n_bytes", "log_prob")}
        splits[split["split"]] = TokenArray(**arrays, **numbers)
    return facts | {"splits": splits}


def _sweep(root: Path) -> None:
    """Remove temporary folders untouched for a day: what killed writers left behind."""
    for left in root.glob(".making-*"):
        with contextlib.suppress(FileNotFoundError):  # its writer has just finished
            newest = max(path.stat().st_mtime for path in [left, *left.iterdir()])
            if time.time() - newest > 86_400:
                shutil.rmtree(left, ignore_errors=True)
