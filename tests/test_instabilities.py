"""Arms of instability analyses, and their notebook. Run: pytest tests/test_instabilities.py"""

import ast
import json
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from kancourse.lab import records
from kancourse.lab.instabilities import Instabilities, barrier_table, run_instabilities
from kancourse.lab.instability import Instability, run_instability
from kancourse.lab.parameters import notebook_parameters

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "instability.ipynb"
BASE = {"model": "gpt-nano", "n_layer": 1, "n_embd": 12, "block_size": 16, "tokenizer": "characters", "steps": 6}
BASE |= {"batch_size": 4, "warmup": 2, "eval_every": 6, "device": "cpu", "n_alphas": 3, "path_batches": 1}


@pytest.fixture
def base(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("The sea is wide. The ship is small. " * 60)
    monkeypatch.setattr(records, "data_dir", lambda: tmp_path / "data")
    return BASE | {"corpus": str(tmp_path / "text.txt"), "spawn_at": [0, 3]}


def test_each_arm_is_an_analysis_of_its_own(base):
    seen = []
    arms = {"plain": {"same_noise_at": [2]}, "gated": {"ffn": "swiglu", "fresh_at": [3]}}
    told = run_instabilities(
        Instabilities(base=base, arms=arms, record="two"), on_pair=lambda name, row: seen.append((name, row))
    )
    assert records.read_record("two") == told
    assert [row for _, row in seen] == [row for arm in told["arms"].values() for row in arm["pairs"]]
    assert [name for name, _ in seen] == ["plain"] * 3 + ["gated"] * 3
    assert told["arms"]["gated"]["model"]["ffn"] == "swiglu"
    alone = run_instability(Instability(**base | arms["plain"]))
    assert told["arms"]["plain"]["pairs"] == alone["pairs"]
    assert told["corpus"] == alone["corpus"]
    table = barrier_table(told).splitlines()
    assert len(table) == 2 + 3 + 3
    assert table[4].startswith("| plain | children of step 2, the same noise | 1 | 0.0000 (0.0000 to 0.0000) |")
    assert "| gated | children of step 3, fresh schedule | 1 |" in table[7]


def test_arms_on_different_text_keep_their_own(base, tmp_path):
    (tmp_path / "other.txt").write_text("The wind is cold, and the night is long. " * 60)
    other = {"corpus": str(tmp_path / "other.txt")}
    told = run_instabilities(Instabilities(base=base | {"spawn_at": [3]}, arms={"sea": {}, "wind": other}))
    assert told["corpus"] is None
    assert told["arms"]["sea"]["corpus"] != told["arms"]["wind"]["corpus"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": {}}, "nothing to analyse: there is no arm"),
        ({"arms": {"a": {"spawn": [0]}}}, "Instability has no field 'spawn'; did you mean 'spawn_at'?"),
        ({"arms": {"a": {"record": "x"}}}, "a sets record, which belongs to the whole"),
        ({"base": {"out_dir": "x"}, "arms": {"a": {}}}, "base sets out_dir, which belongs to the whole"),
        ({"arms": {"a": {"n_children": 1}}}, "a pair needs two children"),
    ],
)
def test_bad_settings_are_one_clear_error(settings, message):
    with pytest.raises(ValueError, match=message):
        Instabilities(**settings)


def test_the_notebook_has_the_fields_of_the_analysis():
    known = notebook_parameters(NOTEBOOK)
    assert {name: p.annotation for name, p in known.items()} == {
        f.name: "dict" if f.name == "base" else "dict[str, dict]" if f.name == "arms" else str(f.type)
        for f in fields(Instabilities)
    }
    (cell,) = (
        cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if "parameters" in cell["metadata"].get("tags", [])
    )
    given = {node.target.id: ast.literal_eval(node.value) for node in ast.parse("".join(cell["source"])).body}
    own = {f.name: f.default for f in fields(Instabilities) if f.default is not MISSING}
    assert {name: given[name] for name in own} == own
    Instabilities(**given)
