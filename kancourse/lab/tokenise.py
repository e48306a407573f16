"""From documents to tokens: the tokenizer first, unless one is given, then both splits, once, into the cache."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from kancourse.lab.documents import Document, first_characters, in_batches
from kancourse.lab.token_cache import SplitWriter, open_or_build
from kancourse.lab.tokenizers import Tokenizer, train_tokenizer
from kancourse.lab.tokens import TokenArray

BPE_TRAINING_CHARACTERS = 20_000_000  # merges hardly change beyond; more only takes longer


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A corpus that is about to be tokenised.

    Attributes:
        name, licence, source, note: as in `Corpus`.
        made_from: what else decides which documents there are, as JSON types.
        documents: all of them with their splits; each call starts afresh.
        tokenizer: what "auto" means here.
        vocabulary: for the tokenizer "words", where there is a closed one.
    """

    name: str
    licence: str
    source: dict
    note: str
    made_from: dict
    documents: Callable[[], Iterator[Document]]
    tokenizer: str
    vocabulary: Sequence[str] | None = None

    def training_texts(self) -> Iterator[str]:
        """What a tokenizer may learn from."""
        return (text for split, text, _ in self.documents() if split == "train")


def recipe(tokenizer: str | Tokenizer, vocab_size: int, vocabulary: Sequence[str] | None = None) -> dict:
    """What decides a tokenizer apart from its training text, as JSON types."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.to_dict()
    told = {"name": tokenizer, "vocabulary": vocabulary}
    return told | ({"vocab_size": vocab_size, "library": version("tokenizers")} if tokenizer == "bpe" else {})


def tokenise(
    prepared: Prepared, tokenizer: str | Tokenizer, vocab_size: int
) -> tuple[Tokenizer, dict[str, TokenArray]]:
    """The tokenizer and the tokens of both splits, found in the cache or made.

    Raises:
        ValueError: no text is left for one of the splits, or the tokenizer lacks a character.
    """
    tokenizer = prepared.tokenizer if tokenizer == "auto" else tokenizer
    vocabulary = prepared.vocabulary if tokenizer == "words" else None

    def build(folder: Path) -> dict:
        stream = prepared.documents()
        first = list(itertools.islice(stream, 1))  # a corpus that cannot be read says so before anything else can fail
        made = tokenizer
        if not isinstance(made, Tokenizer):
            training = prepared.training_texts()
            if tokenizer == "bpe":
                training = first_characters(training, BPE_TRAINING_CHARACTERS)
            made = train_tokenizer(tokenizer, training, vocab_size=vocab_size, vocabulary=vocabulary)
        name = prepared.name
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

    made_from = {"source": prepared.source, "made_from": prepared.made_from}
    facts = open_or_build(made_from | {"tokenizer": recipe(tokenizer, vocab_size, vocabulary)}, build)
    made = tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer.from_dict(facts["tokenizer"])
    return made, facts["splits"]
