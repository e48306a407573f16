"""A tokenised split: one long row of ids, every document closed by the end-of-text id.

- Usually memory-mapped from the cache (`token_cache.py`): the operating system pages the ids in, so a corpus far larger
  than memory is no trouble. Ids are uint16 up to a vocabulary of 65,536, else uint32.
- It knows the reference numbers that stand beside every loss: unigram entropy, characters per token, and the floor.

Shapes: N tokens in the split, D documents, V vocabulary.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_CHUNK = 1 << 22  # tokens counted at a time


@dataclass(kw_only=True, eq=False)
class TokenArray:
    """One split: its ids, where its documents start, and the reference numbers that give a loss meaning.

    Attributes:
        ids: (N,) token ids, every document closed by `eot_id`.
        starts: (D,) index of each document's first token.
        n_characters, n_bytes: length of the text itself, end-of-text not counted.
        log_prob: exact log-probability of all documents together in nats, or None when nobody knows it.
    """

    ids: np.ndarray
    starts: np.ndarray
    eot_id: int
    vocab_size: int
    n_characters: int
    n_bytes: int
    log_prob: float | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_documents(self) -> int:
        return len(self.starts)

    def document(self, index: int) -> np.ndarray:
        """The ids of one document, its end-of-text included."""
        end = self.starts[index + 1] if index + 1 < len(self.starts) else len(self.ids)
        return np.asarray(self.ids[self.starts[index] : end])

    def document_lengths(self) -> np.ndarray:
        """(D,) tokens in each document, its end-of-text included."""
        return np.diff(self.starts, append=len(self.ids))

    @cached_property
    def counts(self) -> np.ndarray:
        """(V,) how often each id occurs."""
        counts = np.zeros(self.vocab_size, dtype=np.int64)
        for begin in range(0, len(self.ids), _CHUNK):
            counts += np.bincount(self.ids[begin : begin + _CHUNK], minlength=self.vocab_size)
        return counts

    def unigram_entropy(self) -> float:
        """Nats per token of the best guess that ignores context, fitted to this very split."""
        share = self.counts[self.counts > 0] / len(self.ids)
        return float(-(share * np.log(share)).sum())

    def unigram_cross_entropy(self, train: "TokenArray") -> float:
        """Nats per token of this split under the token frequencies of `train`, with one added to every count."""
        share = (train.counts + 1) / (len(train) + self.vocab_size)
        return float(-(self.counts * np.log(share)).sum() / len(self.ids))

    @property
    def floor(self) -> float | None:
        """Nats per token that no model can beat on average, where the exact log-probability is known; else None."""
        return None if self.log_prob is None else -self.log_prob / len(self.ids)

    @property
    def characters_per_token(self) -> float:
        return self.n_characters / len(self.ids)

    def bits_per_character(self, nats_per_token: float) -> float:
        """A loss in nats per token as bits per character of text (end-of-text tokens are paid for, too)."""
        return nats_per_token * len(self.ids) / (math.log(2) * self.n_characters)

    def bits_per_byte(self, nats_per_token: float) -> float:
        """A loss in nats per token as bits per UTF-8 byte: comparable across tokenizers and languages."""
        return nats_per_token * len(self.ids) / (math.log(2) * self.n_bytes)

    @classmethod
    def from_documents(cls, documents: Iterable[Sequence[int]], *, eot_id: int, vocab_size: int) -> "TokenArray":
        """In memory, from documents of ids without end-of-text: for small experiments and tests.

        Each token counts as one character and one byte, for want of text.
        """
        closed = [[*document, eot_id] for document in documents]
        lengths = np.array([len(document) for document in closed], dtype=np.int64)
        return cls(
            ids=np.array([token for document in closed for token in document], dtype=id_type(vocab_size)),
            starts=np.cumsum(lengths) - lengths,
            eot_id=eot_id,
            vocab_size=vocab_size,
            n_characters=int(lengths.sum()) - len(closed),
            n_bytes=int(lengths.sum()) - len(closed),
        )


def id_type(vocab_size: int) -> type:
    """The integer type in which ids below `vocab_size` are kept."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32
