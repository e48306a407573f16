"""Corpora: a name in, training and validation tokens out, with the numbers that give a loss meaning.

- Real text is one parameter away: `load_corpus("tinyshakespeare")` instead of `load_corpus("microworld")`.
- The validation split is never trained on, not even by the tokenizer. Documents go to a split by a hash of their text,
  so copies of one document land on the same side; a corpus that is one single text is cut at a position, which for tiny
  Shakespeare gives the usual 1,003,854 and 111,540 characters.
- Tokens are made once and kept on disk, keyed by everything that made them (see `tokens.py`).
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kancourse.lab import microworld
from kancourse.lab.batches import DocumentWindows, RandomWindows
from kancourse.lab.documents import (
    Document,
    first_characters,
    in_batches,
    microworld_documents,
    microworld_sha256,
    split_documents,
)
from kancourse.lab.microworld.documents import check_domains, check_level
from kancourse.lab.readers import Opened, open_file, open_source
from kancourse.lab.sources import CORPORA, Row
from kancourse.lab.token_cache import SplitWriter, open_or_build
from kancourse.lab.tokenizers import TOKENIZERS, Tokenizer, train_tokenizer
from kancourse.lab.tokens import TokenArray

BPE_TRAINING_CHARACTERS = 20_000_000  # merges hardly change beyond; more only takes longer


@dataclass(kw_only=True, eq=False)
class Corpus:
    """A tokenised corpus.

    Attributes:
        name: as asked for; a file by its name.
        licence: of the text.
        source: exactly what was read, as JSON types: files with sha256, or repository and revision, or generator.
        note: what a reader of the numbers must know, or "".
        tokenizer: what made the ids; trained on the training split only.
        train, val: the two splits.
    """

    name: str
    licence: str
    source: dict
    note: str
    tokenizer: Tokenizer
    train: TokenArray
    val: TokenArray

    def sampler(self, block_size: int, batch_size: int, *, seed: int = 0) -> DocumentWindows | RandomWindows:
        """Training batches: rows start at documents when most documents fit into a block, else anywhere."""
        fits = np.median(self.train.document_lengths()) <= block_size
        return (DocumentWindows if fits else RandomWindows)(self.train, block_size, batch_size, seed)

    def describe(self) -> dict:
        """What an experiment's record states about its data, as JSON types; entropies and floor in nats per token."""
        return {
            "corpus": self.name,
            "licence": self.licence,
            "source": self.source,
            "note": self.note,
            "tokenizer": self.tokenizer.name,
            "tokenizer_vocab_size": self.tokenizer.vocab_size,
            "train_tokens": len(self.train),
            "val_tokens": len(self.val),
            "train_documents": self.train.n_documents,
            "val_documents": self.val.n_documents,
            "val_characters_per_token": self.val.characters_per_token,
            "val_unigram_entropy": self.val.unigram_entropy(),
            "val_unigram_cross_entropy": self.val.unigram_cross_entropy(self.train),
            "val_floor": self.val.floor,
        }

    def __str__(self) -> str:
        floor = "" if self.val.floor is None else f", floor {self.val.floor:.4f}"
        return (
            f"{self.name}, {self.tokenizer.name} ({self.tokenizer.vocab_size:,} ids): {len(self.train):,} training and "
            f"{len(self.val):,} validation tokens of {self.val.characters_per_token:.2f} characters; unigram entropy "
            f"{self.val.unigram_entropy():.4f} nats per token{floor}" + (f". Note: {self.note}" if self.note else "")
        )


def load_corpus(
    name: str | Path = "microworld",
    *,
    tokenizer: str | Tokenizer = "auto",
    vocab_size: int = 4096,
    level: int = 1,
    domains: str | Iterable[str] | None = None,
    n_documents: int | None = None,
    max_characters: int | None = None,
    validation_fraction: float | None = None,
    seed: int = 0,
) -> Corpus:
    """Load a corpus by name, tokenise it once, and keep the tokens for the next time.

    Arguments:
        name: "microworld", a name of `sources.CORPORA`, or the path of a text file.
        tokenizer: "auto" (what suits the corpus), one of `TOKENIZERS`, or a tokenizer (say, a checkpoint's).
        vocab_size: for "bpe": ids wanted, end-of-text included.
        level, domains: microworld's level (1, 2, 3) and domains (None: all); no other corpus has them.
        n_documents: microworld: instead of the snapshot's training documents, so many fresh ones, generated from
            `seed` (the validation documents stay the snapshot's). Others: read at most so many documents.
        max_characters: read at most so many characters, training and validation together. None means the row's own
            limit, which only the largest corpora have (200 million, said in `note`).
        validation_fraction: share of documents (or of the single text) held out, where a corpus has no validation
            split of its own; None: what its row says, 0.1 for a file.
        seed: of the document split, and of microworld's fresh documents.

    Raises:
        ValueError: unknown corpus or tokenizer (the message lists the known), an option the corpus does not have, a
            text that is empty, not UTF-8, too small, or holds a character the tokenizer lacks.
        FileNotFoundError: a path to no file.
        ConnectionError: no local copy and no network; the message says where to put one and what works now.
    """
    name = str(name)
    if isinstance(tokenizer, str) and tokenizer not in ("auto", *TOKENIZERS):
        raise ValueError(f"unknown tokenizer {tokenizer!r}; known: auto, {', '.join(TOKENIZERS)}")
    limits = {"n_documents": n_documents, "max_characters": max_characters}
    for option, limit in limits.items():
        if limit is not None and limit < 1:
            raise ValueError(f"{option} must be at least 1, got {limit}")
    if name == "microworld":
        if max_characters is not None or validation_fraction is not None:
            raise ValueError("microworld has no max_characters or validation_fraction; n_documents sets its size")
        return _load_microworld(tokenizer, vocab_size, level, domains, n_documents, seed)
    if level != 1 or domains is not None:
        raise ValueError(f"only microworld has levels and domains, got level={level}, domains={domains} for {name!r}")

    row, opened = _open(name)
    note = opened.note
    if max_characters is None and row.max_characters:
        limits["max_characters"] = row.max_characters
        note = " ".join(
            [note, f"only the first {row.max_characters:,} characters; set max_characters for more"]
        ).strip()
    fraction = row.validation_fraction if validation_fraction is None else validation_fraction
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must lie between 0 and 1, got {fraction}")

    return _tokenise(
        name=row.name,
        licence=row.licence,
        source=opened.identity,
        note=note,
        made_from={"documents": row.documents, "fraction": fraction, "seed": seed, **limits},
        documents=partial(split_documents, opened, fraction=fraction, seed=seed, **limits),
        tokenizer=row.tokenizer if tokenizer == "auto" else tokenizer,
        vocab_size=vocab_size,
    )


