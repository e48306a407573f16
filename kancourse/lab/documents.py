"""Documents on their way into a corpus: who is held out, how much is read, how many are tokenised at a time.

- A document goes to validation by a hash of its text and the seed: stable whatever the order, streamable, and copies of
  one document land on the same side.
- Microworld brings its own validation documents and, with every document, its exact log-probability.
"""

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from kancourse.lab import microworld
from kancourse.lab.readers import Opened
from kancourse.paths import data_dir

_BATCH_CHARACTERS = 4_000_000

Document = tuple[str, str, float | None]  # "train" or "val", text, exact log-probability in nats if known


def split_documents(
    opened: Opened, *, fraction: float, seed: int, n_documents: int | None, max_characters: int | None
) -> Iterator[Document]:
    """Every document of a corpus with its split; blank ones are left out.

    A limit counts training and validation documents together; where the corpus has its own validation split, each
    split gets its share of the limit. The document that would cross `max_characters` ends the reading; a single text
    is cut there instead.
    """
    if opened.by_position:
        text = "".join(opened.parts["all"]())[:max_characters]
        cut = int(len(text) * (1 - fraction))
        for split, part in (("train", text[:cut]), ("val", text[cut:])):
            if part.strip():
                yield split, part, None
        return
    for part, read in opened.parts.items():
        share = {"all": 1.0, "train": 1 - fraction, "val": fraction}[part]
        characters_left = float("inf") if max_characters is None else max_characters * share
        most = None if n_documents is None else max(1, round(n_documents * share))
        for text in itertools.islice((text for text in read() if text.strip()), most):
            characters_left -= len(text)
            if characters_left < 0:
                break
            yield (split_of(text, fraction, seed) if part == "all" else part), text, None


def split_of(text: str, fraction: float, seed: int) -> str:
    """Where a document goes, "train" or "val", when `fraction` of all are held out."""
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8, key=str(seed).encode()).digest()
    return "val" if int.from_bytes(digest) < fraction * 2**64 else "train"


def microworld_documents(
    level: int, domains: tuple[str, ...], n_documents: int | None, seed: int
) -> Iterator[Document]:
    """Microworld's snapshot, or `n_documents` fresh training documents beside the snapshot's validation documents.

    Every document carries its exact log-probability among `domains`.
    """
    train, val = microworld.snapshot(level)
    if n_documents is not None:
        train = itertools.islice(microworld.stream(seed, level, domains), n_documents)
    others = math.log(len(microworld.DOMAINS) / len(domains))  # a document is likelier where fewer domains compete
    for split, documents in (("train", train), ("val", val)):
        of_all = split == "val" or n_documents is None
        for document in documents:
            if document.domain in domains:
                yield split, document.text, document.log_prob + (others if of_all else 0.0)


def microworld_sha256(what: str) -> str:
    """Of the "snapshot" (its list of checksums) or of the "generator" (its code): changes when what they give does."""
    code = Path(microworld.__file__).parent
    paths = {"snapshot": [data_dir() / "microworld" / "SHA256SUMS"], "generator": sorted(code.glob("*.py"))}[what]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def first_characters(texts: Iterable[str], limit: int) -> Iterator[str]:
    """Texts until `limit` characters are reached; the last is cut there."""
    for text in texts:
        yield text[:limit]
        limit -= len(text)
        if limit <= 0:
            return


def in_batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents in lists of a few million characters: many at a time for speed, never all of them."""
    batch, characters = [], 0
    for document in documents:
        batch.append(document)
        characters += len(document[1])
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
