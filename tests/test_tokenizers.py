"""Every text comes back, every list of ids reads as something, and a tokenizer survives being saved."""

import json
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kancourse.lab import bpe
from kancourse.lab.bpe import GPT2_FILES, BPETokenizer, GPT2Tokenizer, byte_alphabet
from kancourse.lab.tokenizers import (
    EOT_TEXT,
    REPLACEMENT,
    TOKENIZERS,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    WordTokenizer,
    train_tokenizer,
)

TEXT = "The ball is in the box. Where is the ball? In the box. Größe, 日本語, 🙂!\n" * 3
BYTES = ByteTokenizer()
CHARS = CharTokenizer.train([TEXT])
CHARS_AND_UNKNOWN = CharTokenizer.train([TEXT], errors="replace")
BPE = BPETokenizer.train([TEXT], vocab_size=280)
WORDS = WordTokenizer(["the", " ball", " is", "."], split=lambda text: re.findall(r" ?\w+|\.", text))
TOY_GPT2 = GPT2Tokenizer([bytes([b]) for b in range(256)] + [b"th", b"the", b" the"])
KNOWS_ALL = [BYTES, BPE, TOY_GPT2]
ALL = [*KNOWS_ALL, CHARS, CHARS_AND_UNKNOWN, WORDS]


@given(text=st.text())
def test_any_text_comes_back(text):
    for tokenizer in KNOWS_ALL:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= i < tokenizer.vocab_size and i != tokenizer.eot_id for i in ids)
        assert tokenizer.token_bytes()[ids].sum() == len(text.encode())


@given(text=st.text(alphabet=sorted(set(TEXT))))
def test_characters_of_the_alphabet_come_back(text):
    assert CHARS.decode(CHARS.encode(text)) == text
    assert len(CHARS.encode(text)) == len(text)


@given(text=st.text())
def test_unknown_characters_become_the_replacement_character_when_asked(text):
    expected = "".join(c if c in TEXT else REPLACEMENT for c in text)
    assert CHARS_AND_UNKNOWN.decode(CHARS_AND_UNKNOWN.encode(text)) == expected


@pytest.mark.parametrize("tokenizer", ALL, ids=lambda t: t.name)
@given(ids=st.lists(st.integers(min_value=-(10**20), max_value=10**20) | st.integers(0, 400)))
def test_decoding_never_raises(tokenizer, ids):
    text = tokenizer.decode(ids)
    assert text.count(REPLACEMENT) >= sum(not 0 <= i < tokenizer.vocab_size for i in ids)
    tokenizer.decode_documents(ids)


def test_broken_utf8_reads_as_the_replacement_character():
    snowman = BYTES.encode("☃")
    assert BYTES.decode(snowman[:2]) == REPLACEMENT
    assert BYTES.decode([snowman[0], 65]) == REPLACEMENT + "A"


@pytest.mark.parametrize("tokenizer", ALL, ids=lambda t: t.name)
def test_lists_arrays_and_tensors_decode_alike(tokenizer):
    ids = [0, 2, 3, tokenizer.eot_id, 1]
    assert tokenizer.decode(ids) == tokenizer.decode(np.array(ids)) == tokenizer.decode(torch.tensor(ids))


@pytest.mark.parametrize("tokenizer", ALL, ids=lambda t: t.name)
def test_a_saved_tokenizer_is_the_same_tokenizer(tokenizer):
    text = "the ball is." if tokenizer is WORDS else TEXT
    again = Tokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert (again.name, again.vocab_size, again.eot_id) == (tokenizer.name, tokenizer.vocab_size, tokenizer.eot_id)
    assert again.pieces == tokenizer.pieces
    assert again.encode(text) == tokenizer.encode(text)
    assert again.to_dict() == tokenizer.to_dict()


@pytest.mark.parametrize("tokenizer", [*KNOWS_ALL, CHARS], ids=lambda t: t.name)
def test_many_texts_at_once_encode_as_one_by_one(tokenizer):
    texts = [TEXT, "", "the ball", "日本"]
    many = tokenizer.encode_batch(texts)
    assert [ids.tolist() for ids in many] == [tokenizer.encode(text) for text in texts]


@given(text=st.text(st.sampled_from("a B's\u00a0\n.1é ") | st.characters(), max_size=60), size=st.integers(1, 20))
def test_a_text_in_parts_is_the_text(text, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "_PART", size)
        patch.setattr(bpe, "_PARTS_AT_A_TIME", 3)
        assert "".join(bpe.parts_of(text)) == text
        assert BPE.encode_batch([text, text])[1].tolist() == BPE.encode(text)
        assert BPETokenizer.train([TEXT], vocab_size=280).merges == BPE.merges


@pytest.mark.parametrize("tokenizer", KNOWS_ALL, ids=lambda t: t.name)
def test_no_text_can_end_a_document(tokenizer):
    assert tokenizer.eot_id not in tokenizer.encode(EOT_TEXT)
    assert tokenizer.decode([tokenizer.eot_id]) == EOT_TEXT
    assert tokenizer.token_bytes()[tokenizer.eot_id] == 0


