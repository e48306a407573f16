"""The run files of mode connectivity: each CPU twin runs, and so does each GPU run, made small, on a text made here.

Run alone: pytest tests/test_lmc_runs.py
"""

from pathlib import Path

import pytest
import torch

from kancourse.lab.experiment import Experiment, run_experiment
from kancourse.lab.instabilities import Instabilities, run_instabilities
from kancourse.lab.run import plan
from kancourse.paths import PACKAGE

RUNS = PACKAGE.parent / "notebooks" / "runs"
SOURCES = ("tinygpt", "toygpt", "compactgpt", "mingpt", "finetuned")  # the configurations of the source
STEPS = 6
SHORT = {
    "steps": STEPS,
    "warmup": 1,
    "eval_every": STEPS,
    "eval_batches": 1,
    "batch_size": 2,
    "micro_batch": 1,
    "device": "cpu",
    "n_seeds": 1,
    "strangers": False,
    "n_alphas": 2,
    "path_batches": 1,
    "n_documents": 60,
}
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 16}
TEXT = "O God, what can be known is more than was asked, and less than was hoped for.\n" * 300


def shortened(name: str, **more) -> dict:
    """A run's parameters with the same arms, in a few steps; what happens at a step happens at that share of them."""
    told = plan(RUNS / f"{name}.yaml").parameters
    whole = told["base"]["steps"]

    def short(given: dict) -> dict:
        of = given.get("steps", whole)
        changed = {key: SHORT[key] for key in given if key in SHORT}
        for key in ("spawn_at", "fresh_at", "same_noise_at"):
            if key in given:
                changed[key] = [-(-k * STEPS // of) for k in given[key]]
        if "growth" in given:
            changed["growth"] = [event | {"step": -(-event["step"] * STEPS // of)} for event in given["growth"]]
        if "path_tokens" in given:
            changed["path_tokens"] = 3
        return given | changed | {key: value for key, value in more.items() if key in given}

    base = short(told["base"]) | {key: SHORT[key] for key in ("n_seeds", "path_batches", "eval_batches")}
    return {"base": base, "arms": {name: short(arm) for name, arm in told["arms"].items()}}


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """In place of tiny Shakespeare."""
    monkeypatch.setenv("KANCOURSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(TEXT)
    return str(tmp_path / "text.txt")


@pytest.fixture
def pretrained(tmp_path: Path) -> str:
    """What lmc_pretrained leaves, after a few steps."""
    told = plan(RUNS / "lmc_pretrained.cpu.yaml").parameters
    few = {key: SHORT[key] for key in told if key in SHORT} | {"sample_tokens": 1}
    run_experiment(Experiment(**told | few, out_dir=str(tmp_path / "pretrained")))
    return str(tmp_path / "pretrained" / "seed-0" / "best.safetensors")


@pytest.mark.parametrize("machine", ["cpu", "l4"])
@pytest.mark.parametrize("name", SOURCES[:-1])
def test_what_starts_from_nothing_runs_when_made_small(name: str, machine: str, text: str) -> None:
    small = shortened(f"lmc_{name}.{machine}", **TINY, bpe_size=300, corpus=text, max_characters=None)
    if small["base"]["tokenizer"] == "gpt2":  # whose vocabulary is not at hand offline
        small["base"]["tokenizer"] = "bytes"
    for told in run_instabilities(Instabilities(**small))["arms"].values():
        assert told["pairs"][0]["distance"] > 0
        assert told["pairs"][0]["texts"][0].startswith("O God, ")
        assert 0.5 in told["pairs"][0]["val"]["alphas"]


def test_fine_tuning_on_a_cpu(pretrained: str) -> None:
    record = run_instabilities(Instabilities(**shortened("lmc_finetuned.cpu", start=pretrained)))
    assert list(record["arms"]) == [
        "fine-tuned",
        "fine-tuned with care",
        "fine-tuned with too high a rate",
        "from nothing",
    ]
    assert {tuple(arm["model"][key] for key in ("n_layer", "n_embd")) for arm in record["arms"].values()} == {(3, 48)}


def test_fine_tuning_a_gpt2_that_transformers_has_saved(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published one is 124 million numbers; one of its kind, tiny and random, takes its place and its path."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "n_positions": 24, "n_embd": 16, "n_layer": 1, "n_head": 2}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    monkeypatch.setenv("KANCOURSE_DATA", str(tmp_path))
    small = shortened("lmc_finetuned.l4", tokenizer="bytes", block_size=16, corpus=text)
    assert small["base"]["start"] == "gpt2"
    record = run_instabilities(Instabilities(**small))
    for arm in record["arms"].values():
        assert (arm["model"]["vocab_size"], arm["model"]["block_size"]) == (300, 16)
        assert arm["pairs"][0]["distance"] > 0


def test_every_kind_of_model_runs() -> None:
    small = shortened("lmc_kinds.cpu", block_size=8)
    small["base"] |= {"n_head": 2, "n_embd": 8}
    record = run_instabilities(Instabilities(**small))
    kinds = {name: (arm["model"]["ffn"], arm["model"]["n_layer"]) for name, arm in record["arms"].items()}
    assert kinds == {
        "GPT": ("mlp", 2),
        "GPT, the KAN's rate": ("mlp", 2),
        "SwiGLU": ("swiglu", 2),
        "elephant": ("elephant", 2),
        "KAN-GPT": ("kan", 2),
        "grown before they part": ("swiglu", 2),
        "grown after they part": ("swiglu", 2),
    }
    for arm in record["arms"].values():
        assert len(arm["pairs"]) == 2 + 2  # step 0 aligned in two ways, and the later step


@pytest.mark.parametrize("name", SOURCES)
def test_a_gpu_run_and_its_twin_say_the_same_things(name: str) -> None:
    gpu, cpu = (plan(RUNS / f"lmc_{name}.{machine}.yaml").parameters for machine in ("l4", "cpu"))
    assert gpu.keys() == cpu.keys()
    assert set(gpu["base"]) - {"n_documents"} == set(cpu["base"]) - {"n_documents"}
    assert set(gpu["arms"]) <= set(cpu["arms"])
    assert gpu["record"] == f"{cpu['record']}_l4"
    assert gpu["base"]["n_alphas"] == cpu["base"]["n_alphas"] == 30
