"""The reference numbers of a split, and a cache that is whole or absent, whatever happens while it is written."""

import errno
import itertools
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kancourse.lab import token_cache
from kancourse.lab.token_cache import SplitWriter, cache_key, open_or_build
from kancourse.lab.tokens import TokenArray

EOT = 5
DOCUMENTS = st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KANCOURSE_CACHE", str(tmp_path))
    return tmp_path / "tokens"


def split_of(documents):
    return TokenArray.from_documents(documents, eot_id=EOT, vocab_size=6)


@given(documents=DOCUMENTS)
def test_documents_are_closed_and_found_again(documents):
    tokens = split_of(documents)
    assert [tokens.document(i).tolist() for i in range(tokens.n_documents)] == [[*d, EOT] for d in documents]
    assert tokens.document_lengths().tolist() == [len(d) + 1 for d in documents]
    assert len(tokens) == sum(map(len, documents)) + len(documents)


@given(documents=DOCUMENTS, other=DOCUMENTS)
def test_unigram_entropies_are_those_of_the_counts(documents, other):
    tokens, train = split_of(documents), split_of(other)
    counts, train_counts = Counter(tokens.ids.tolist()), Counter(train.ids.tolist())
    entropy = -sum(n / len(tokens) * math.log(n / len(tokens)) for n in counts.values())
    cross = -sum(n * math.log((train_counts[i] + 1) / (len(train) + 6)) for i, n in counts.items()) / len(tokens)
    assert tokens.unigram_entropy() == pytest.approx(entropy, abs=1e-12)
    assert tokens.unigram_cross_entropy(train) == pytest.approx(cross, abs=1e-12)
    assert tokens.unigram_cross_entropy(train) >= tokens.unigram_entropy() - 1e-12


def test_counting_in_pieces_is_counting(monkeypatch):
    monkeypatch.setattr("kancourse.lab.tokens._CHUNK", 7)
    assert split_of([[0, 1, 2, 3, 4]] * 5).counts.tolist() == [5] * 6


def test_a_loss_in_bits():
    tokens = TokenArray(
        ids=np.zeros(100, dtype=np.uint16),
        starts=np.array([0]),
        eot_id=5,
        vocab_size=6,
        n_characters=200,
        n_bytes=400,
        log_prob=-50 * math.log(2),
    )
    assert tokens.bits_per_character(math.log(2)) == pytest.approx(0.5)
    assert tokens.bits_per_byte(math.log(2)) == pytest.approx(0.25)
    assert tokens.characters_per_token == 2.0
    assert tokens.floor == pytest.approx(0.5 * math.log(2))
    assert tokens.bits_per_character(tokens.floor) * tokens.n_characters == pytest.approx(50)
    assert split_of([[1]]).floor is None


def writes(documents=(("ab", [0, 1], -1.5), ("é", [2], -0.5)), *, vocab_size=6, calls=None):
    """A `build` for `open_or_build` that writes one split "train"."""

    def build(folder):
        if calls is not None:
            calls.append(1)
        with SplitWriter(folder, "train", eot_id=EOT, vocab_size=vocab_size) as writer:
            for text, ids, log_prob in documents:
                writer.add(np.array(ids), text, log_prob)
            return {"splits": [writer.finish()]}

    return build


def test_what_is_written_is_read():
    tokens = open_or_build({"x": 1}, writes())["splits"]["train"]
    assert tokens.ids.tolist() == [0, 1, EOT, 2, EOT]
    assert tokens.ids.dtype == np.uint16
    assert tokens.starts.tolist() == [0, 3]
    assert (tokens.n_characters, tokens.n_bytes, tokens.log_prob) == (3, 4, -2.0)
    assert isinstance(tokens.ids.base, np.memmap)


@given(documents=DOCUMENTS, chunk=st.integers(1, 10))
def test_writing_in_pieces_is_writing(documents, chunk):
    counter = next(_numbers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_cache, "_CHUNK", chunk)
        build = writes([("?" * len(d), d, None) for d in documents])
        tokens = open_or_build({"number": counter}, build)["splits"]["train"]
    expected = split_of(documents)
    assert tokens.ids.tolist() == expected.ids.tolist()
    assert tokens.starts.tolist() == expected.starts.tolist()
    assert tokens.n_characters == expected.n_characters


_numbers = itertools.count()


