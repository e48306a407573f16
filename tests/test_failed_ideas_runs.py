"""The run files of lesson 08b: each study trains when it is made small, for either machine, on text of its own schema.

Run alone: pytest tests/test_failed_ideas_runs.py
"""

import pyarrow
import pyarrow.parquet
import pytest

from kancourse.lab.run import plan
from kancourse.lab.study import Study, run_study
from kancourse.paths import PACKAGE

RUNS = PACKAGE.parent / "notebooks" / "runs"
SHORT = {
    "steps": 2,
    "warmup": 1,
    "eval_every": 2,
    "eval_batches": 1,
    "sample_tokens": 1,
    "device": "cpu",
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 12,
    "batch_size": 2,
    "tokenizer": "bytes",
}


def parameters(name: str) -> dict:
    return plan(RUNS / f"{name}.yaml").parameters


@pytest.mark.parametrize("name", ["failed_ffn", "segment_memory"])
def test_twins_have_the_same_arms_and_every_arm_the_same_parameters(name):
    cpu, gpu = parameters(f"{name}.cpu"), parameters(f"{name}.l4")
    assert list(cpu) == list(gpu)
    assert list(cpu["arms"]) == list(gpu["arms"])
    for told in (cpu, gpu):
        study = Study(**told)
        for arm in told["arms"]:
            config = study.experiment(arm).model_config(vocab_size=100)
            assert (config.mixer, config.ffn) == (
                told["arms"][arm].get("mixer", "attention"),
                told["arms"][arm].get("ffn", "swiglu"),
            )


@pytest.mark.parametrize("machine", ["cpu", "l4"])
def test_the_study_of_feed_forwards_trains_when_made_small(machine):
    told = parameters(f"failed_ffn.{machine}")
    told["base"] |= SHORT | {"block_size": 16, "ffn_dim": 32, "n_documents": 30}
    told["arms"]["no up-projection"]["ffn_dim"] = 48
    told |= {"lrs": told["lrs"][:1], "sweep_steps": 1, "n_seeds": 1, "record": None}
    sizes = {name: arm["parameters"]["body"] for name, arm in run_study(Study(**told))["arms"].items()}
    assert len(sizes) == 8
    gates = {name: size - sizes["SwiGLU"] for name, size in sizes.items()}
    assert {gates[name] for name in sizes if "mini" not in name} == {0}
    assert {gates[name] for name in sizes if "mini" in name} == {4 * 12}


@pytest.mark.parametrize("machine", ["cpu", "l4"])
def test_the_study_of_memory_trains_when_made_small(machine, tmp_path, monkeypatch):
    path = tmp_path / "wikitext103" / "wikitext-103-raw-v1"
    path.mkdir(parents=True)
    lines = [f" = Passage {number} = \n" if number % 5 == 0 else f" It says {number} .\n" for number in range(3000)]
    for part in ("train", "validation", "test"):
        pyarrow.parquet.write_table(pyarrow.table({"text": lines}), path / f"{part}-00000-of-00001.parquet")
    monkeypatch.setenv("KANCOURSE_DATA", str(tmp_path))
    told = parameters(f"segment_memory.{machine}")
    told["base"] |= SHORT | {"block_size": 16} | ({"n_documents": 30} if machine == "cpu" else {})
    for arm in told["arms"].values():
        for name in arm.get("mixer_options", {}):
            arm["mixer_options"][name] = 4
    told |= {"lrs": None, "sweep_steps": None, "n_seeds": 1, "record": None}
    arms = run_study(Study(**told))["arms"]
    assert len({arm["parameters"]["total"] for arm in arms.values()}) == 1
