"""The fixed snapshot: training and validation documents of every level, checked against their sha256 when loaded.

- `data/microworld/level<n>.<part>.txt` holds the texts, with a blank line after each (no document contains one);
  `level<n>.<part>.tsv` has one line per document: its domain and its exact log-probability.
- The parts come from the seed spaces "train" and "val" of `stream`; `write_snapshot` makes the same bytes again.
"""

import hashlib
from functools import cache
from pathlib import Path

from kancourse.lab.microworld.documents import Document, check_level, stream
from kancourse.lab.microworld.slots import LEVELS
from kancourse.paths import data_dir

SEED = 0
SIZES = {  # characters of text, about: training, validation
    1: {"train": 600_000, "val": 80_000},
    2: {"train": 500_000, "val": 80_000},
    3: {"train": 600_000, "val": 100_000},
}
_SUMS = "SHA256SUMS"


def part(level: int, split: str) -> list[Document]:
    """The documents of one part, generated anew."""
    documents, size = [], 0
    for document in stream(SEED, level, split=split):
        if size >= SIZES[level][split]:
            return documents
        documents.append(document)
        size += len(document.text) + 2
    return documents


def render(documents: list[Document], level: int, split: str) -> dict[str, bytes]:
    """The files of one part: name -> content."""
    text = "".join(f"{document.text}\n\n" for document in documents)
    table = "".join(f"{document.domain}\t{document.log_prob!r}\n" for document in documents)
    return {f"level{level}.{split}.txt": text.encode(), f"level{level}.{split}.tsv": table.encode()}


def write_snapshot(folder: Path | None = None) -> None:
    """Generates the snapshot and writes it, with its checksums, to `folder` (default: its place in the data)."""
    folder = folder or data_dir() / "microworld"
    folder.mkdir(parents=True, exist_ok=True)
    sums = []
    for level in LEVELS:
        for split in SIZES[level]:
            for name, content in render(part(level, split), level, split).items():
                (folder / name).write_bytes(content)
                sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    (folder / _SUMS).write_text("".join(sorted(sums, key=lambda line: line.split()[1])))


def _read(folder: Path, name: str) -> str:
    path = folder / name
    listing = folder / _SUMS
    if not path.is_file() or not listing.is_file():
        missing = path if not path.is_file() else listing
        raise FileNotFoundError(f"the microworld snapshot lacks {missing}: reinstall kancourse or run write_snapshot()")
    expected = dict(reversed(line.split()) for line in listing.read_text().splitlines()).get(name)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} was changed: its sha256 is {found}, {_SUMS} says {expected}; reinstall or run write_snapshot()"
        )
    return content.decode()


def load(folder: Path, level: int, split: str) -> tuple[Document, ...]:
    """One part of a snapshot. ValueError when a file differs from its checksum, FileNotFoundError when one is gone."""
    texts = _read(folder, f"level{level}.{split}.txt").split("\n\n")[:-1]
    rows = [row.split("\t") for row in _read(folder, f"level{level}.{split}.tsv").splitlines()]
    return tuple(Document(text, row[0], level, float(row[1])) for text, row in zip(texts, rows, strict=True))


@cache
def snapshot(level: int) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
    """The fixed (training, validation) documents of a level, with exact log-probabilities."""
    folder = data_dir() / "microworld"
    return load(folder, check_level(level), "train"), load(folder, level, "val")
