"""Experiments, their notebook and their command line. Run: pytest tests/test_experiment.py"""

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import torch

from kancourse.__main__ import main
from kancourse.lab import records
from kancourse.lab.checkpoint import load_checkpoint
from kancourse.lab.experiment import Experiment, run_experiment
from kancourse.lab.parameters import notebook_parameters

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
TEXT = "The sea is wide. The ship is small.\nThe wind is cold, and the night is long.\n" * 60


@pytest.fixture
def text_file(tmp_path, monkeypatch):
    monkeypatch.setenv("KANCOURSE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "sea.txt"
    path.write_text(TEXT)
    return path


def small(path, **changes):
    settings = {"model": "gpt-nano", "n_layer": 1, "block_size": 32, "corpus": str(path), "tokenizer": "characters"}
    settings |= {"steps": 6, "batch_size": 4, "eval_every": 3, "warmup": 2, "sample_tokens": 20, "device": "cpu"}
    return Experiment(**(settings | changes))


def test_the_record_says_what_was_run_and_what_came_out(text_file, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(records, "data_dir", lambda: tmp_path / "data")
    told = run_experiment(small(text_file, n_seeds=2, record="sea", out_dir=str(tmp_path / "out")))
    stored = records.read_record("sea")
    assert stored == json.loads(json.dumps(told))
    assert [run["seed"] for run in stored["runs"]] == [0, 1]
    losses = [run["best_val_loss"] for run in stored["runs"]]
    assert stored["val_loss"] == {"mean": sum(losses) / 2, "min": min(losses), "max": max(losses), "n": 2}
    assert losses[0] != losses[1]
    assert stored["environment"]["torch"] == torch.__version__
    assert stored["corpus"]["val_unigram_entropy"] > 1
    assert len(stored["runs"][0]["sample"]) >= 20
    row = records.results_table().splitlines()[-1]
    assert "sea" in row
    assert f"{stored['val_loss']['mean']:.4f}" in row
    with pytest.raises(FileNotFoundError, match="no record 'lake'; known: sea"):
        records.read_record("lake")


def test_on_microworld_the_judge_reads_what_the_model_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("KANCOURSE_CACHE", str(tmp_path))
    told = run_experiment(small("microworld", tokenizer="auto", n_documents=40, n_judged=5, eval_batches=1))
    judged = told["runs"][0]["judged"]
    assert judged["documents"] == 5
    assert judged["sentences"] > 0
    assert 0 <= judged["grammatical"] < 0.5  # after six steps
    assert told["corpus"]["val_floor"] < told["val_loss"]["mean"]
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_the_same_experiment_gives_the_same_numbers(text_file):
    first, second = (run_experiment(small(text_file)) for _ in range(2))
    for told in (first, second):
        for run in told["runs"]:
            run.pop("seconds")
    assert first == second


def test_the_training_notebook_has_the_fields_of_an_experiment():
    tagged = [
        cell
        for cell in json.loads((NOTEBOOKS / "train.ipynb").read_text())["cells"]
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    defaults = {
        node.target.id: ast.literal_eval(node.value)
        for node in ast.parse("".join(tagged[0]["source"])).body
        if isinstance(node, ast.AnnAssign)
    }
    assert all(f.default is not MISSING for f in fields(Experiment))
    assert defaults == {f.name: f.default for f in fields(Experiment)}
    annotations = {name: p.annotation for name, p in notebook_parameters(NOTEBOOKS / "train.ipynb").items()}
    assert annotations == {f.name: f.type if isinstance(f.type, str) else _written(f.type) for f in fields(Experiment)}


def _written(kind) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def test_options_of_parts_come_from_the_command_line_as_numbers(text_file, tmp_path):
    flags = ["--model", "gpt-nano", "--n_layer", "1", "--block_size", "32", "--corpus", str(text_file)]
    flags += ["--linear", "kan", "--linear_options", "{grid_size: 3}", "--tokenizer", "characters"]
    flags += ["--steps", "2", "--eval_every", "2", "--batch_size", "4", "--sample_tokens", "1", "--device", "cpu"]
    main(["train", *flags, "--out_dir", str(tmp_path / "out")])
    model = load_checkpoint(tmp_path / "out" / "seed-0" / "best.safetensors").model
    assert model.config.linear_options == {"grid_size": 3}
    assert model.blocks[0].ffn.c_fc.spline_weight.size(-1) == 3 + 3


def test_train_sample_and_evaluate_from_the_command_line(text_file, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--model", "gpt-nano", "--n_layer", "1", "--block_size", "32", "--corpus", str(text_file)]
    flags += ["--steps", "4", "--eval_every", "2", "--batch_size", "4", "--sample_tokens", "10", "--device", "cpu"]
    main(["train", *flags, "--out_dir", str(out)])
    told = capsys.readouterr().out
    assert "unigram entropy" in told
    best = str(out / "seed-0" / "best.safetensors")
    main(["sample", "--model", best, "--prompt", "The sea", "--max_new_tokens", "5", "--temperature", "0"])
    assert capsys.readouterr().out.startswith("The sea")
    main(["evaluate", "--model", best, "--corpus", str(text_file), "--device", "cpu"])
    assert "nats per token" in capsys.readouterr().out


@pytest.mark.parametrize("bits", ["2", "1.6"])
def test_a_ternary_checkpoint_is_packed_and_writes_the_same(text_file, tmp_path, capsys, bits):
    flags = ["--model", "bit-llama-nano", "--n_layer", "1", "--block_size", "32", "--corpus", str(text_file)]
    flags += ["--steps", "4", "--eval_every", "2", "--batch_size", "4", "--sample_tokens", "1", "--device", "cpu"]
    main(["train", *flags, "--out_dir", str(tmp_path)])
    best, packed = str(tmp_path / "seed-0" / "best.safetensors"), str(tmp_path / "small.safetensors")
    capsys.readouterr()
    main(["pack", best, packed, "--bits", bits])
    sizes = [int(size.replace(",", "")) for size in re.findall(r"([\d,]+) bytes", capsys.readouterr().out)]
    assert sizes[0] < sizes[1] / 2
    for model in (best, packed):
        main(["sample", "--model", model, "--prompt", "The sea", "--max_new_tokens", "5", "--temperature", "0"])
    whole, small = capsys.readouterr().out.splitlines()
    assert whole == small
    with pytest.raises(SystemExit):
        main(["pack", packed, str(tmp_path / "twice.safetensors")])
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--model", "nowhere.safetensors"], "error: no checkpoint at nowhere.safetensors\n"),
        (["train", "--corpus", "tinyshakespear"], "error: unknown corpus 'tinyshakespear'; known: microworld, tiny"),
        (["bench", "warp"], "error: unknown benchmark 'warp'; known: "),
        (["run", "nowhere.yaml"], "error: no run file nowhere.yaml"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert message in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "gpt-pico"], "unknown preset 'gpt-pico'; known: gpt-nano"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--n_head", "5"], "n_embd 48 is not divisible by n_head 5"),
        (["--record", "../sea"], "a record's name is letters, digits, - and _, without folder or .json, got '../sea'"),
        (["--stepz", "5"], "Perhaps you meant: --steps"),
    ],
)
def test_flags_that_do_not_fit_are_refused_before_anything_is_loaded(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", *arguments])
    assert end.value.code == 2
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", "".join(capsys.readouterr())).split())


def test_two_processes_equal_one_at_the_same_global_batch(text_file, tmp_path):
    """torchrun with two gloo processes, each with half of the rows of the same batches: the same weights come out."""
    flags = ["--model", "gpt-nano", "--n_layer", "1", "--block_size", "32", "--corpus", str(text_file)]
    flags += ["--steps", "8", "--eval_every", "4", "--batch_size", "6", "--warmup", "2", "--sample_tokens", "5"]
    flags += ["--device", "cpu", "--micro_batch", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = {"one": [sys.executable], "two": torchrun}
    for name, start in both.items():
        command = [*start, "-m", "kancourse", "train", *flags, "--out_dir", str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
    one, two = (load_checkpoint(tmp_path / name / "seed-0" / "latest.safetensors") for name in both)
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    histories = [checkpoint.train_state["result"]["history"] for checkpoint in (one, two)]
    for a, b in zip(*histories, strict=True):
        assert a["tokens"] == b["tokens"]
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
        assert a.keys() == b.keys()
        if "val_loss" in a:
            assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-5)
