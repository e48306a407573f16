"""Studies: arms over the same seeds, each with its own best learning rate. Run: pytest tests/test_study.py"""

import ast
import json
from dataclasses import fields
from pathlib import Path

import pytest

from kancourse.lab import records
from kancourse.lab.parameters import notebook_parameters
from kancourse.lab.probes import PROBES
from kancourse.lab.study import Study, run_study, study_table
from kancourse.lesson import figures

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "study.ipynb"
TEXT = "The sea is wide. The ship is small.\nThe wind is cold, and the night is long.\n" * 60


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("KANCOURSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(records, "data_dir", lambda: tmp_path / "data")
    (tmp_path / "sea.txt").write_text(TEXT)
    settings = {"model": "gpt-nano", "n_layer": 1, "block_size": 32, "corpus": str(tmp_path / "sea.txt")}
    return settings | {"tokenizer": "characters", "steps": 6, "batch_size": 4, "eval_every": 3, "warmup": 2}


ARMS = {"narrow": {"n_embd": 12}, "wide": {"n_embd": 48}}


def test_every_arm_is_scored_on_the_same_seeds_with_its_own_best_rate(base):
    told = run_study(Study(base=base, arms=ARMS, lrs=(1e-6, 1e-2, 3e-2), n_seeds=2, record="sizes"))
    assert records.read_record("sizes") == told
    for arm in told["arms"].values():
        losses = [row["val_loss"] for row in arm["sweep"]]
        assert [row["lr"] for row in arm["sweep"]] == [1e-6, 1e-2, 3e-2]
        assert arm["lr"] == arm["sweep"][losses.index(min(losses))]["lr"] > 1e-6
        assert arm["lr_at_edge"] == (arm["lr"] == 3e-2)
        assert [run["seed"] for run in arm["runs"]] == [0, 1]
    assert told["arms"]["narrow"]["parameters"]["total"] < told["arms"]["wide"]["parameters"]["total"]
    assert "narrow" in study_table(told)
    assert "| [sizes]" in records.studies_table()
    _, ax = figures.study_axes(told, arms=["wide"])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["wide"]


def test_a_study_that_was_stopped_trains_no_run_twice(base, tmp_path):
    settings = {"base": base, "arms": ARMS, "lrs": (1e-3, 1e-2), "n_seeds": 1, "out_dir": str(tmp_path / "out")}
    first = run_study(Study(**settings))
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("best.safetensors")}
    assert len(stamps) == 2 * 3  # two rates and one seed for each of two arms
    assert run_study(Study(**settings))["arms"] == first["arms"]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_rate_that_diverges_is_not_chosen(base):
    told = run_study(Study(base=base, arms={"wide": ARMS["wide"]}, lrs=(1e-3, 1e30), n_seeds=1))
    assert told["arms"]["wide"]["sweep"][1]["val_loss"] is None
    assert told["arms"]["wide"]["lr"] == 1e-3


def test_arms_on_different_corpora_keep_each_its_own(base):
    other = {"corpus": "microworld", "tokenizer": "auto", "n_documents": 40, "n_judged": 0, "eval_batches": 1}
    told = run_study(Study(base=base, arms={"sea": {}, "grammar": other}, n_seeds=1))
    assert told["corpus"] is None
    assert told["arms"]["grammar"]["corpus"]["corpus"] != told["arms"]["sea"]["corpus"]["corpus"]


def test_probes_enter_the_record(base, monkeypatch):
    monkeypatch.setitem(PROBES, "seed and mode", lambda model, corpus, seed: {"seed": seed, "train": model.training})
    told = run_study(Study(base=base | {"probes": ["seed and mode"]}, arms={"one": {}}, n_seeds=2))
    probed = [run["probes"]["seed and mode"] for run in told["arms"]["one"]["runs"]]
    assert probed == [{"seed": 0, "train": False}, {"seed": 1, "train": False}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {}}, "a study needs at least one arm"),
        ({"record": "sizes.json"}, "a record's name is letters, digits, - and _, without folder or .json, got 'sizes"),
        ({"arms": {"a": {"n_embed": 3}}}, "Experiment has no field 'n_embed'; did you mean 'n_embd'?"),
        ({"arms": {"a": {"n_layer": "two"}}}, "a: n_layer must be int \\| None, got 'two' \\(str\\)"),
        ({"base": {"domains": ["stories", 1]}}, "base: domains must be tuple\\[str, \\.\\.\\.\\] \\| None, got"),
        ({"arms": {"a": {"lr": "1e-3"}}}, "a: lr must be float, got '1e-3' \\(str\\); YAML reads 1e-3 as text"),
        ({"base": {"record": "x"}}, "base sets record, which belongs to the whole study"),
        ({"arms": {"a": {"lr": 1e-3}}, "lrs": (1e-3,)}, "a sets lr, and the study sweeps lrs: choose one"),
        ({"arms": {"a": {"n_head": 5}}}, "n_embd 48 is not divisible by n_head 5"),
        ({"lrs": (1e-3,), "sweep_seed": 1}, "sweep_seed 1 is one of the seeds the arms are scored on"),
        ({"base": {"probes": ["warmth"]}}, "unknown probe 'warmth'; known: "),
        ({"arms": {"a": {"linear": "kan", "linear_options": {"grid": 3}}}}, "linear 'kan' has no option 'grid'"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(changes, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        Study(**({"arms": ARMS} | changes))


def test_what_fits_is_taken():
    Study(base={"final_lr_ratio": 0, "domains": ("stories",), "growth": [{"step": 2, "n_layer": 3}]}, arms=ARMS)


def test_the_study_notebook_has_the_fields_of_a_study():
    told = {name: p.annotation for name, p in notebook_parameters(NOTEBOOK).items()}
    assert set(told) == {f.name for f in fields(Study)}
    cell = next(
        cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if "parameters" in cell["metadata"].get("tags", [])
    )
    given = {node.target.id: ast.literal_eval(node.value) for node in ast.parse("".join(cell["source"])).body}
    Study(**given)
