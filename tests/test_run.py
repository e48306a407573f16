"""The strict run driver: what it refuses before anything starts, what it runs, and how it says what failed.

Run alone: python -m pytest tests/test_run.py
"""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from nbformat.v4 import new_notebook
from notebook_fixtures import cell, write

from kancourse.lab.parameters import notebook_parameters
from kancourse.lab.run import MACHINES, plan, run
from kancourse.paths import PACKAGE

RUNS = sorted((PACKAGE.parent / "notebooks" / "runs").glob("*.yaml"))
GPU_RUNS = [path for path in RUNS if not path.name.endswith(".cpu.yaml")]

PARAMETERS = """\
corpus: str  # required
steps: int = 3
lr: float = 1e-3
bias: bool = True
resume: str | None = None
widths: tuple[int, ...] = (1, 2)
pair: tuple[float, str] = (1.0, "a")
domains: list[str] = ["a"]
table: dict[str, int] = {}
schedule: Literal["cosine", "wsd"] = "cosine"
"""

GOOD = {
    "notebook": "03_demo.ipynb",
    "machine": "cpu",
    "about": "A demonstration.",
    "expect_minutes": 0.1,
    "parameters": {"corpus": "microworld"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`notebooks/` with one notebook that can be told to fail."""
    work = """\
import os
from pathlib import Path

derived = steps * 2
print(f"corpus {corpus!r}, derived {derived}, in {Path.cwd().name}, widgets {os.environ['KANCOURSE_WIDGETS']}")
(Path(os.environ["KANCOURSE_RUN_DIR"]) / "result.txt").write_text(repr((corpus, steps, lr, resume, widths)))
if corpus == "raise":
    raise ValueError("no such corpus")
if corpus == "die":
    os.kill(os.getpid(), 9)"""
    cells = [
        cell("code", "from typing import Literal"),
        cell("code", PARAMETERS, "parameters"),
        cell("code", work),
    ]
    write(new_notebook(cells=cells), tmp_path / "notebooks")
    (tmp_path / "notebooks" / "runs").mkdir()
    return tmp_path / "notebooks"


def yaml_file(folder: Path, name: str = "demo.cpu.yaml", **changed: object) -> Path:
    """A run file; a key set to None is left out."""
    told = {key: value for key, value in {**GOOD, **changed}.items() if value is not None}
    path = folder / "runs" / name
    path.write_text(yaml.safe_dump(told))
    return path


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"steps": 5, "lr": 1, "bias": False, "resume": None},
        {"resume": "x", "widths": [], "pair": [1, "b"], "domains": ["a", "b"]},
        {"table": {"a": 1}, "schedule": "wsd", "lr": 3.0e-4},
    ],
)
def test_accepts(parameters: dict, folder: Path) -> None:
    todo = plan(yaml_file(folder, parameters={"corpus": "microworld", **parameters}))
    assert todo.parameters == {"corpus": "microworld", **parameters}
    assert (todo.name, todo.machine, todo.notebook) == ("demo.cpu", "cpu", folder / "03_demo.ipynb")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"stepz": 5}, r"demo.cpu.yaml: unknown parameter 'stepz'; did you mean 'steps'\?"),
        ({"temperature": 5}, r"unknown parameter 'temperature'; known: corpus, steps, lr"),
        ({"steps": 5.0}, r"steps must be int, got 5.0 \(float\)"),
        ({"steps": "5"}, r"steps must be int, got '5' \(str\)"),
        ({"steps": True}, r"steps must be int, got True \(bool\)"),
        ({"steps": None}, r"steps must be int, got None"),
        ({"bias": 1}, r"bias must be bool, got 1 \(int\)"),
        ({"lr": "1e-3"}, r"lr must be float, got '1e-3' \(str\); YAML reads 1e-3 as text, write 1.0e-3"),
        ({"resume": 3}, r"resume must be str \| None, got 3"),
        ({"widths": [1, "a"]}, r"widths must be tuple\[int, ...\], got"),
        ({"widths": 3}, r"widths must be tuple\[int, ...\], got 3"),
        ({"pair": [1.0]}, r"pair must be tuple\[float, str\], got \[1.0\]"),
        ({"domains": "a"}, r"domains must be list\[str\], got 'a'"),
        ({"table": {"a": "b"}}, r"table must be dict\[str, int\], got"),
        ({"schedule": "linear"}, r"schedule must be Literal\['cosine', 'wsd'\], got 'linear'"),
    ],
)
def test_refuses_parameters(parameters: dict, said: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=said):
        plan(yaml_file(folder, parameters={"corpus": "x", **parameters}))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"parameters": {}}, r"demo.cpu.yaml: the notebook needs corpus, and no value is given"),
        ({"parameters": None}, r"has no 'parameters'; it needs notebook, machine, about, expect_minutes, parameters"),
        ({"parameters": [1]}, r"parameters must be a list of `name: value`, got \[1\]"),
        ({"about": None}, r"demo.cpu.yaml has no 'about'"),
        ({"about": 3}, r"about must be text, got 3"),
        ({"expect_minutes": "two"}, r"expect_minutes must be a number, got 'two'"),
        ({"expect_minutes": True}, r"expect_minutes must be a number, got True"),
        ({"machin": "cpu"}, r"unknown key 'machin'; did you mean 'machine'\?"),
        ({"machine": "tpu"}, r"unknown machine 'tpu'; known: cpu, t4, l4"),
        ({"machine": "l4"}, r"demo.cpu.yaml is named for cpu, but its machine is l4"),
    ],
)
def test_refuses_keys(changed: dict, said: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=said):
        plan(yaml_file(folder, **changed))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", r"bad.yaml is not valid YAML: while parsing"),
        ("a: 1\na: 2", r"bad.yaml is not valid YAML: a is given twice"),
        ("parameters: {steps: 1, steps: 2}", r"not valid YAML: steps is given twice"),
        ("!!python/object/apply:os.getcwd []", r"not valid YAML: could not determine a constructor"),
        ("", r"bad.yaml must be a list of keys notebook, machine"),
        ("- a", r"must be a list of keys"),
    ],
)
def test_refuses_bad_yaml(text: str, said: str, folder: Path) -> None:
    path = folder / "runs" / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        plan(path)


def test_missing_files_list_what_is_there(folder: Path) -> None:
    yaml_file(folder)
    with pytest.raises(FileNotFoundError, match=r"no run file .*dmo.yaml; in that folder: demo.cpu.yaml"):
        plan(folder / "runs" / "dmo.yaml")
    with pytest.raises(FileNotFoundError, match=r"no notebook '03.ipynb' in notebooks/; known: 03_demo.ipynb"):
        plan(yaml_file(folder, notebook="03.ipynb"))


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([cell("code", "steps: int = 3")], r"03_demo.ipynb has 0 code cells tagged `parameters`, expected 1"),
        ([cell("code", "a: int = 3", "parameters") for _ in "ab"], r"has 2 code cells tagged"),
        ([cell("text", "a: int = 3", "parameters")], r"has 0 code cells tagged"),
        ([cell("code", "a = 3", "parameters")], r"may hold only `name: type = literal`, not 'a = 3'"),
        ([cell("code", "a: int = = 3", "parameters")], r"the `parameters` cell is not Python"),
        ([cell("code", "corpus: Path = 3", "parameters")], r"declares corpus as Path: the driver does not know"),
    ],
)
def test_refuses_a_notebook(cells: list, said: str, folder: Path) -> None:
    write(new_notebook(cells=cells), folder)
    with pytest.raises(ValueError, match=said):
        plan(yaml_file(folder))


@pytest.mark.parametrize("text", ["{}", "not json", '{"cells": [1]}'])
def test_refuses_what_is_no_notebook(text: str, folder: Path) -> None:
    (folder / "03_demo.ipynb").write_text(text)
    with pytest.raises(ValueError, match=r"03_demo.ipynb is not a notebook"):
        plan(yaml_file(folder))


def test_a_gpu_run_names_its_twin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"demo.l4 is meant for a GPU \(l4\) .* on a CPU run demo.cpu.yaml"):
        run(yaml_file(folder, "demo.l4.yaml", machine="l4"))
    assert not (folder.parent / "runs_out").exists()


def test_runs(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = yaml_file(folder, parameters={"corpus": "it's", "steps": 7, "lr": 0.5, "resume": None, "widths": [4]})
    output = run(path)
    assert output == folder.parent / "runs_out" / "demo.cpu" / "03_demo.ipynb"
    said = capfd.readouterr()
    assert said.out.startswith("A demonstration.\n03_demo.ipynb on cpu, about 0.1 minutes, to ")
    assert 'corpus "it\'s", derived 14, in notebooks, widgets 0' in said.err  # streamed, in the notebook's folder
    assert (output.parent / "result.txt").read_text() == '("it\'s", 7, 0.5, None, [4])'
    assert json.loads(output.read_text())["cells"][2]["metadata"]["tags"] == ["injected-parameters"]


@pytest.mark.parametrize(
    ("corpus", "said"),
    [("raise", r"cell \d raised ValueError: no such corpus \(exit code 1; see "), ("die", r"the kernel died before")],
)
def test_says_what_failed(corpus: str, said: str, folder: Path) -> None:
    target = folder / "elsewhere" / "out.ipynb"
    with pytest.raises(RuntimeError, match=r"demo.cpu failed: .*" + said):
        run(yaml_file(folder, parameters={"corpus": corpus}), output=target, progress=False)
    assert (target.parent / "result.txt").exists()


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_committed_run_files_are_accepted(path: Path) -> None:
    todo = plan(path)
    assert re.fullmatch(rf"[a-z0-9_]+\.({'|'.join(MACHINES)})", todo.name), "a run file is called <name>.<machine>.yaml"
    assert todo.about.endswith(".")


@pytest.mark.parametrize("path", GPU_RUNS, ids=lambda path: path.stem)
def test_a_gpu_run_has_a_cpu_twin_with_the_same_keys(path: Path) -> None:
    todo = plan(path)
    twin = plan(path.with_name(path.name.replace(f".{todo.machine}.yaml", ".cpu.yaml")))
    assert twin.notebook == todo.notebook
    assert set(twin.parameters) == set(todo.parameters)


def test_parameters_of_a_notebook(folder: Path) -> None:
    known = notebook_parameters(folder / "03_demo.ipynb")
    assert [name for name, parameter in known.items() if parameter.required] == ["corpus"]
    assert known["widths"].annotation == "tuple[int, ...]"