@pytest.mark.parametrize(("vocab_size", "kind"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_ids_are_as_small_as_the_vocabulary_allows(vocab_size, kind):
    build = writes([("a", [vocab_size - 1], None)], vocab_size=vocab_size)
    tokens = open_or_build({}, build)["splits"]["train"]
    assert tokens.ids.dtype == kind
    assert tokens.ids.tolist() == [vocab_size - 1, EOT]
    assert tokens.log_prob is None


def test_one_unknown_log_probability_makes_the_floor_unknown():
    tokens = open_or_build({}, writes([("a", [0], -1.0), ("b", [1], None), ("c", [2], -1.0)]))["splits"]["train"]
    assert tokens.floor is None


def test_a_cache_is_made_once():
    calls = []
    for _ in range(3):
        open_or_build({"x": 1}, writes(calls=calls))
    assert len(calls) == 1


def test_a_key_holds_everything():
    keys = [cache_key(made_from) for made_from in ({}, {"a": 1}, {"a": 2}, {"b": 1}, {"a": [1]}, {"a": {"b": None}})]
    assert len(set(keys)) == len(keys)
    assert cache_key({"a": 1, "b": 2}) == cache_key({"b": 2, "a": 1})


def test_a_key_holds_the_file_format(monkeypatch):
    before = cache_key({"a": 1})
    monkeypatch.setattr(token_cache, "FORMAT", token_cache.FORMAT + 1)
    assert cache_key({"a": 1}) != before


DAMAGES = {
    "cut short": lambda folder: os.truncate(folder / "train.ids", 6),
    "replaced": lambda folder: (folder / "train.ids").write_bytes(b"0123456789"),
    "emptied": lambda folder: (folder / "train.starts").write_bytes(b""),
    "missing": lambda folder: (folder / "train.ids").unlink(),
    "facts cut short": lambda folder: os.truncate(folder / "facts.json", 20),
    "foreign facts": lambda folder: (folder / "facts.json").write_text('["something else"]'),
    "no facts": lambda folder: (folder / "facts.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_again(damage, cache, caplog):
    open_or_build({"x": 1}, writes())
    [folder] = cache.iterdir()
    DAMAGES[damage](folder)
    with caplog.at_level(logging.WARNING):
        tokens = open_or_build({"x": 1}, writes())["splits"]["train"]
    assert tokens.ids.tolist() == [0, 1, EOT, 2, EOT]
    assert "is damaged" in caplog.text
    assert list(cache.iterdir()) == [folder]


def test_a_failed_build_leaves_nothing(cache):
    def build(folder):
        with SplitWriter(folder, "train", eot_id=EOT, vocab_size=6) as writer:
            writer.add(np.array([1]), "a", None)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        open_or_build({}, build)
    assert list(cache.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing(cache):
    def build(folder):
        (folder / "train.ids").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"no room for tokens in .*; set KANCOURSE_CACHE to a disk with room"):
        open_or_build({}, build)
    assert list(cache.iterdir()) == []


def test_a_cache_folder_that_cannot_be_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("KANCOURSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot write the token cache .*; set KANCOURSE_CACHE"):
        open_or_build({}, writes())


CHILD = """
import sys, time
import numpy as np
from pathlib import Path
from kancourse.lab.token_cache import SplitWriter, open_or_build

def build(folder):
    with SplitWriter(folder, "train", eot_id=5, vocab_size=6) as writer:
        writer.add(np.array([0, 1]), "ab", None)
        writer._write()
        Path(sys.argv[1]).touch()
        while sys.argv[2] == "hang" or not Path(sys.argv[2]).exists():
            time.sleep(0.01)
        return {"splits": [writer.finish()]}

print(open_or_build({"x": 1}, build)["splits"]["train"].ids.tolist())
"""


def start(*arguments):
    return subprocess.Popen([sys.executable, "-c", CHILD, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def wait_for(*paths):
    for _ in range(6000):
        if all(path.exists() for path in paths):
            return
        time.sleep(0.01)
    raise AssertionError(f"{paths} did not appear in a minute")


def test_a_killed_writer_leaves_no_half_cache(cache, tmp_path):
    child = start(tmp_path / "writing", "hang")
    wait_for(tmp_path / "writing")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert [path.name for path in cache.iterdir() if not path.name.startswith(".making-")] == []
    assert open_or_build({"x": 1}, writes())["splits"]["train"].ids.tolist() == [0, 1, EOT, 2, EOT]
    [left] = cache.glob(".making-*")
    for path in [*left.iterdir(), left]:
        os.utime(path, (0, 0))
    open_or_build({"x": 2}, writes())
    assert not left.exists(), "what a killed writer left is swept away a day later"


def test_writers_at_the_same_time_agree(cache, tmp_path):
    started = [tmp_path / f"started{i}" for i in range(2)]
    children = [start(path, tmp_path / "go") for path in started]
    wait_for(*started)
    (tmp_path / "go").touch()
    assert [child.communicate()[0].strip() for child in children] == ["[0, 1, 5]"] * 2
    assert [path.name for path in cache.iterdir()] == [cache_key({"x": 1})]


def test_facts_are_readable_by_people(cache):
    open_or_build({"x": 1}, writes())
    [folder] = cache.iterdir()
    [split] = json.loads((folder / "facts.json").read_text())["splits"]
    assert split["n_tokens"] == 5
    assert split["files"]["ids"]["bytes"] == 10
