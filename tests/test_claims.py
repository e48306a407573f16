"""Claims: the verdict follows from the numbers, and the pages' tables from what is stored.

Run alone: python -m pytest tests/test_claims.py
"""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given
from notebook_fixtures import cell, lesson, write

from kancourse.lesson import claim, claims, tables
from kancourse.lesson.bootstrap import ROOT
from kancourse.lesson.claims import FAILS, HOLDS, SEED, judge
from kancourse.lesson.tables import PAGES, TableArgs, claims_table, refresh
from kancourse.paths import data_dir

STORED = sorted((data_dir() / "claims").glob("*.json"))
BASIC = {"who": "Someone 2024", "says": "It is better.", "holds_when": "measured < baseline"}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "display", lambda made: None)
    monkeypatch.delenv("KANCOURSE_RECORD", raising=False)


@pytest.mark.parametrize(
    ("rule", "band", "baseline", "verdict"),
    [
        ("measured < baseline", (1, 2), [3, 4], HOLDS),
        ("measured < baseline", (1, 3), [3, 4], SEED),
        ("measured < baseline", (4, 5), [3, 4], FAILS),
        ("measured < baseline - 2", (1, 2), [3, 4], SEED),
        ("measured < baseline * 0.5", (1, 1.4), [3, 4], HOLDS),
        ("measured <= 2", (1, 2), None, HOLDS),
        ("measured < 2", (1, 2), None, SEED),
        ("measured < 2", (2, 2), None, FAILS),
        ("measured > baseline + 1", (6, 7), [3, 4], HOLDS),
        ("measured > baseline + 1", (3, 4), [3, 4], FAILS),
        ("measured >= 0.9", (0.9, 0.95), None, HOLDS),
        ("measured >= 0.9", (0.8, 0.95), None, SEED),
        ("measured within 0.2 of baseline", (2.9, 3.1), [3.0], HOLDS),
        ("measured within 0.2 of baseline", (2.7, 3.1), [3.0], SEED),
        ("measured within 0.2 of 1.5", (2.0, 3.0), None, FAILS),
        ("measured > -1e-3", (0, 0), None, HOLDS),
        ("measured < 1.5e+02", (100, 149), None, HOLDS),
    ],
)
def test_rules(rule: str, band: tuple, baseline: list | None, verdict: str) -> None:
    assert judge(rule, {"": band}, {"": baseline} if baseline else {}) == verdict


@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=4),
    st.lists(st.integers(-20, 20), min_size=1, max_size=4),
    st.sampled_from(["<", "<=", ">", ">="]),
)
def test_holds_means_every_pair_of_seeds(measured: list[int], baseline: list[int], op: str) -> None:
    """The band rule says what comparing every measured seed with every baseline seed says."""
    compare = {"<": int.__lt__, "<=": int.__le__, ">": int.__gt__, ">=": int.__ge__}[op]
    pairs = [compare(one, other) for one, other in itertools.product(measured, baseline)]
    expected = HOLDS if all(pairs) else FAILS if not any(pairs) else SEED
    band = (min(measured), max(measured))
    assert judge(f"measured {op} baseline", {"": band}, {"": baseline}) == expected


def test_depends_on_the_setting() -> None:
    made = claim(
        "two_levels",
        **BASIC,
        measured={"level 1": [1, 1.1], "level 3": [5, 6]},
        baseline=[3, 4],
        seeds=(0, 1),
        over="level",
    )
    assert made.verdict == "depends on level: holds for level 1; fails for level 3"


@pytest.mark.parametrize(
    ("seeds", "strength"),
    [
        ([0], "one seed, provisional"),
        ([0, 1], "2 seeds, provisional"),
        ([0, 1, 2], "3 seeds"),
        (None, "no randomness"),
    ],
)
def test_few_seeds_are_marked(seeds: list[int] | None, strength: str) -> None:
    made = claim("few", **BASIC, measured=[1.0] * len(seeds or [0]), baseline=2.0, seeds=seeds)
    shown = made._repr_mimebundle_()
    assert made.strength == strength
    assert f"**Claim: holds** ({strength})" in shown["text/markdown"]
    assert f"HOLDS ({strength}): It is better. (Someone 2024)" in shown["text/plain"]
    assert f"| holds | {strength} |" in claims_table([made], {})


