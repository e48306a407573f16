"""The run files of the KAN-GPTs: each CPU twin trains, and so does each GPU run, made small, on text of its own schema.

Run alone: pytest tests/test_kan_gpt_runs.py
"""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from kancourse.lab.experiment import Experiment, run_experiment
from kancourse.lab.run import plan
from kancourse.lab.study import Study
from kancourse.paths import PACKAGE

RUNS = PACKAGE.parent / "notebooks" / "runs"
NAMES = ("2_2_128", "nano128", "nano256", "micro128", "micro256", "mini128", "gpt2")
SHORT = {
    "steps": 2,
    "warmup": 1,
    "eval_every": 2,
    "eval_batches": 1,
    "sample_tokens": 3,
    "n_judged": 0,
    "record": None,
    "device": "cpu",
}
TINY = {
    "n_layer": 1,
    "n_head": 1,
    "n_embd": 8,
    "block_size": 16,
    "batch_size": 2,
    "micro_batch": 1,
    "tokenizer": "bytes",
}
PASSAGES = [
    f"Passage {number} asks what can be known, and answers that it is more than {number}." for number in range(2000)
]


@pytest.mark.parametrize("name", NAMES)
def test_every_cpu_twin_trains(name: str) -> None:
    told = plan(RUNS / f"kan_gpt_{name}.cpu.yaml").parameters
    record = run_experiment(Experiment(**told | SHORT))
    assert record["runs"][0]["steps"] == 2
    assert record["model"]["linear"] == record["model"]["ffn"] == "kan"
    assert (record["model"]["head"], record["model"]["tie_head"]) == ("dense", True)


@pytest.fixture
def local_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A little of both corpora, as the Hub has them."""
    articles = [f"https://plato.stanford.edu/entries/{number // 3}/" for number in range(len(PASSAGES))]
    tables = {
        "openwebtext/plain_text/train-00000-of-00080.parquet": {"text": PASSAGES},
        "philosophy/data/train-00000-of-00001.parquet": {"metadata": articles, "text": PASSAGES},
    }
    for name, columns in tables.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    monkeypatch.setenv("KANCOURSE_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("machine", ["l4", "a100"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("local_texts")
def test_every_gpu_run_trains_when_made_small(name: str, machine: str) -> None:
    todo = plan(RUNS / f"kan_gpt_{name}.{machine}.yaml")
    assert "its head stays the tied embedding matrix" in todo.about
    record = run_experiment(Experiment(**todo.parameters | SHORT | TINY))
    assert record["corpus"]["corpus"] == ("philosophy" if name == "2_2_128" else "openwebtext")
    assert record["runs"][0]["steps"] == 2


@pytest.mark.parametrize(
    ("name", "layers", "heads", "width", "block"),
    [
        ("2_2_128", 2, 2, 128, 128),
        ("nano128", 3, 3, 48, 128),
        ("nano256", 3, 3, 48, 256),
        ("micro128", 4, 4, 128, 128),
        ("micro256", 4, 4, 128, 256),
        ("mini128", 6, 6, 192, 128),
        ("gpt2", 12, 12, 768, 1024),
    ],
)
def test_the_checkpoints_have_the_shapes_their_names_say(
    name: str, layers: int, heads: int, width: int, block: int
) -> None:
    for machine in ("l4", "a100"):
        config = Experiment(**plan(RUNS / f"kan_gpt_{name}.{machine}.yaml").parameters).model_config(50_257)
        assert (config.n_layer, config.n_head, config.n_embd, config.block_size) == (layers, heads, width, block)


@pytest.mark.parametrize("name", ["tinyshakespeare", "microworld", "parts", "block_size"])
def test_the_studies_are_well_formed(name: str) -> None:
    study = Study(**plan(RUNS / f"kan_gpt_{name}.cpu.yaml").parameters)
    assert study.n_seeds >= 3
    assert study.record == f"kan_gpt_{name}"