def _open(name: str) -> tuple[Row, Opened]:
    if name in CORPORA:
        return CORPORA[name], open_source(CORPORA[name])
    path = Path(name).expanduser()
    if path.suffix or os.sep in name:
        return Row(name=path.name, licence="your own", about="a file of your own", tokenizer="bytes"), open_file(path)
    raise ValueError(f"unknown corpus {name!r}; known: microworld, {', '.join(CORPORA)}, or the path of a text file")


def _load_microworld(
    tokenizer: str | Tokenizer,
    vocab_size: int,
    level: int,
    domains: str | Iterable[str] | None,
    n_documents: int | None,
    seed: int,
) -> Corpus:
    microworld.snapshot(check_level(level))  # checked against its sha256 before anything is built on it
    names = check_domains(microworld.DOMAINS if domains is None else domains)
    source = {"snapshot_sha256": microworld_sha256("snapshot"), "level": level, "domains": list(names)}
    if n_documents is not None:
        source |= {"fresh_documents": n_documents, "seed": seed, "generator_sha256": microworld_sha256("generator")}
    return _tokenise(
        name="microworld",
        licence="CC0 1.0",
        source=source,
        note="",
        made_from={},
        documents=partial(microworld_documents, level, names, n_documents, seed),
        tokenizer="words" if tokenizer == "auto" else tokenizer,
        vocab_size=vocab_size,
        vocabulary=microworld.vocabulary(level) if tokenizer in ("auto", "words") else None,
    )


def _tokenise(
    *,
    name: str,
    licence: str,
    source: dict,
    note: str,
    made_from: dict,
    documents: Callable[[], Iterator[Document]],
    tokenizer: str | Tokenizer,
    vocab_size: int,
    vocabulary: Sequence[str] | None = None,
) -> Corpus:
    """Find the tokens of `documents()` in the cache, or make them: the tokenizer first, unless one is given."""
    if isinstance(tokenizer, Tokenizer):
        recipe = tokenizer.to_dict()
    else:
        recipe = {"name": tokenizer, "vocabulary": vocabulary}
        if tokenizer == "bpe":
            recipe |= {"vocab_size": vocab_size, "library": version("tokenizers")}

    def build(folder: Path) -> dict:
        stream = documents()
        first = list(itertools.islice(stream, 1))  # a corpus that cannot be read says so before anything else can fail
        made = tokenizer
        if not isinstance(made, Tokenizer):
            training = (text for split, text, _ in documents() if split == "train")
            if tokenizer == "bpe":
                training = first_characters(training, BPE_TRAINING_CHARACTERS)
            made = train_tokenizer(tokenizer, training, vocab_size=vocab_size, vocabulary=vocabulary)
        shown = tqdm(itertools.chain(first, stream), desc=f"tokenising {name}", unit=" documents", delay=3, leave=False)
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(SplitWriter(folder, split, eot_id=made.eot_id, vocab_size=made.vocab_size))
                for split in ("train", "val")
            }
            for batch in in_batches(shown):
                ids = made.encode_batch([text for _, text, _ in batch])
                for (split, text, log_prob), row in zip(batch, ids, strict=True):
                    writers[split].add(row, text, log_prob)
            if empty := [split for split, writer in writers.items() if not writer.facts["n_tokens"]]:
                raise ValueError(
                    f"{name} is too small: no text is left for the {empty[0]} split; use more text, another "
                    "validation_fraction or another seed"
                )
            return {"tokenizer": made.to_dict(), "splits": [writer.finish() for writer in writers.values()]}

    facts = open_or_build({"source": source, "made_from": made_from, "tokenizer": recipe}, build)
    made = tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer.from_dict(facts["tokenizer"])
    return Corpus(name=name, licence=licence, source=source, note=note, tokenizer=made, **facts["splits"])
