"""The experiments on growth: the probe that climbs the levels, the tables of compute, and the run files, made small."""

from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pyarrow
import pyarrow.parquet
import pytest
import torch

from kancourse.lab import growth_levels as levels
from kancourse.lab.corpus import load_corpus
from kancourse.lab.growth_tables import (
    compute_table,
    curves,
    flops_for_loss,
    flops_until,
    savings,
    stages,
)
from kancourse.lab.probes import PROBES
from kancourse.lab.run import plan
from kancourse.lab.study import Study, run_study
from kancourse.paths import PACKAGE
from kancourse.zoo import build

RUNS = PACKAGE.parent / "notebooks" / "runs"
TINY = {
    "model": "llama-nano",
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 8,
    "block_size": 16,
    "batch_size": 2,
    "steps": 6,
    "warmup": 1,
    "eval_every": 2,
    "eval_batches": 1,
    "n_documents": 40,
    "tokenizer": "words",
    "n_judged": 0,
    "sample_tokens": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def record() -> dict:
    arms = {
        "full": {"n_layer": 3},
        "half": {"n_layer": 3, "steps": 3},
        "deeper": {"growth": [{"step": 2, "n_layer": 2}, {"step": 4, "n_layer": 3, "keep_state": False}]},
        "wider": {"n_layer": 3, "n_head": 1, "n_embd": 4, "growth": [{"step": 3, "n_head": 2, "ffn_dim": 30}]},
    }
    return run_study(Study(base=TINY, arms=arms, n_seeds=2))


def test_flops_of_a_grown_run_are_those_of_its_stages(record):
    """What is worked out from sizes is what the trainer counted, product by product."""
    for arm in record["arms"].values():
        assert flops_until(arm, arm["experiment"]["steps"]) == arm["runs"][0]["flops"]
        assert stages(arm)[-1][1] == arm["flops_per_token"]
    deeper = record["arms"]["deeper"]
    assert [step for step, _ in stages(deeper)] == [0, 2, 4]
    small, middle, _ = (cost for _, cost in stages(deeper))
    assert small < middle
    assert flops_until(deeper, 3) == 3 * 32 * (2 * small + middle)
    flops, told = curves(deeper)
    assert flops[-1] == deeper["runs"][0]["flops"]
    assert [len(each) for each in told] == [3, 3]
    assert told[1][-1] == deeper["runs"][1]["val_loss"]


def test_flops_for_a_loss_lie_between_those_of_the_runs():
    ladder = [(100.0, 2.0), (400.0, 1.0), (1600.0, 0.5)]
    assert flops_for_loss(1.5, ladder) == (pytest.approx(200.0), 0)
    assert flops_for_loss(1.0, ladder) == (pytest.approx(400.0), 0)
    assert flops_for_loss(0.75, ladder[::-1]) == (pytest.approx(800.0), 0)
    assert flops_for_loss(3.0, ladder) == (100.0, -1)
    assert flops_for_loss(0.4, ladder) == (1600.0, 1)


def test_savings_by_hand():
    def arm(flops: float, *losses: float) -> dict:
        return {"runs": [{"flops": flops, "val_loss": loss} for loss in losses]}

    arms = {"full": arm(1600.0, 0.5, 0.6), "short": arm(400.0, 1.0, 1.2), "grown": arm(400.0, 0.5, 0.9)}
    told = savings({"arms": arms}, "grown", reference="full", ladder=["short"])
    assert told.flops_share == 0.25
    assert told.loss_gap == pytest.approx([0.0, 0.5])
    assert told.at_equal_loss == pytest.approx([0.75, 0.5])  # seed 1: half-way between 400 and 1600, so 800
    assert told.beyond == [0, 0]
    worse = savings({"arms": arms | {"bad": arm(100.0, 2.0, 2.0)}}, "bad", reference="full", ladder=["short"])
    assert worse.beyond == [-1, -1]


def test_the_table_has_every_arm_and_its_band(record):
    table = compute_table(record, reference="full", ladder=["half"])
    assert table.count("\n") == 5
    row = next(line for line in table.splitlines() if line.startswith("| deeper |"))
    assert f"{fmean(run['val_loss'] for run in record['arms']['deeper']['runs']):.4f}" in row
    share = record["arms"]["deeper"]["runs"][0]["flops"] / record["arms"]["full"]["runs"][0]["flops"]
    assert f"| {1 - share:.0%} |" in row


def test_climbing_the_levels_jumps_by_the_formula(monkeypatch):
    for name, value in (("STEPS", 2), ("BATCH", 2), ("N_DOCUMENTS", 40), ("N_BATCHES", 2)):
        monkeypatch.setattr(levels, name, value)
    corpus = load_corpus("microworld", tokenizer="words", n_documents=40)
    config = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16, "vocab_size": corpus.tokenizer.vocab_size}
    model = build("llama-nano", **config, seed=0).eval()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    told = PROBES["growth_levels"](model, corpus, 3)
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())
    assert set(told["ways"]) == set(levels.WAYS)
    for way in told["ways"].values():
        assert way["jump"] == pytest.approx(way["formula"], abs=1e-5)
        assert min(way["jump"]) > 0.1
        assert [[loss is None for loss in row] for row in way["loss"]] == [
            [False, True, True],
            [False, False, True],
            [False, False, False],
        ]
        assert way["flops"] > 0
    frozen, free = (told["ways"][name]["loss"][1] for name in ("old parts frozen", "rows: mean"))
    assert frozen != free