def test_a_timing_says_so_and_a_claim_of_before_loads(tmp_path: Path) -> None:
    made = claim("timed", **BASIC, measured=1.0, baseline=2.0, seeds=None, timed=True)
    assert "**Claim: holds** (one timing)" in made._repr_mimebundle_()["text/markdown"]
    path = claims.save(made, tmp_path)
    assert claims.load(path).strength == "one timing"
    stored = json.loads(path.read_text())
    del stored["timed"]  # as they were stored before
    path.write_text(json.dumps(stored))
    assert claims.load(path).strength == "no randomness"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"id": "Big Id"}, "an id is lower-case letters"),
        ({"holds_when": "measured is good"}, "rule 'measured is good' is not understood; known: \"measured < 1.75\""),
        ({"holds_when": "measured < 3 or True"}, "is not understood"),
        ({"baseline": None}, "names a baseline, but none is given"),
        ({"measured": [1.0, float("nan")]}, "must be finite numbers"),
        ({"measured": []}, "must be finite numbers"),
        ({"measured": [[1.0, 2.0]]}, "must be finite numbers"),
        ({"seeds": [0]}, "2 measured values but 1 seeds"),
        ({"seeds": []}, "no seeds given"),
        ({"band": (0, 3)}, "must go with one measured value"),
        ({"measured": 5.0, "band": (0, 3)}, "must go with one measured value"),
        ({"measured": {"a": [1, 2]}, "baseline": {"b": [1, 2]}}, "measured in a but the baseline in b"),
    ],
)
def test_what_is_refused(changed: dict, said: str) -> None:
    given = {"id": "x", **BASIC, "measured": [1.0, 2.0], "baseline": 3.0, "seeds": [0, 1], **changed}
    with pytest.raises(ValueError, match=said):
        claim(given.pop("id"), **given)


def test_numbers_of_any_kind() -> None:
    given = {**BASIC, "baseline": torch.tensor(2.5), "seeds": range(2)}
    for measured in ([1, 2], (1.0, 2.0), torch.tensor([1.0, 2.0]), np.array([1, 2])):
        assert claim("kinds", **given, measured=measured).measured == {"": [1.0, 2.0]}
    assert claim("kinds", **given | {"seeds": None}, measured=torch.tensor(1.0)).measured == {"": [1.0]}


def test_band_of_a_recorded_mean_decides() -> None:
    given = {**BASIC, "baseline": 2.5, "seeds": [0, 1, 2]}
    assert claim("recorded", **given, measured=2.0, band=(1.5, 2.4)).verdict == HOLDS
    assert claim("recorded", **given, measured=2.0, band=(1.5, 2.6)).verdict == SEED


def test_recorded_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "data_dir", lambda: tmp_path)
    given = {**BASIC, "measured": [1.0, 2.0], "baseline": 3.0, "seeds": [0, 1], "record": "runs.json"}
    claim("asked", **given)
    assert not list(tmp_path.rglob("*"))
    monkeypatch.setenv("KANCOURSE_RECORD", "1")
    monkeypatch.setenv("KANCOURSE_NOTEBOOK", "03_gpt.ipynb")
    made = claim("asked", **given)
    path = tmp_path / "claims" / "asked.json"
    assert json.loads(path.read_text())["band"] == {"": [1.0, 2.0]}
    stored = claims.load(path)
    assert (stored.verdict, stored.strength) == (made.verdict, made.strength)
    assert {key: stored.provenance[key] for key in ("notebook", "record")} == {
        "notebook": "03_gpt.ipynb",
        "record": "runs.json",
    }
    assert {"date", "processor", "torch"} <= set(stored.provenance)


def test_a_typed_verdict_is_found(tmp_path: Path) -> None:
    made = claim("typed", **BASIC, measured=[1.0], baseline=[0.5], seeds=[0])
    path = claims.save(made, tmp_path)
    path.write_text(path.read_text().replace('"fails"', '"holds"'))
    with pytest.raises(ValueError, match=r"typed.json says 'holds', but its numbers give 'fails'"):
        claims.load(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"typed.json is not a stored claim"):
        claims.load(path)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_claims_follow_from_their_numbers(path: Path) -> None:
    stored = claims.load(path)
    assert stored.id == path.stem
    notebook = ROOT / "notebooks" / stored.provenance["notebook"]
    assert path.stem in notebook.read_text(encoding="utf-8"), f"{notebook.name} makes no such claim any more"


