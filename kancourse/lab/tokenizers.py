"""Tokenizers: text to ids and back, five ways, behind one small interface.

- `bytes` (256 ids), `characters` (the alphabet of the training text) and `words` (microworld's own vocabulary) are
  here; `bpe` (trained on the corpus) and `gpt2` (GPT-2's published one) are byte-pair encodings, in `bpe.py`.
- Every id stands for a fixed piece of UTF-8, so decoding is "join the bytes": it never raises, whatever the ids are.
  Ids out of range and broken UTF-8 become U+FFFD, the replacement character.
- The end of a text is one more id, `eot_id`, and no text encodes to it: "<|endoftext|>" typed by hand is letters.
- `to_dict` holds everything, merges included, so a checkpoint carries its tokenizer and needs no download to be read.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

EOT_TEXT = "<|endoftext|>"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """What all tokenizers share. `pieces[i]` is the UTF-8 that id `i` stands for.

    Attributes:
        name: for records and plots, as "bpe-4096".
        vocab_size: number of ids, the end-of-text id included.
        eot_id: the id that closes every document.
    """

    kind: str

    def __init__(self, name: str, pieces: Sequence[bytes], eot_id: int):
        self.name = name
        self.pieces = tuple(pieces)
        self.vocab_size = len(self.pieces)
        self.eot_id = eot_id

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without an end-of-text id."""
        raise NotImplementedError

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of many texts, each an integer array: the fast way to tokenise a corpus."""
        return [np.asarray(self.encode(text), dtype=np.uint32) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` (a list, array or tensor). Never raises; an end-of-text id reads `<|endoftext|>`."""
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        unknown = REPLACEMENT.encode()
        parts = [self.pieces[i] if 0 <= i < self.vocab_size else unknown for i in ids]
        return b"".join(parts).decode("utf-8", errors="replace")

    def decode_documents(self, ids: Iterable[int]) -> list[str]:
        """The texts between end-of-text ids, each decoded on its own; empty ones are left out."""
        documents: list[list[int]] = [[]]
        for i in ids.tolist() if hasattr(ids, "tolist") else ids:
            if i == self.eot_id:
                documents.append([])
            else:
                documents[-1].append(i)
        return [self.decode(document) for document in documents if document]

    def token_bytes(self) -> np.ndarray:
        """(V,) how many bytes of text each id stands for (0 for end-of-text): turns nats/token into bits/byte."""
        lengths = np.array([len(piece) for piece in self.pieces], dtype=np.int64)
        lengths[self.eot_id] = 0
        return lengths

    def to_dict(self) -> dict:
        """Everything needed to rebuild this tokenizer, as JSON types."""
        raise NotImplementedError

    @staticmethod
    def from_dict(saved: dict) -> "Tokenizer":
        """The tokenizer that `to_dict` described.

        Raises:
            ValueError: `saved` is not such a description; the message lists the known kinds.
        """
        from kancourse.lab.bpe import BPETokenizer, GPT2Tokenizer  # here, because bpe.py needs this file first

        kinds = {c.kind: c for c in (ByteTokenizer, CharTokenizer, WordTokenizer, BPETokenizer, GPT2Tokenizer)}
        if saved.get("kind") not in kinds:
            raise ValueError(f"unknown tokenizer kind {saved.get('kind')!r}; known: {', '.join(kinds)}")
        return kinds[saved["kind"]]._from_dict(saved)


class ByteTokenizer(Tokenizer):
    """One id per byte of UTF-8, and 256 for end-of-text. Knows every text there is."""

    kind = "bytes"

    def __init__(self):
        super().__init__("bytes", [*(bytes([b]) for b in range(256)), EOT_TEXT.encode()], eot_id=256)

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode("utf-8"), dtype=np.uint8) for text in texts]

    def to_dict(self) -> dict:
        return {"kind": self.kind}

    @classmethod
    def _from_dict(cls, saved: dict) -> "ByteTokenizer":
        return cls()


