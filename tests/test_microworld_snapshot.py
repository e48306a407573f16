"""The snapshot: the same bytes every time, checked when loaded, with exact probabilities."""

import hashlib
import itertools
import math
import shutil

import pytest

from kancourse.lab.microworld import LEVELS, log_prob, snapshot, stream
from kancourse.lab.microworld.snapshot import SEED, SIZES, load, part, render
from kancourse.paths import data_dir

FOLDER = data_dir() / "microworld"


@pytest.mark.parametrize("level", LEVELS)
def test_generating_anew_gives_the_same_bytes(level):
    for split in SIZES[level]:
        for name, content in render(part(level, split), level, split).items():
            assert (FOLDER / name).read_bytes() == content, f"{name}: run kancourse.lab.microworld.write_snapshot()"


def test_the_checksums_cover_every_file():
    listed = dict(reversed(line.split()) for line in (FOLDER / "SHA256SUMS").read_text().splitlines())
    files = {path.name for path in FOLDER.iterdir()} - {"SHA256SUMS", "README.md"}
    assert set(listed) == files
    for name in files:
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == listed[name]


@pytest.mark.parametrize("level", LEVELS)
def test_documents_load_with_their_exact_probability(level):
    train, val = snapshot(level)
    assert train[:5] == tuple(itertools.islice(stream(SEED, level), 5))
    assert val[:5] == tuple(itertools.islice(stream(SEED, level, split="val"), 5))
    for document in (*train[::200], *val[::50]):
        assert log_prob(document.text, level) == pytest.approx(document.log_prob, abs=1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_the_floor_of_the_snapshot_is_that_of_fresh_documents(level):
    train, _ = snapshot(level)
    known = [document.log_prob for document in train]
    fresh = [document.log_prob for document in itertools.islice(stream(99, level), 1500)]
    means = [sum(values) / len(values) for values in (known, fresh)]
    errors = [
        math.sqrt(sum((v - m) ** 2 for v in values)) / len(values)
        for values, m in zip((known, fresh), means, strict=True)
    ]
    assert abs(means[0] - means[1]) < 4 * math.hypot(*errors)


def test_a_changed_or_missing_file_is_one_clear_error(tmp_path):
    for name in ("level1.val.txt", "level1.val.tsv", "SHA256SUMS"):
        shutil.copy(FOLDER / name, tmp_path / name)
    assert load(tmp_path, 1, "val") == snapshot(1)[1]
    text = (tmp_path / "level1.val.txt").read_text()
    (tmp_path / "level1.val.txt").write_text(text.replace("Tom", "Tim", 1))
    with pytest.raises(ValueError, match=r"level1\.val\.txt was changed: its sha256 is .* SHA256SUMS says"):
        load(tmp_path, 1, "val")
    (tmp_path / "level1.val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks .*level1\.val\.txt: reinstall"):
        load(tmp_path, 1, "val")


def test_an_unknown_level_is_named():
    with pytest.raises(ValueError, match="unknown level 4; known: 1, 2, 3"):
        snapshot(4)