@pytest.mark.parametrize("wrong", [{"level": 2, "tokenizer": "words"}, {"tokenizer": "bytes"}])
def test_the_climb_starts_from_words_of_level_1(wrong):
    corpus = load_corpus("microworld", n_documents=20, **wrong)
    model = build("llama-nano", vocab_size=corpus.tokenizer.vocab_size, n_layer=1, block_size=16, seed=0)
    with pytest.raises(ValueError, match="growth_levels starts from microworld's level 1 in words"):
        levels.growth_levels(model, corpus, 0)


# --- the run files ---


def study(name: str) -> Study:
    return Study(**plan(RUNS / f"growth_{name}.yaml").parameters)


@pytest.mark.parametrize("name", ["depth", "schedules", "parts", "levels"])
def test_the_studies_are_well_formed(name):
    told = study(f"{name}.cpu")
    assert told.n_seeds >= 3
    assert told.record == f"growth_{name}"
    for arm in told.arms:  # each of them ends as large as the table that compares it expects
        experiment = told.experiment(arm)
        for event in experiment.growth or []:
            assert event["step"] < experiment.steps


@pytest.mark.parametrize("machine", ["l4", "a100"])
def test_the_gpu_runs_start_at_55_million_parameters_and_double(machine):
    """Heads of 128, as the source has them; each growth about doubles what is there."""
    told = study(f"55m.{machine}")
    experiment = told.experiment("doubling")
    with torch.device("meta"):
        model = build(experiment.model_config(50_257))
        sizes = [sum(p.numel() for p in model.parameters())]
        assert model.config.head_dim == 128
        for event in experiment.growth:
            model = build(
                replace(
                    model.config,
                    n_layer=event.get("n_layer", model.config.n_layer),
                    n_head=event.get("n_head", model.config.n_head),
                    n_embd=128 * event.get("n_head", model.config.n_head),
                )
            )
            sizes.append(sum(p.numel() for p in model.parameters()))
        last = build(told.experiment("from scratch").model_config(50_257))
    assert sizes[0] == pytest.approx(55e6, rel=0.03)
    assert sizes[-1] == sum(p.numel() for p in last.parameters())
    for small, large in pairwise(sizes):
        assert 1.8 < large / small < 2.2
    costs = {}
    for arm in ("doubling", "the small model, the budget of doubling"):
        experiment = told.experiment(arm)
        given = {"experiment": asdict(experiment), "model": experiment.model_config(50_257).to_dict()}
        costs[arm] = flops_until(given, experiment.steps)
    assert costs["the small model, the budget of doubling"] == pytest.approx(costs["doubling"], rel=0.02)


def small(told: Study, tmp_path: Path) -> Study:
    """The same arms with a few steps of tiny models."""
    layers, heads = {24: 3, 9: 2, 4: 3}, {4: 2, 6: 3, 9: 4}

    def shrink(given: dict) -> dict:
        made = dict(given)
        for name, table in (("n_layer", layers), ("n_head", heads)):
            if name in made:
                made[name] = table.get(made[name], made[name])
        if "n_embd" in made:
            made["n_embd"] = 8 * made["n_head"]
        if "steps" in made:
            made["steps"] = 8 if made["steps"] >= told.base["steps"] else 4
        if "growth" in made:
            made["growth"] = [shrink(event) | {"step": 2 + 2 * n} for n, event in enumerate(made["growth"])]
        return made

    base = shrink(told.base) | {"block_size": 16, "batch_size": 4, "micro_batch": 2, "warmup": 1, "tokenizer": "bytes"}
    base |= {"eval_every": 4, "eval_batches": 1, "sample_tokens": 2, "device": "cpu"}
    arms = {name: shrink(arm) for name, arm in told.arms.items()}
    return replace(told, base=base, arms=arms, record=None, out_dir=str(tmp_path / "out"))


@pytest.fixture
def local_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A little of OpenWebText, as the Hub has it."""
    passages = [f"Passage {number} says that what has grown was smaller, {number} times over." for number in range(900)]
    path = tmp_path / "openwebtext" / "plain_text" / "train-00000-of-00080.parquet"
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table({"text": passages}), path)
    monkeypatch.setenv("KANCOURSE_DATA", str(tmp_path))


@pytest.mark.parametrize("machine", ["cpu", "l4", "a100"])
@pytest.mark.usefixtures("local_text")
def test_the_runs_from_55_million_train_when_made_small(machine, tmp_path):
    told = small(study(f"55m.{machine}"), tmp_path)
    assert told.base.keys() == study("55m.cpu").base.keys()
    assert told.arms.keys() == study("55m.cpu").arms.keys()
    record = run_study(told)
    arms = record["arms"]
    assert arms["doubling"]["parameters"] == arms["from scratch"]["parameters"]
    for arm in arms.values():
        assert flops_until(arm, arm["experiment"]["steps"]) == arm["runs"][0]["flops"]
    if machine != "cpu":
        assert record["corpus"]["corpus"] == "openwebtext"
    assert "| doubling |" in compute_table(record, reference="from scratch", ladder=["from scratch, half of the steps"])
