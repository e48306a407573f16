"""A run as a reader has it: started, killed half-way, taken up again from Colab's controller, and the same in the end.

Run alone: python -m pytest tests/test_runs.py
"""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from kancourse.lab.checkpoint import load_checkpoint
from kancourse.lab.experiment import Experiment, run_experiment
from kancourse.lab.train import BEST, LATEST
from kancourse.lesson.notebooks import FOLDER, run_cells

STEPS = 150
TEXT = "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer. " * 40


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A course of two notebooks and one run file, on a small text file; a checkpoint after every step."""
    runs = tmp_path / "notebooks" / "runs"
    runs.mkdir(parents=True)
    for name in ("train.ipynb", "train_on_gpu.ipynb"):
        shutil.copy(FOLDER / name, runs.parent)
    (tmp_path / "text.txt").write_text(TEXT)
    told = {
        "notebook": "train.ipynb",
        "machine": "cpu",
        "about": "A tiny model on a small text.",
        "expect_minutes": 1,
        "parameters": settings(tmp_path),
    }
    (runs / "tiny.cpu.yaml").write_text(yaml.safe_dump(told))
    return tmp_path


def settings(course: Path) -> dict:
    """The parameters of the run."""
    return {
        "model": "gpt-nano",
        "n_layer": 1,
        "block_size": 16,
        "dropout": 0.1,
        "corpus": str(course / "text.txt"),
        "tokenizer": "characters",
        "steps": STEPS,
        "batch_size": 4,
        "warmup": 10,
        "eval_every": 50,
        "seed": 3,
        "device": "cpu",
        "checkpoint_minutes": 0.0,
        "sample_tokens": 20,
        "prompt": "To be",
    }


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(course: Path) -> None:
    """Started by the driver, killed with everything that belongs to it, and taken up again by `train_on_gpu.ipynb`."""
    command = [sys.executable, "-m", "kancourse", "run", str(course / "notebooks" / "runs" / "tiny.cpu.yaml")]
    latest = course / "runs_out" / "tiny.cpu" / "seed-3" / LATEST
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not latest.exists():
        assert child.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.005)
    driver = psutil.Process(child.pid)
    for process in [driver, *driver.children(recursive=True)]:  # papermill and the kernel
        process.send_signal(signal.SIGKILL)
    child.wait()
    assert 0 < load_checkpoint(latest).train_state["result"]["steps"] < STEPS

    said = controlled(course, "tiny.cpu.yaml")
    assert "tiny.cpu goes on from its checkpoint, about 1 minutes" in said
    assert "not running · last checkpoint: 0." in said
    assert "To be" in said  # the sample
    assert "tiny.cpu.yaml names none" in said  # no record

    run_experiment(Experiment(**settings(course), out_dir=str(course / "in one go")))
    for name in (LATEST, BEST):
        resumed, whole = load_file(latest.with_name(name)), load_file(course / "in one go" / "seed-3" / name)
        assert resumed.keys() == whole.keys()
        assert all(torch.equal(resumed[key], whole[key]) for key in whole), name


def test_the_controller_finds_the_files_of_a_study(course: Path) -> None:
    """They lie a folder deeper than those of one model, and those of a sweep are no result."""
    shutil.copy(FOLDER / "study.ipynb", course / "notebooks")
    told = {"notebook": "study.ipynb", "machine": "cpu", "about": "Two tiny models.", "expect_minutes": 1}
    base = settings(course) | {"steps": 4, "warmup": 1, "eval_every": 2}
    arms = {"narrow": {"n_embd": 12}, "wide": {"n_embd": 24}}
    told["parameters"] = {"base": base, "arms": arms, "lrs": [1e-3, 1e-2], "n_seeds": 1}
    (course / "notebooks" / "runs" / "two.cpu.yaml").write_text(yaml.safe_dump(told))
    said = controlled(course, "two.cpu.yaml")
    assert "two.cpu starts, about 1 minutes, process " in said
    assert "not running · last checkpoint: 0." in said
    assert "the model of narrow/seed-3" in said


def controlled(course: Path, run_file: str) -> str:
    """What `train_on_gpu.ipynb` says when it runs a run file."""
    path = course / "notebooks" / "train_on_gpu.ipynb"
    node = nbformat.read(path, as_version=4)
    (parameters,) = [cell for cell in node.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += f'\nrun_file = "{run_file}"\nlook_every = 0.2'
    run_cells(node, path)
    return "".join(output.get("text", "") for cell in node.cells for output in cell.get("outputs", []))


def test_asked_to_stop_it_saves_and_leaves_no_kernel_behind(course: Path) -> None:
    path = course / "notebooks" / "runs" / "tiny.cpu.yaml"
    told = yaml.safe_load(path.read_text())
    told["parameters"] |= {"steps": 1_000_000, "eval_every": 1_000_000, "checkpoint_minutes": 1e-3}
    path.write_text(yaml.safe_dump(told))
    latest = course / "runs_out" / "tiny.cpu" / "seed-3" / LATEST
    command = [sys.executable, "-m", "kancourse", "run", str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        while not latest.exists():
            assert child.poll() is None, "the run ended before its first checkpoint"
            time.sleep(0.01)
        family = psutil.Process(child.pid).children(recursive=True)
        assert len(family) >= 2  # papermill and the kernel
        child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=100)
    assert child.returncode == 130
    assert "stopped; to go on from the last checkpoint: python -m kancourse run" in said
    assert psutil.wait_procs(family, timeout=20)[1] == [], "nothing of the run is left alive"
    assert load_checkpoint(latest).train_state["result"]["steps"] > 0
