"""Corpora: a name in, training and validation tokens out, with the numbers that give a loss meaning.

- Real text is one parameter away: `load_corpus("tinyshakespeare")` instead of `load_corpus("microworld")`.
- The validation split is never trained on, not even by the tokenizer. Documents go to a split by a hash of their text,
  so copies of one document land on the same side; a corpus that is one single text is cut at a position, which for tiny
  Shakespeare gives the usual 1,003,854 and 111,540 characters.
- Tokens are made once and kept on disk, keyed by everything that made them (see `tokens.py`).
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from kancourse.lab import microworld
from kancourse.lab.batches import DocumentWindows, RandomWindows
from kancourse.lab.documents import microworld_documents, microworld_sha256, split_documents
from kancourse.lab.microworld.documents import check_domains, check_level
from kancourse.lab.readers import Opened, open_file, open_source
from kancourse.lab.sources import CORPORA, Row, find_row
from kancourse.lab.tokenise import Prepared, tokenise
from kancourse.lab.tokenizers import TOKENIZERS, Tokenizer
from kancourse.lab.tokens import TokenArray


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
        name: "microworld", a name of `sources.CORPORA`, the path of a text file, a name with one of its domains
            ("m2d2/cs_l1"), or a mixture with weights ("gsm8k:2+microworld:1", see `mixture.py`).
        tokenizer: "auto" (what suits the corpus), one of `TOKENIZERS`, or a tokenizer (say, a checkpoint's).
        vocab_size: for "bpe": ids wanted, end-of-text included.
        level: microworld's (1, 2, 3); no other corpus has levels.
        domains: only these; None: all, or what the corpus's row says.
        n_documents: microworld: instead of the snapshot's training documents, so many fresh ones, generated from
            `seed` (the validation documents stay the snapshot's). Others: read at most so many documents.
        max_characters: read at most so many characters, training and validation together. None means the row's own
            limit, which only the largest corpora have (200 million, said in `note`). Of a mixture: each so many.
        validation_fraction: share of documents (or of the single text) held out, where a corpus has no validation
            split of its own; None: what its row says, 0.1 for a file.
        seed: of the document split, and of microworld's fresh documents.

    Raises:
        ValueError: unknown corpus, domain or tokenizer (the message lists the known), an option the corpus does not
            have, a text that is empty, not UTF-8, too small, or holds a character the tokenizer lacks.
        FileNotFoundError: a path to no file.
        ConnectionError: no local copy and no network; the message says where to put one and what works now.
    """
    if isinstance(tokenizer, str) and tokenizer not in ("auto", *TOKENIZERS):
        raise ValueError(f"unknown tokenizer {tokenizer!r}; known: auto, {', '.join(TOKENIZERS)}")
    options = {
        "level": level,
        "domains": domains,
        "n_documents": n_documents,
        "max_characters": max_characters,
        "validation_fraction": validation_fraction,
        "seed": seed,
    }
    if "+" in str(name) and not Path(name).exists():
        from kancourse.lab.mixture import load_mixture  # a mixture is made of corpora, so it needs this file first

        return load_mixture(str(name), tokenizer, vocab_size, options)
    return finish(prepare(str(name), **options), tokenizer, vocab_size)


def finish(prepared: Prepared, tokenizer: str | Tokenizer, vocab_size: int) -> Corpus:
    """Tokenise what was prepared."""
    made, splits = tokenise(prepared, tokenizer, vocab_size)
    told = {name: getattr(prepared, name) for name in ("name", "licence", "source", "note")}
    return Corpus(tokenizer=made, **told, **splits)


def prepare(
    name: str,
    *,
    level: int,
    domains: str | Iterable[str] | None,
    n_documents: int | None,
    max_characters: int | None,
    validation_fraction: float | None,
    seed: int,
) -> Prepared:
    """Everything about a corpus but its tokens. Arguments and errors as `load_corpus`."""
    limits = {"n_documents": n_documents, "max_characters": max_characters}
    for option, limit in limits.items():
        if limit is not None and limit < 1:
            raise ValueError(f"{option} must be at least 1, got {limit}")
    name, domains = with_domain(name, domains)
    if name == "microworld":
        if max_characters is not None or validation_fraction is not None:
            raise ValueError("microworld has no max_characters or validation_fraction; n_documents sets its size")
        return _prepare_microworld(level, domains, n_documents, seed)
    if level != 1:
        raise ValueError(f"only microworld has levels, got level={level} for {name!r}")

    row, opened = open_corpus(name, domains)
    note = opened.note
    if max_characters is None and row.max_characters:
        limits["max_characters"] = row.max_characters
        only = f"only the first {row.max_characters:,} characters; set max_characters for more"
        note = f"{note}; {only}" if note else only
    fraction = row.validation_fraction if validation_fraction is None else validation_fraction
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must lie between 0 and 1, got {fraction}")
    return Prepared(
        name=row.name,
        licence=row.licence,
        source=opened.identity | ({"domains": list(domains)} if domains else {}),
        note=note,
        made_from={"documents": row.documents, "fraction": fraction, "seed": seed, **limits},
        documents=partial(split_documents, opened, fraction=fraction, seed=seed, **limits),
        tokenizer=row.tokenizer,
    )


def with_domain(name: str, domains: str | Iterable[str] | None) -> tuple[str, tuple[str, ...] | None]:
    """The name and domains, of which one may be written behind the name: "m2d2/cs_l1"."""
    domains = (domains,) if isinstance(domains, str) else None if domains is None else tuple(domains)
    first, _, domain = name.partition("/")
    row = find_row(first)
    if domain and domains is None and (first == "microworld" or (row and row.domain)) and not Path(name).exists():
        return first, (domain,)
    return name, domains


def open_corpus(name: str, domains: tuple[str, ...] | None) -> tuple[Row, Opened]:
    """The row of a corpus or a file, and its documents.

    Raises:
        ValueError: unknown corpus (the message lists the known), or domains where there are none.
        FileNotFoundError: a path to no file.
    """
    row = find_row(name)
    if domains is not None and (row is None or row.domain is None):
        having = ", ".join(["microworld", *(known.name for known in CORPORA.values() if known.domain)])
        raise ValueError(f"{name!r} has no domains, got {', '.join(domains) or 'none'}; these have: {having}")
    if row:
        return row, open_source(row, domains)
    path = Path(name).expanduser()
    if path.suffix or os.sep in name:
        return Row(name=path.name, licence="your own", about="a file of your own", tokenizer="bytes"), open_file(path)
    raise ValueError(f"unknown corpus {name!r}; known: microworld, {', '.join(CORPORA)}, or the path of a text file")


def _prepare_microworld(level: int, domains: tuple[str, ...] | None, n_documents: int | None, seed: int) -> Prepared:
    microworld.snapshot(check_level(level))  # checked against its sha256 before anything is built on it
    names = check_domains(microworld.DOMAINS if domains is None else domains)
    source = {"snapshot_sha256": microworld_sha256("snapshot"), "level": level, "domains": list(names)}
    if n_documents is not None:
        source |= {"fresh_documents": n_documents, "seed": seed, "generator_sha256": microworld_sha256("generator")}
    return Prepared(
        name="microworld",
        licence="CC0 1.0",
        source=source,
        note="",
        made_from={},
        documents=partial(microworld_documents, level, names, n_documents, seed),
        tokenizer="words",
        vocabulary=microworld.vocabulary(level),
    )