def pages(folder: Path) -> dict[str, Path]:
    """Pages with a pair of marks for each of their tables, and something old between them."""
    made = {}
    for name, names in PAGES.items():
        made[name] = folder / name
        made[name].parent.mkdir(parents=True, exist_ok=True)
        marks = "".join(f"<!-- {table}:begin -->\nold\n<!-- {table}:end -->\n" for table in names)
        made[name].write_text(f"# Title\n{marks}rest\n")
    return made


def test_tables_between_their_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = TableArgs(root=tmp_path, notebooks=tmp_path, claims=tmp_path / "claims")
    made = pages(tmp_path)
    write(lesson(), tmp_path)
    monkeypatch.setenv("KANCOURSE_NOTEBOOK", "03_demo.ipynb")
    for name, measured in (("a_claim", [1.0, 3.0]), ("another", [5.0, 6.0])):
        claims.save(claim(name, **BASIC, measured=measured, baseline=[3.5], seeds=[0, 1]), tmp_path / "claims")
    monkeypatch.setattr(tables, "results_table", lambda: "| run |\n|---|\n| a |")
    monkeypatch.setattr(tables, "studies_table", lambda: "| study |\n|---|\n| b |")
    stale = {table: made[name] for name, names in PAGES.items() for table in names}
    assert refresh(replace(args, check=True), None) == stale
    assert made["README.md"].read_text().count("old") == 3
    assert refresh(args, None) == stale  # out of date, and written now
    assert refresh(replace(args, check=True), None) == {}
    front, ledger = (made[name].read_text() for name in ("README.md", "data/claims/README.md"))
    assert front.startswith("# Title\n<!-- notebooks:begin -->\n| lesson | you will build |")
    assert ledger.endswith("<!-- claims:end -->\nrest\n")
    assert "## 03 · Demo\n\n| claim | who |" in ledger
    assert "| It is better. | Someone 2024 | 2 [1, 3] | 3.5 | holds | 2 seeds, provisional |" in ledger
    assert "| [03 · Demo](notebooks/03_demo.ipynb) | a mask. | nothing. | 0.1 (2 cores) | 2026-11-22 |" in front
    assert "| 03 · Demo | 2 | 1 | 1 | 0 |\n| all | 2 | 1 | 1 | 0 |" in front
    address = "https://github.com/someone/kancourse"
    assert refresh(replace(args, check=True), address) == {"notebooks": made["README.md"]}  # the badge


def test_the_card_may_take_several_lines_and_a_tool_has_none(tmp_path: Path) -> None:
    args = TableArgs(root=tmp_path, notebooks=tmp_path, claims=tmp_path)
    made = pages(tmp_path)
    node = lesson()
    node.cells[1].source = node.cells[1].source.replace("a mask.", "a mask,\n  and what it hides.")
    write(node, tmp_path)
    tool = nbformat.v4.new_notebook()
    tool.cells = [cell("markdown", "# Do it\n<!-- badge -->\n\nOne model, one\ncorpus: it trains. And more.")]
    nbformat.write(tool, tmp_path / "do.ipynb")
    refresh(args, None)
    front = made["README.md"].read_text()
    assert "| a mask, and what it hides. | nothing. |" in front
    assert "| [Do it](notebooks/do.ipynb) | One model, one corpus: it trains. |" in front


def test_an_empty_table_has_no_heading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "results_table", lambda: "| run |\n|---|")
    monkeypatch.setattr(tables, "studies_table", lambda: "| study |\n|---|")
    made = pages(tmp_path)
    before = {path: path.read_text() for path in made.values()}
    refresh(TableArgs(root=tmp_path, notebooks=tmp_path, claims=tmp_path), None)
    for path, text in before.items():
        assert path.read_text() == text.replace("old\n", "")


def test_tables_need_their_marks(tmp_path: Path) -> None:
    ledger = pages(tmp_path)["data/claims/README.md"]
    ledger.write_text(ledger.read_text().replace("<!-- claims:end -->", ""))
    with pytest.raises(ValueError, match=r"data/claims/README.md needs one line '<!-- claims:begin -->' and, below it"):
        refresh(TableArgs(root=tmp_path, notebooks=tmp_path, claims=tmp_path), None)
    assert "old" in ledger.read_text()