def test_documents_are_told_apart():
    ids = [*BYTES.encode("one"), BYTES.eot_id, BYTES.eot_id, *BYTES.encode("two")]
    assert BYTES.decode_documents(ids) == ["one", "two"]


def test_characters_have_ids_in_code_point_order():
    tokenizer = CharTokenizer.train(["hello"])
    assert tokenizer.encode("ehlo") == [0, 1, 2, 3]
    assert tokenizer.eot_id == 4
    assert tokenizer.vocab_size == 5


def test_an_unknown_character_is_named():
    with pytest.raises(ValueError, match=r"'é' \(U\+00E9\) is not among the 2 characters .*'characters\+unknown'"):
        CharTokenizer("ab").encode("abé")


def test_an_unknown_word_is_named():
    with pytest.raises(ValueError, match="the word ' cat' is not in this vocabulary of 4 words"):
        WORDS.encode("the cat")


def test_word_ids_stay_when_the_vocabulary_grows():
    small, large = (WordTokenizer(words, split=str.split) for words in (["a", "b"], ["a", "b", "c"]))
    assert small.encode("b a") == large.encode("b a")
    assert small.eot_id == large.eot_id


def test_a_word_listed_twice_is_an_error():
    with pytest.raises(ValueError, match="lists a word twice: 'b'"):
        WordTokenizer(["a", "b", "b"], split=str.split)


def test_every_merge_is_the_most_frequent_pair_of_its_moment():
    words = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    merges = BPETokenizer.train([" ".join(words)], vocab_size=256 + 1 + 12).merges
    pieces = [list(words[0]), *([*"Ġ", *word] for word in words[1:])]
    for merge in merges:
        counts = Counter(pair for word in pieces for pair in pairwise(word))
        left, right = merge.split(" ")
        assert counts[left, right] == max(counts.values())
        pieces = [merge_pair(word, left, right) for word in pieces]
    assert len(merges) == 12


def merge_pair(word: list[str], left: str, right: str) -> list[str]:
    merged: list[str] = []
    for piece in word:
        if piece == right and merged and merged[-1] == left:
            merged[-1] = left + right
        else:
            merged.append(piece)
    return merged


def test_bpe_ids_begin_with_the_bytes():
    assert BPE.pieces[:256] == tuple(bytes([b]) for b in range(256))
    assert BPE.vocab_size == 280
    assert len(set(byte_alphabet())) == 256


def test_bpe_stops_when_nothing_is_left_to_merge():
    tokenizer = BPETokenizer.train(["ab ab"], vocab_size=5000)
    assert 257 < tokenizer.vocab_size < 262
    assert tokenizer.name == f"bpe-{tokenizer.vocab_size}"


def test_bpe_training_is_the_same_in_every_process():
    code = (
        "from kancourse.lab.bpe import BPETokenizer; import sys;"
        "print(BPETokenizer.train([sys.argv[1]], vocab_size=280).merges)"
    )
    other = subprocess.run([sys.executable, "-c", code, TEXT], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(BPE.merges)


def test_bpe_needs_room_for_the_bytes():
    with pytest.raises(ValueError, match=r"at least 257 ids .* got 256"):
        BPETokenizer.train([TEXT], vocab_size=256)


def test_gpt2_says_what_works_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.delenv("KANCOURSE_DATA", raising=False)
    with pytest.raises(ConnectionError, match=r"vocab.bpe and encoder.json into \$KANCOURSE_DATA/gpt2, or use .*'bpe'"):
        train_tokenizer("gpt2", [])


def test_gpt2_refuses_other_files(monkeypatch, tmp_path):
    (tmp_path / "gpt2").mkdir()
    for name in GPT2_FILES:
        (tmp_path / "gpt2" / name).write_text("#version: 0.2\n")
    monkeypatch.setenv("KANCOURSE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"[Hh]ash"):
        train_tokenizer("gpt2", [])


@pytest.mark.download
def test_gpt2_ids_are_the_published_ones():
    tokenizer = train_tokenizer("gpt2", [])
    assert (tokenizer.vocab_size, tokenizer.eot_id) == (50257, 50256)
    assert tokenizer.encode("Hello world") == [15496, 995]


def test_unknown_names_list_the_known():
    with pytest.raises(
        ValueError, match="unknown tokenizer 'letters'; known: " + ", ".join(TOKENIZERS).replace("+", ".")
    ):
        train_tokenizer("letters", [])
    with pytest.raises(ValueError, match="unknown tokenizer kind 'x'; known: bytes, characters, words, bpe, gpt2"):
        Tokenizer.from_dict({"kind": "x"})
    with pytest.raises(ValueError, match="only microworld has"):
        train_tokenizer("words", [TEXT])
    with pytest.raises(ValueError, match="at least one character"):
        train_tokenizer("characters", [""])
    with pytest.raises(ValueError, match="'strict' or 'replace'"):
        CharTokenizer.train([TEXT], errors="ignore")
