"""Byte-pair encoding: start from the 256 bytes, give the most frequent pair of neighbours its own id, and repeat.

- `BPETokenizer` is trained here, on the training split (Sennrich et al. 2016; byte-level as in Radford et al. 2019).
  Ids 0 to 255 are the bytes themselves, then the merges in the order they were learned, then end-of-text.
- `GPT2Tokenizer` is GPT-2's own: 50,256 pieces and end-of-text. It needs GPT-2's files once; a checkpoint made with it
  carries the pieces along and needs no download.
- No text is ever longer than its bytes, and none is unknown.
"""

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tiktoken
import tiktoken.load
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from kancourse.lab.tokenizers import EOT_TEXT, Tokenizer

# How GPT-2 cuts text before merging: contractions, words with their leading space, numbers, signs, runs of white space.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_BETWEEN_WORDS = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
_PART = 1 << 16  # characters
_PARTS_AT_A_TIME = 256
GPT2_FILES = {  # name -> sha256, as tiktoken itself pins them
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


def byte_alphabet() -> list[str]:
    """The 256 printable characters in which byte-level BPE files write the bytes 0 to 255, in byte order.

    Printable Latin-1 stands for itself; the 68 others get the code points from 256 on, in order.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def parts_of(text: str) -> Iterator[str]:
    """A long text in parts that encode one by one to the ids of the whole: it is cut before a blank between two words,
    where the pattern above always cuts. (The library needs a few hundred bytes for each token it works on.)
    """
    begin = 0
    while len(text) - begin > _PART and (found := _BETWEEN_WORDS.search(text, begin + _PART)):
        yield text[begin : found.start()]
        begin = found.start()
    yield text[begin:]


class BPETokenizer(Tokenizer):
    """A byte-level BPE given by its merges.

    Arguments:
        merges: pairs in the order learned, each "left right" in the byte alphabet, as GPT-2's vocab.bpe writes them.
    """

    kind = "bpe"

    def __init__(self, merges: Sequence[str]):
        self.merges = list(merges)
        pairs = [tuple(merge.split(" ")) for merge in self.merges]
        alphabet = byte_alphabet()
        vocabulary = {character: byte for byte, character in enumerate(alphabet)}
        for left, right in pairs:
            vocabulary.setdefault(left + right, len(vocabulary))
        byte_of = {character: byte for byte, character in enumerate(alphabet)}
        pieces = [bytes(byte_of[character] for character in piece) for piece in vocabulary]
        super().__init__(f"bpe-{len(pieces) + 1}", [*pieces, EOT_TEXT.encode()], eot_id=len(pieces))
        self._inner = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
        self._inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._inner.decoder = decoders.ByteLevel()

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int) -> "BPETokenizer":
        """Learn merges until there are `vocab_size` ids (end-of-text included) or nothing left to merge.

        Raises:
            ValueError: `vocab_size` below 257 (256 bytes and end-of-text).
        """
        if vocab_size < 257:
            raise ValueError(f"a byte-level BPE needs at least 257 ids (256 bytes and end-of-text), got {vocab_size}")
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1, initial_alphabet=byte_alphabet(), special_tokens=[], show_progress=False
        )
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.train_from_iterator((part for text in texts for part in parts_of(text)), trainer)
        merges = json.loads(inner.to_str())["model"]["merges"]  # [["Ġ", "t"], …]
        return cls([" ".join(merge) for merge in merges])

    def encode(self, text: str) -> list[int]:
        return self._inner.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        parts = [(number, part) for number, text in enumerate(texts) for part in parts_of(text)]
        ids: list[list[np.ndarray]] = [[] for _ in texts]
        for begin in range(0, len(parts), _PARTS_AT_A_TIME):
            some = parts[begin : begin + _PARTS_AT_A_TIME]
            encoded = self._inner.encode_batch_fast([part for _, part in some], add_special_tokens=False)
            for (number, _), one in zip(some, encoded, strict=True):
                ids[number].append(np.asarray(one.ids, dtype=np.uint32))
        return [np.concatenate(pieces) for pieces in ids]

    def to_dict(self) -> dict:
        return {"kind": self.kind, "merges": self.merges}

    @classmethod
    def _from_dict(cls, saved: dict) -> "BPETokenizer":
        return cls(saved["merges"])


class GPT2Tokenizer(Tokenizer):
    """GPT-2's BPE by tiktoken, ids as published (end-of-text is 50,256).

    Arguments:
        pieces: what the ids 0, 1, 2, … stand for, end-of-text left out; a piece of lower id is merged first.
    """

    kind = "gpt2"

    def __init__(self, pieces: Sequence[bytes]):
        super().__init__("gpt2", [*pieces, EOT_TEXT.encode()], eot_id=len(pieces))
        ranks = {piece: rank for rank, piece in enumerate(pieces)}
        self._inner = tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})

    @classmethod
    def load(cls) -> "GPT2Tokenizer":
        """From `$KANCOURSE_DATA/gpt2` (vocab.bpe and encoder.json) or, failing that, through tiktoken.

        Raises:
            ConnectionError: neither works; the message says what to put where, and which tokenizers work now.
        """
        folder = Path(os.environ.get("KANCOURSE_DATA", ""), "gpt2")
        if os.environ.get("KANCOURSE_DATA") and all((folder / name).is_file() for name in GPT2_FILES):
            ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(
                vocab_bpe_file=str(folder / "vocab.bpe"),
                encoder_json_file=str(folder / "encoder.json"),
                vocab_bpe_hash=GPT2_FILES["vocab.bpe"],
                encoder_json_hash=GPT2_FILES["encoder.json"],
            )
            return cls(sorted(ranks, key=ranks.get))
        offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") and not os.environ.get("TIKTOKEN_CACHE_DIR")
        try:
            if offline:
                raise OSError("HF_HUB_OFFLINE is set")
            inner = tiktoken.get_encoding("gpt2")
        except OSError as error:  # requests' exceptions are OSErrors
            raise ConnectionError(
                "GPT-2's tokenizer files cannot be reached; put vocab.bpe and encoder.json into $KANCOURSE_DATA/gpt2, "
                "or use tokenizer='bpe', 'characters' or 'bytes', which need no download"
            ) from error
        return cls([inner.decode_single_token_bytes(i) for i in range(50256)])

    def encode(self, text: str) -> list[int]:
        return self._inner.encode_ordinary(text)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        encoded = self._inner.encode_ordinary_batch(list(texts), num_threads=os.cpu_count() or 1)
        return [np.asarray(ids, dtype=np.uint32) for ids in encoded]

    def to_dict(self) -> dict:
        return {"kind": self.kind, "pieces": " ".join(base64.b64encode(p).decode() for p in self.pieces[:-1])}

    @classmethod
    def _from_dict(cls, saved: dict) -> "GPT2Tokenizer":
        return cls([base64.b64decode(piece) for piece in saved["pieces"].split(" ")])
