"""MixKABRN on M2D2: the CPU twin, and the GPU runs made small, train offline on files of M2D2's schema.

Run alone: pytest tests/test_mixkabrn_runs.py
"""

from pathlib import Path

import pytest

from kancourse.__main__ import main
from kancourse.lab.checkpoint import load_checkpoint
from kancourse.lab.experiment import Experiment, run_experiment
from kancourse.lab.run import plan
from kancourse.paths import PACKAGE

RUNS = PACKAGE.parent / "notebooks" / "runs"
DOMAINS = ("cs_l1", "math_l1", "Philosophy_and_thinking", "History_and_events")
SHORT = {"steps": 2, "warmup": 1, "eval_every": 2, "eval_batches": 1, "sample_tokens": 3, "record": None}
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 32, "batch_size": 4, "micro_batch": 2, "bpe_size": 300}


@pytest.fixture
def m2d2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A little of M2D2, as its archives unpack."""
    for domain in DOMAINS:
        for part, n in (("train", 200), ("valid", 20), ("test", 20)):
            path = tmp_path / "m2d2" / domain / f"{part}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"In {domain}, {part}, we show that bound {i} of {i * i} is tight.\n" for i in range(n)]
            path.write_text("".join(lines), encoding="utf-8")
    monkeypatch.setenv("KANCOURSE_DATA", str(tmp_path))


@pytest.mark.usefixtures("m2d2")
@pytest.mark.parametrize("machine", ["cpu", "l4", "a100"])
def test_every_run_trains_when_made_small(machine: str) -> None:
    told = plan(RUNS / f"mixkabrn_m2d2.{machine}.yaml").parameters
    changes = {"block_size": 32, "bpe_size": 300} if machine == "cpu" else TINY
    record = run_experiment(Experiment(**told | SHORT | changes | {"device": "cpu"}))
    assert record["corpus"]["corpus"] == "m2d2"
    assert record["corpus"]["source"]["domains"] == told["domains"]
    assert record["runs"][0]["steps"] == 2
    model = record["model"]
    assert (model["mixer"], model["ffn"], model["linear"]) == ("retention", "moe", "bit")
    assert "kan" in model["ffn_options"]["expert"]


@pytest.mark.usefixtures("m2d2")
def test_the_usage_line_of_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--dataset M2D2 --model mixkabrn-small`, here with fewer steps and smaller blocks."""
    flags = ["--tokenizer", "bpe", "--bpe_size", "300", "--block_size", "16", "--batch_size", "2", "--device", "cpu"]
    flags += ["--steps", "1", "--eval_every", "1", "--eval_batches", "1", "--sample_tokens", "2", "--n_layer", "1"]
    main(["train", "--dataset", "M2D2", "--model", "mixkabrn-small", *flags, "--out_dir", str(tmp_path / "out")])
    assert "mixkabrn-small" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "out" / "seed-0" / "best.safetensors").model.config.n_embd == 192
