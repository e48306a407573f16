"""The experiments on growth: the probe that climbs the levels, the tables of compute, and the run files, made small."""

from statistics import fmean

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
    assert flops_for_loss(1.5, ladder) == (pytest.approx(200.0), False)
    assert flops_for_loss(1.0, ladder) == (pytest.approx(400.0), False)
    assert flops_for_loss(0.75, ladder[::-1]) == (pytest.approx(800.0), False)
    assert flops_for_loss(3.0, ladder) == (100.0, True)
    assert flops_for_loss(0.4, ladder) == (1600.0, True)


def test_savings_by_hand():
    def arm(flops: float, *losses: float) -> dict:
        return {"runs": [{"flops": flops, "val_loss": loss} for loss in losses]}

    arms = {"full": arm(1600.0, 0.5, 0.6), "short": arm(400.0, 1.0, 1.2), "grown": arm(400.0, 0.5, 0.9)}
    told = savings({"arms": arms}, "grown", reference="full", ladder=["short"])
    assert told.flops_share == 0.25
    assert told.loss_gap == pytest.approx([0.0, 0.5])
    assert told.at_equal_loss == pytest.approx([0.75, 0.5])  # seed 1: half-way between 400 and 1600, so 800
    assert told.beyond == 0
    worse = savings({"arms": arms | {"bad": arm(100.0, 2.0, 2.0)}}, "bad", reference="full", ladder=["short"])
    assert worse.beyond == 2


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
