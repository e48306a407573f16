"""Named corpora on small files of the published schemas; splits, limits, caches; every way in which it can go wrong."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kancourse.lab import local_files, microworld
from kancourse.lab.batches import DocumentWindows, RandomWindows
from kancourse.lab.bpe import BPETokenizer
from kancourse.lab.corpus import load_corpus
from kancourse.lab.documents import first_characters, in_batches, split_documents
from kancourse.lab.readers import Opened, open_source
from kancourse.lab.sources import CORPORA
from kancourse.lab.tokenizers import Tokenizer

REAL_DATA = os.environ.get("KANCOURSE_DATA")
EOT = "<|endoftext|>"
STORIES = [
    f"Once upon a time there was a {animal} who liked the number {n}.\n\nThe end."
    for n, animal in enumerate(["cat", "dog", "bear", "bird", "fish", "frog", "goat", "hen", "lion", "mouse"] * 4)
]
BODY = " \n It has a line = that = looks like one . \n \n = = History = = \n \n It began . \n = no title = \n \n"
ARTICLES = [f" = {title} = \n{BODY}" for title in ("Alpha", "Beta", "Gamma Ray")]


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """An empty data folder and an empty cache; nothing may go to the network."""
    monkeypatch.setenv("KANCOURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("KANCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="")
    return path


def write_parquet(path: Path, columns: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=7)
    return path


def texts(corpus, split: str) -> list[str]:
    tokens = getattr(corpus, split)
    return [corpus.tokenizer.decode(tokens.document(i)[:-1]) for i in range(tokens.n_documents)]


# ---- A text of one's own


def test_one_text_is_cut_at_nine_tenths(data):
    text = "".join(chr(97 + i % 26) for i in range(1005))
    corpus = load_corpus(str(write(data / "letters.txt", text)))
    assert texts(corpus, "train") == [text[:904]]
    assert texts(corpus, "val") == [text[904:]]
    assert (corpus.train.n_characters, corpus.val.n_characters) == (904, 101)
    assert corpus.tokenizer.name == "bytes"
    assert corpus.train.ids[-1] == corpus.tokenizer.eot_id


def test_a_text_keeps_every_character_but_the_byte_order_mark(data):
    text = "one\r\ntwo\n\n\n three\t\r\n" * 5
    path = write(data / "windows.txt", "\ufeff" + text)
    corpus = load_corpus(str(path), validation_fraction=0.5)
    assert "".join(texts(corpus, "train") + texts(corpus, "val")) == text


def test_lines_of_endoftext_divide_documents(data):
    path = write(data / "stories.txt", f"\n{EOT}\n".join(STORIES) + f"\n{EOT}\n")
    corpus = load_corpus(str(path))
    assert sorted(texts(corpus, "train") + texts(corpus, "val")) == sorted(STORIES)
    assert corpus.train.n_documents + corpus.val.n_documents == len(STORIES)
    assert corpus.train.n_documents > corpus.val.n_documents > 0


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_tables_of_ones_own(data, suffix):
    path = data / f"mine{suffix}"
    if suffix == ".jsonl":
        write(path, "".join(json.dumps({"text": story, "n": 1}) + "\n\n" for story in [*STORIES, None]))
    else:
        write_parquet(path, {"text": [*STORIES[:20], None, *STORIES[20:]]})
    corpus = load_corpus(str(path))
    assert sorted(texts(corpus, "train") + texts(corpus, "val")) == sorted(STORIES)


# ---- The named corpora, from local files of the published schemas


def test_web_pages_from_parquet(data):
    more = {"id": ["<urn:uuid:1>"] * 40, "dump": ["CC-MAIN-2024-10"] * 40, "token_count": list(range(40))}
    write_parquet(data / "openwebtext" / "plain_text" / "train-00000-of-00080.parquet", {"text": STORIES[:20]})
    write_parquet(data / "openwebtext" / "plain_text" / "train-00001-of-00080.parquet", {"text": STORIES[20:]})
    write_parquet(data / "fineweb" / "sample" / "10BT" / "000_00000.parquet", {"text": STORIES, **more})
    for name in ("openwebtext", "fineweb"):
        corpus = load_corpus(name, tokenizer="bytes", validation_fraction=0.3)
        assert sorted(texts(corpus, "train") + texts(corpus, "val")) == sorted(STORIES)
        assert "only the first 200,000,000 characters" in corpus.note


def test_tinystories_from_text_and_from_parquet(data):
    folder = data / "tinystories"
    write(folder / "TinyStories-train.txt", f"\n{EOT}\n".join(STORIES[:30]))
    write(folder / "TinyStories-valid.txt", f"\n{EOT}\n".join(STORIES[30:]) + f"\n{EOT}\n")
    from_text = load_corpus("tinystories", tokenizer="bytes")
    for path in folder.iterdir():
        path.unlink()
    write_parquet(folder / "data" / "train-00000-of-00004-2d5a1467fff1081b.parquet", {"text": STORIES[:30]})
    write_parquet(folder / "data" / "validation-00000-of-00001-869c898b519ad725.parquet", {"text": STORIES[30:]})
    from_parquet = load_corpus("tinystories", tokenizer="bytes")
    for corpus in (from_text, from_parquet):
        assert texts(corpus, "train") == STORIES[:30]
        assert texts(corpus, "val") == STORIES[30:]


def test_wikitext_articles_from_text_and_from_parquet(data):
    for part, articles in (("train", ARTICLES[:2]), ("validation", ARTICLES[2:]), ("test", ARTICLES[:1])):
        write(data / "wikitext2" / f"wiki.{part[:5]}.tokens", " \n" + "".join(articles))
        lines = (" \n" + "".join(articles)).splitlines(keepends=True)
        rows = [line if line.strip() else "" for line in lines]  # as the Hub's table has them
        for config in ("wikitext-103-raw-v1", "wikitext-2-raw-v1"):
            folder = data / "wikitext103" / config
            write_parquet(folder / f"{part}-00000-of-00001.parquet", {"text": rows if "103" in config else ["wrong"]})
    for name in ("wikitext2", "wikitext103"):
        corpus = load_corpus(name, tokenizer="bytes")
        assert "".join(texts(corpus, "train")) == " \n" + "".join(ARTICLES[:2])
        assert [text.split(" = ")[1] for text in texts(corpus, "train")] == ["Alpha", "Beta"]
        assert [text.split(" = ")[1] for text in texts(corpus, "val")] == ["Gamma Ray"]
        assert corpus.note == ""


def test_philosophy_joins_the_passages_of_an_article(data):
    rows = [(f"https://plato.stanford.edu/entries/{i // 3}/", f"Passage {i}.", "ethics") for i in range(60)]
    metadata, text, category = zip(*rows, strict=True)
    write_parquet(
        data / "philosophy" / "data" / "train-00000-of-00001.parquet",
        {"metadata": metadata, "text": text, "category": category},
    )
    corpus = load_corpus("philosophy", tokenizer="bytes")
    found = sorted(texts(corpus, "train") + texts(corpus, "val"))
    assert len(found) == 20
    assert "Passage 3.\n\nPassage 4.\n\nPassage 5." in found


def test_parts_that_are_missing_are_replaced_and_it_says_so(data):
    write(data / "wikitext2" / "valid.txt", ARTICLES[0])
    write(data / "wikitext2" / "test.txt", ARTICLES[1])
    corpus = load_corpus("wikitext2", tokenizer="bytes")
    assert (texts(corpus, "train"), texts(corpus, "val")) == ([ARTICLES[0]], [ARTICLES[1]])
    assert corpus.note.startswith("the local folder has no training part: valid.txt is trained on and test.txt")
    assert corpus.note in str(corpus)
    write(data / "tinystories" / "train.txt", STORIES[0])
    write(data / "tinystories" / "test.txt", STORIES[1])
    assert (
        "no validation part: train.txt is trained on and test.txt" in load_corpus("tinystories", tokenizer="bytes").note
    )
    write(data / "philosophy" / "test.txt", STORIES[0])
    assert "only test.txt: it is split" in load_corpus("philosophy", tokenizer="bytes").note


def test_every_row_is_pinned_and_says_whose_text_it_is():
    for row in CORPORA.values():
        assert row.licence
        assert row.about
        assert row.url or row.repo
        if row.url:
            assert len(row.sha256) == 64
        else:
            assert len(row.revision) == 40 or row.revision == "refs/convert/parquet"
        assert not (row.streamed and row.max_characters is None), "an endless download needs a limit"


# ---- The Hub, by the library's own code on a local repository


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder laid out as a Hub repository, that `load_dataset` reads instead."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    yield tmp_path / "repo"
    datasets.enable_progress_bars()


@pytest.mark.parametrize("streamed", [False, True])
def test_the_hub_gives_what_a_local_folder_gives(data, hub, streamed):
    lines = [line if line.strip() else "" for line in "".join(ARTICLES).splitlines(keepends=True)]
    header = "---\nconfigs:\n- config_name: raw\n  data_files:\n  - split: train\n    path: raw/train-*\n"
    header += "  - split: validation\n    path: raw/validation-*\n---\n"
    write(hub / "README.md", header)
    write_parquet(hub / "raw" / "train-00000-of-00001.parquet", {"text": lines, "other": list(range(len(lines)))})
    write_parquet(hub / "raw" / "validation-00000-of-00001.parquet", {"text": lines[:8], "other": list(range(8))})
    row = dataclasses.replace(CORPORA["wikitext103"], repo=str(hub), config="raw", streamed=streamed)
    opened = open_source(row)
    assert list(opened.parts) == ["train", "val"]
    assert list(opened.parts["train"]()) == ARTICLES
    assert list(opened.parts["val"]()) == ["".join(line or " \n" for line in lines[:8])]
    assert opened.identity == {"repo": str(hub), "config": "raw", "revision": row.revision}


def test_the_hub_is_asked_for_the_pinned_revision(monkeypatch):
    import datasets

    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for name in ("wikitext103", "fineweb", "openwebtext", "tinystories", "philosophy"):
        row = CORPORA[name]
        with pytest.raises(
            ConnectionError,
            match=rf"cannot download {name} \(no network\), and .*/{name} holds none of it; .* put .*/{name}/",
        ):
            load_corpus(name)
        expected = {"split": row.splits[0], "revision": row.revision, "streaming": row.streamed}
        assert asked.pop() == ((row.repo, row.config), expected)


def test_offline_everything_says_what_to_do(data):
    """In a process of its own, for the libraries read HF_HUB_OFFLINE once, when they are imported."""
    write(data / "wikitext2" / "train.txt", ARTICLES[0])
    code = (
        "from kancourse.lab.corpus import load_corpus\n"
        "for name in ('fineweb', 'wikitext103', 'tinystories', 'tinyshakespeare'):\n"
        "    try:\n"
        "        load_corpus(name)\n"
        "    except ConnectionError as error:\n"
        "        print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    for name, line in zip(("fineweb", "wikitext103", "tinystories", "tinyshakespeare"), lines, strict=True):
        assert line.startswith(f"cannot download {name} (")
        assert f"$KANCOURSE_DATA/{name}/" in line
        assert line.endswith("these work now: microworld, wikitext2, any text file by its path")


def test_a_single_file_is_downloaded_once_and_checked(data, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    text = "To be, or not to be. " * 50
    served = write(tmp_path / "served.txt", text)
    row = dataclasses.replace(
        CORPORA["tinyshakespeare"], url=served.as_uri(), sha256=local_files.file_sha256(served), name="shakespeare"
    )
    assert "".join(open_source(row).parts["all"]()) == text
    served.unlink()
    opened = open_source(row)
    assert "".join(opened.parts["all"]()) == text
    assert opened.identity == {"url": row.url, "sha256": row.sha256}
    write(served, text + "!")
    other = dataclasses.replace(row, sha256="0" * 64)
    with pytest.raises(ValueError, match=r"download of shakespeare has sha256 .*, expected 000000000000"):
        open_source(other)
    assert not (tmp_path / "cache" / "downloads" / other.sha256).exists()


@pytest.mark.download
@pytest.mark.parametrize("name", sorted(CORPORA))
def test_the_real_thing_can_be_had(name, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    corpus = load_corpus(name, tokenizer="bytes", n_documents=300, max_characters=2_000_000, validation_fraction=0.1)
    assert corpus.train.n_characters > 100_000
    assert corpus.val.n_characters > 1_000


# ---- Splits, limits, tokenizers, cache


def opened(documents: list[str], **parts) -> Opened:
    return Opened(parts=parts or {"all": lambda: iter(documents)}, identity={})


LIMITS = {"n_documents": None, "max_characters": None}
DOCUMENTS = st.lists(st.text(min_size=1, max_size=8), max_size=40)


@given(documents=DOCUMENTS, seed=st.integers(0, 9), fraction=st.floats(0.05, 0.95))
def test_a_split_loses_nothing_and_keeps_copies_together(documents, seed, fraction):
    result = list(split_documents(opened(documents), fraction=fraction, seed=seed, **LIMITS))
    assert [text for _, text, _ in result] == [text for text in documents if text.strip()]
    side = {}
    for split, text, _ in result:
        assert side.setdefault(text, split) == split
    backwards = split_documents(opened(documents[::-1]), fraction=fraction, seed=seed, **LIMITS)
    assert {text: split for split, text, _ in backwards} == side


def test_the_share_held_out_is_the_one_asked_for():
    many = [f"document {i}" for i in range(20_000)]
    for seed in (0, 1):
        splits = [split for split, _, _ in split_documents(opened(many), fraction=0.1, seed=seed, **LIMITS)]
        assert abs(splits.count("val") - 2000) < 4 * (20_000 * 0.1 * 0.9) ** 0.5
    assert splits != [split for split, _, _ in split_documents(opened(many), fraction=0.1, seed=0, **LIMITS)]


@given(documents=DOCUMENTS, limit=st.integers(1, 100), number=st.integers(1, 30), single=st.booleans())
def test_limits_hold(documents, limit, number, single):
    source = dataclasses.replace(opened(documents), by_position=single)
    read = list(split_documents(source, fraction=0.1, seed=0, n_documents=None, max_characters=limit))
    assert sum(len(text) for _, text, _ in read) <= limit
    few = list(split_documents(opened(documents), fraction=0.1, seed=0, n_documents=number, max_characters=None))
    assert len(few) == min(number, sum(bool(text.strip()) for text in documents))


def test_a_stream_is_not_read_beyond_its_limit():
    read = []

    def endless():
        while True:
            read.append(1)
            yield "ten chars."

    parts = {"train": endless, "val": endless}
    result = list(split_documents(opened([], **parts), fraction=0.2, seed=0, n_documents=None, max_characters=1000))
    assert [split for split, _, _ in result] == ["train"] * 80 + ["val"] * 20
    assert len(read) <= 102
    counted = split_documents(opened([], **parts), fraction=0.2, seed=0, n_documents=50, max_characters=None)
    assert [split for split, _, _ in counted] == ["train"] * 40 + ["val"] * 10


@given(documents=DOCUMENTS, limit=st.integers(1, 60))
def test_first_characters_are_the_first(documents, limit):
    assert "".join(first_characters(documents, limit)) == "".join(documents)[:limit]


def test_documents_come_in_bounded_batches(monkeypatch):
    monkeypatch.setattr("kancourse.lab.documents._BATCH_CHARACTERS", 10)
    documents = [("train", "abcd", None)] * 7
    batches = list(in_batches(iter(documents)))
    assert [len(batch) for batch in batches] == [3, 3, 1]


def test_the_tokenizer_never_sees_the_validation_text(data):
    path = str(write(data / "a.txt", "abcabc" * 30 + "abcabcabczzzabcabczz"))
    with pytest.raises(
        ValueError, match=r"the character 'z' \(U\+007A\) is not among the 3 characters of the training"
    ):
        load_corpus(path, tokenizer="characters")
    assert load_corpus(path, tokenizer="characters+unknown").val.n_characters == 20
    text = "".join(STORIES)
    corpus = load_corpus(str(write(data / "b.txt", text)), tokenizer="bpe", vocab_size=350)
    assert corpus.tokenizer.merges == BPETokenizer.train([text[: int(len(text) * 0.9)]], vocab_size=350).merges


def test_a_given_tokenizer_is_used(data):
    path = str(write(data / "a.txt", "".join(STORIES)))
    tokenizer = BPETokenizer.train(["the end. " * 9], vocab_size=270)
    corpus = load_corpus(path, tokenizer=tokenizer)
    assert corpus.tokenizer is tokenizer
    assert corpus.val.vocab_size == tokenizer.vocab_size
    assert "".join(texts(corpus, "train") + texts(corpus, "val")) == "".join(STORIES)


def test_the_cache_is_used_again_and_carries_the_tokenizer(data, monkeypatch):
    path = str(write(data / "a.txt", "".join(STORIES)))
    first = load_corpus(path, tokenizer="bpe", vocab_size=300)
    monkeypatch.setattr("kancourse.lab.tokenise.train_tokenizer", None)
    second = load_corpus(path, tokenizer="bpe", vocab_size=300)
    assert second.describe() == first.describe()
    assert second.tokenizer.to_dict() == first.tokenizer.to_dict()
    assert (second.train.ids == first.train.ids).all()


def test_whatever_makes_a_difference_makes_another_cache(data, tmp_path):
    path = write(data / "a.txt", f"\n{EOT}\n".join(STORIES))
    made = lambda: len(list((tmp_path / "cache" / "tokens").iterdir()))  # noqa: E731
    options = [
        {},
        {"tokenizer": "characters"},
        {"tokenizer": "bpe", "vocab_size": 300},
        {"tokenizer": "bpe", "vocab_size": 301},
        {"tokenizer": BPETokenizer.train(["aa"], vocab_size=258)},
        {"tokenizer": BPETokenizer.train(["bb"], vocab_size=258)},
        {"seed": 1},
        {"validation_fraction": 0.3},
        {"n_documents": 30},
        {"max_characters": 1500},
    ]
    for number, option in enumerate(options, 1):
        load_corpus(str(path), **option)
        load_corpus(str(path), **option)
        assert made() == number, option
    write(path, f"\n{EOT}\n".join([*STORIES, "One more."]))
    load_corpus(str(path))
    assert made() == len(options) + 1


def test_files_of_the_same_name_in_two_folders_both_count(data, monkeypatch):
    for folder in ("2013", "2024"):
        write_parquet(data / "fineweb" / folder / "000_00000.parquet", {"text": [f"{folder} {s}" for s in STORIES]})
    before = open_source(CORPORA["fineweb"]).identity["files"]
    assert list(before) == ["2013/000_00000.parquet", "2024/000_00000.parquet"]
    write_parquet(data / "fineweb" / "2013" / "000_00000.parquet", {"text": STORIES})
    after = open_source(CORPORA["fineweb"]).identity["files"]
    assert [before[name] == after[name] for name in before] == [False, True]
    monkeypatch.setattr(local_files, "HASHED_WHOLE", 10)
    assert all(" (ends of " in sha for sha in open_source(CORPORA["fineweb"]).identity["files"].values())


def test_a_corpus_describes_itself(data):
    corpus = load_corpus(str(write(data / "a.txt", "".join(STORIES))))
    facts = json.loads(json.dumps(corpus.describe()))
    assert facts == corpus.describe()
    assert facts["corpus"] == "a.txt"
    assert list(facts["source"]["files"]) == ["a.txt"]
    assert len(facts["source"]["files"]["a.txt"]) == 64
    assert facts["tokenizer"] == "bytes"
    assert facts["tokenizer_vocab_size"] == 257
    assert facts["train_tokens"] == len(corpus.train)
    assert facts["val_floor"] is None
    assert str(data) not in json.dumps(facts), "a record names no folder of this machine"
    assert f"{len(corpus.val):,} validation tokens" in str(corpus)


def test_rows_start_at_documents_where_documents_fit(data):
    many = load_corpus(str(write(data / "a.txt", f"\n{EOT}\n".join(STORIES))))
    one = load_corpus(str(write(data / "b.txt", "".join(STORIES))))
    assert type(many.sampler(128, 4)) is DocumentWindows
    assert type(many.sampler(16, 4)) is RandomWindows
    assert type(one.sampler(128, 4)) is RandomWindows
    assert one.sampler(128, 4, seed=3).seed == 3


# ---- microworld


def test_microworld_is_the_default_with_words_and_a_floor():
    corpus = load_corpus()
    train, val = microworld.snapshot(1)
    assert texts(corpus, "val") == [document.text for document in val]
    assert corpus.train.n_documents == len(train)
    assert corpus.tokenizer.vocab_size == len(microworld.vocabulary(1)) + 1
    assert corpus.val.floor == pytest.approx(-sum(document.log_prob for document in val) / len(corpus.val))
    assert 0 < corpus.val.floor < corpus.val.unigram_entropy()
    assert corpus.describe()["val_floor"] == corpus.val.floor
    assert type(corpus.sampler(128, 4)) is DocumentWindows


def test_microworld_floors_agree_in_bits_whatever_the_tokenizer():
    floors = []
    for tokenizer in ("words", "characters", "bytes"):
        val = load_corpus(tokenizer=tokenizer).val
        floors.append(val.bits_per_character(val.floor))
    assert floors == pytest.approx([floors[0]] * 3)


def test_microworld_domains_have_their_own_floor():
    corpus = load_corpus(domains=("sums", "facts"))
    for index in range(0, corpus.val.n_documents, 50):
        text = texts(corpus, "val")[index]
        assert microworld.log_prob(text, 1, ("sums", "facts")) > -math.inf
    total = sum(microworld.log_prob(text, 1, ("sums", "facts")) for text in texts(corpus, "val")[:40])
    kept = [document for document in microworld.snapshot(1)[1] if document.domain in ("sums", "facts")]
    assert [document.text for document in kept] == texts(corpus, "val")
    others = sum(document.log_prob for document in kept[:40])
    assert total == pytest.approx(others + 40 * math.log(2))
    whole = sum(document.log_prob for document in kept) + len(kept) * math.log(2)
    assert corpus.val.log_prob == pytest.approx(whole)


def test_fresh_microworld_documents_keep_the_validation_documents():
    fresh, other = load_corpus(n_documents=60, seed=7), load_corpus(n_documents=60, seed=8)
    expected = [document.text for document, _ in zip(microworld.stream(7), range(60), strict=False)]
    assert texts(fresh, "train") == expected
    assert texts(other, "train") != expected
    assert texts(fresh, "val") == texts(load_corpus(), "val") == texts(other, "val")
    assert fresh.source["seed"] == 7


def test_microworld_levels_keep_their_word_ids():
    low, high = load_corpus(level=1).tokenizer, load_corpus(level=2).tokenizer
    assert high.pieces[: low.vocab_size] == low.pieces
    assert high.eot_id == low.eot_id
    saved = json.loads(json.dumps(low.to_dict()))
    assert Tokenizer.from_dict(saved).pieces == low.pieces


# ---- What can go wrong


def test_every_mistake_ends_in_one_sentence(data):
    mine = {
        "empty": write(data / "empty.txt", ""),
        "latin": data / "latin.txt",
        "small": write(data / "a.txt", "a"),
        "blank": write(data / "b.txt", " \n" * 50),
        "whole": write_parquet(data / "whole.parquet", {"text": STORIES}),
        "cut": data / "cut.parquet",
        "column": write_parquet(data / "column.parquet", {"sentence": STORIES, "label": [1] * 40}),
        "numbers": write_parquet(data / "numbers.parquet", {"text": [1, 2, 3]}),
        "lines": write(data / "x.jsonl", '{"text": "a"}\n{"words": "b"}\n'),
    }
    mine["latin"].write_bytes("Müßiggang".encode("latin-1") * 10)
    mine["cut"].write_bytes(mine["whole"].read_bytes()[:-20])
    write(data / "tinyshakespeare" / "input.txt", "To be or not to be\n" * 99)
    mistakes = [
        (
            {"name": "shakespear"},
            ValueError,
            r"unknown corpus 'shakespear'; known: microworld, tinyshakespeare, .* path",
        ),
        ({"name": "no/such.txt"}, FileNotFoundError, r"there is no file .*such.txt; named corpora: microworld, tiny"),
        ({"name": mine["empty"]}, ValueError, r"empty.txt is empty: there is no text to learn from"),
        ({"name": mine["latin"]}, ValueError, r"latin.txt is not UTF-8 text \(byte 0xfc is out of place\)"),
        ({"name": mine["small"]}, ValueError, r"a.txt is too small: no text is left for the train split"),
        ({"name": mine["blank"]}, ValueError, r"b.txt is too small"),
        ({"name": mine["whole"], "tokenizer": "words"}, ValueError, r"closed vocabulary, which only microworld has"),
        ({"name": mine["cut"]}, ValueError, r"cut.parquet is not a Parquet file: it is cut short"),
        ({"name": mine["column"]}, ValueError, r"column.parquet has no column 'text'; it has: sentence, label"),
        ({"name": mine["numbers"]}, ValueError, r"the column 'text' of numbers.parquet holds int, not text"),
        ({"name": mine["lines"]}, ValueError, r"line 2 of x.jsonl has no column 'text'; it has: words"),
        ({"name": "tinyshakespeare"}, ValueError, r"not the published tinyshakespeare \(sha256 86c4e6aa9db7…, got "),
        ({"tokenizer": "letters"}, ValueError, r"unknown tokenizer 'letters'; known: auto, bytes, characters"),
        ({"level": 4}, ValueError, r"unknown level 4; known: 1, 2, 3"),
        ({"domains": ["poems"]}, ValueError, r"unknown domain 'poems'; known: stories, sums, code, facts"),
        ({"domains": []}, ValueError, r"at least one, got .*; known: stories"),
        ({"max_characters": 9}, ValueError, r"n_documents sets its size"),
        ({"name": mine["small"], "level": 2}, ValueError, r"only microworld has levels, got level=2 for"),
        ({"name": mine["small"], "validation_fraction": 1.0}, ValueError, r"between 0 and 1, got 1.0"),
        ({"name": mine["small"], "n_documents": 0}, ValueError, r"n_documents must be at least 1, got 0"),
        ({"name": mine["small"], "max_characters": -5}, ValueError, r"max_characters must be at least 1, got -5"),
    ]
    for options, kind, sentence in mistakes:
        with pytest.raises(kind, match=sentence):
            load_corpus(**options)


# ---- Real text, where this machine has it


def real(name: str, monkeypatch) -> None:
    if not REAL_DATA or not Path(REAL_DATA, name).is_dir():
        pytest.skip(f"needs the real {name}: set KANCOURSE_DATA to a folder that has it")
    monkeypatch.setenv("KANCOURSE_DATA", REAL_DATA)


def test_tiny_shakespeare_is_split_as_everybody_splits_it(monkeypatch):
    real("tinyshakespeare", monkeypatch)
    corpus = load_corpus("tinyshakespeare")
    assert (corpus.train.n_characters, corpus.val.n_characters) == (1_003_854, 111_540)
    assert corpus.tokenizer.name == "characters"
    assert corpus.tokenizer.vocab_size == 65 + 1
    assert texts(corpus, "train")[0].startswith("First Citizen:\nBefore we proceed")
    assert corpus.val.unigram_entropy() == pytest.approx(3.34, abs=0.01)


def test_wikitext2_parts_hold_sixty_articles_each(monkeypatch):
    real("wikitext2", monkeypatch)
    for row_part in open_source(CORPORA["wikitext2"]).parts.values():
        articles = list(row_part())
        assert len(articles) == 60
        assert all(article.lstrip().startswith("= ") for article in articles)