class CharTokenizer(Tokenizer):
    """One id per character of a learned alphabet, in code-point order, then end-of-text.

    Arguments:
        alphabet: the characters; an alphabet that holds U+FFFD (see `train`) encodes every foreign character as it.
    """

    kind = "characters"

    def __init__(self, alphabet: str):
        self.alphabet = "".join(sorted(set(alphabet)))
        if not self.alphabet:
            raise ValueError("a character tokenizer needs at least one character in its training text; got none")
        super().__init__("characters", [*(c.encode() for c in self.alphabet), EOT_TEXT.encode()], len(self.alphabet))
        points = np.array([ord(c) for c in self.alphabet])
        self._id_of_point = np.full(points[-1] + 2, -1, dtype=np.int64)  # one spare entry: all higher code points
        self._id_of_point[points] = np.arange(len(points))

    @classmethod
    def train(cls, texts: Iterable[str], *, errors: str = "strict") -> "CharTokenizer":
        """Learn the alphabet of `texts`; `errors="replace"` adds U+FFFD to stand for what was never seen."""
        if errors not in ("strict", "replace"):
            raise ValueError(f"errors must be 'strict' or 'replace', got {errors!r}")
        alphabet = set().union(*(set(text) for text in texts))
        return cls("".join(alphabet | ({REPLACEMENT} if errors == "replace" else set())))

    def _encode(self, text: str) -> np.ndarray:
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        ids = self._id_of_point[np.minimum(points, len(self._id_of_point) - 1)]
        unknown = ids < 0
        if unknown.any():
            if REPLACEMENT not in self.alphabet:
                character = text[int(unknown.argmax())]
                raise ValueError(
                    f"the character {character!r} (U+{ord(character):04X}) is not among the {len(self.alphabet)} "
                    "characters of the training text; use tokenizer='characters+unknown', which has an id for "
                    "unknown characters, or 'bytes', which knows them all"
                )
            ids = np.where(unknown, self.alphabet.index(REPLACEMENT), ids)
        return ids

    def encode(self, text: str) -> list[int]:
        """The ids of `text`.

        Raises:
            ValueError: a character outside the alphabet (unless the alphabet holds U+FFFD); the message names it.
        """
        return self._encode(text).tolist()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self._encode(text) for text in texts]

    def to_dict(self) -> dict:
        return {"kind": self.kind, "alphabet": self.alphabet}

    @classmethod
    def _from_dict(cls, saved: dict) -> "CharTokenizer":
        return cls(saved["alphabet"])


class WordTokenizer(Tokenizer):
    """End-of-text is id 0, then one id per piece (word, sign, blank) of a closed vocabulary.

    End-of-text comes first so that no id moves when a vocabulary grows at its end, as microworld's does with its level.

    Arguments:
        vocabulary: the pieces, all different.
        split: cuts a text into pieces such that joining them gives the text back; microworld's `pieces` by default.
    """

    kind = "words"

    def __init__(self, vocabulary: Sequence[str], split: Callable[[str], Sequence[str]] | None = None):
        super().__init__("words", [EOT_TEXT.encode(), *(word.encode() for word in vocabulary)], eot_id=0)
        if split is None:
            from kancourse.lab.microworld import pieces as split
        self._split = split
        self._id_of = {word: i for i, word in enumerate(vocabulary, 1)}
        if len(self._id_of) != len(vocabulary):
            twice = sorted(word for word in self._id_of if list(vocabulary).count(word) > 1)
            raise ValueError(f"the vocabulary lists a word twice: {twice[0]!r}")

    def encode(self, text: str) -> list[int]:
        """The ids of `text`.

        Raises:
            ValueError: a piece outside the vocabulary; the message names it.
        """
        try:
            return [self._id_of[word] for word in self._split(text)]
        except KeyError as error:
            raise ValueError(
                f"the word {error.args[0]!r} is not in this vocabulary of {len(self._id_of)} words; "
                "use a higher microworld level, or tokenizer='characters' or 'bytes'"
            ) from None

    def to_dict(self) -> dict:
        return {"kind": self.kind, "vocabulary": list(self._id_of)}

    @classmethod
    def _from_dict(cls, saved: dict) -> "WordTokenizer":
        return cls(saved["vocabulary"])


TOKENIZERS = ("bytes", "characters", "characters+unknown", "words", "bpe", "gpt2")


def train_tokenizer(
    name: str, texts: Iterable[str], *, vocab_size: int = 4096, vocabulary: Sequence[str] | None = None
) -> Tokenizer:
    """The tokenizer called `name`, learned from `texts` (the training split, never the validation one).

    Arguments:
        name: one of `TOKENIZERS`.
        texts: training documents; read once, and only by the tokenizers that learn (characters, bpe).
        vocab_size: for "bpe": ids wanted, end-of-text included; a small text may offer fewer merges.
        vocabulary: for "words": the closed vocabulary.

    Raises:
        ValueError: unknown name (the message lists the known), or "words" for a text without a closed vocabulary.
        ConnectionError: "gpt2" when its files can be neither found nor downloaded.
    """
    from kancourse.lab.bpe import BPETokenizer, GPT2Tokenizer  # here, because bpe.py needs this file first

    if name == "bytes":
        return ByteTokenizer()
    if name in ("characters", "characters+unknown"):
        return CharTokenizer.train(texts, errors="strict" if name == "characters" else "replace")
    if name == "bpe":
        return BPETokenizer.train(texts, vocab_size=vocab_size)
    if name == "gpt2":
        return GPT2Tokenizer.load()
    if name == "words":
        if vocabulary is None:
            raise ValueError("tokenizer 'words' needs a closed vocabulary, which only microworld has; use 'bpe'")
        return WordTokenizer(vocabulary)
    raise ValueError(f"unknown tokenizer {name!r}; known: {', '.join(TOKENIZERS)}")
