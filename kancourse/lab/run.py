"""The strict run driver: execute a notebook with the parameters of a YAML file, or say at once what is wrong with it.

papermill alone logs an unknown parameter and goes on. Here everything is checked before a kernel starts:
- an unknown, missing or mistyped key is an error, with the name that was probably meant (`parameters.py`);
- what needs a GPU is refused where there is none, with the name of its CPU twin.

papermill runs in a process of its own; its exit code decides, because a killed kernel leaves an innocent notebook.

A YAML file, `notebooks/runs/<name>.<machine>.yaml`:

    notebook: 03_gpt.ipynb          # in notebooks/
    machine: cpu                    # cpu, or the GPU it is meant for; anything but cpu needs a GPU
    about: One sentence.
    expect_minutes: 2
    parameters: {steps: 300}
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from kancourse.lab.interrupts import stop_requests
from kancourse.lab.parameters import check_parameters, notebook_parameters, refuse_unknown
from kancourse.paths import PACKAGE

MACHINES = ("cpu", "t4", "l4", "a100", "h100", "h200")
KEYS = {"notebook": str, "machine": str, "about": str, "expect_minutes": (int, float), "parameters": dict}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked run: nothing about it can be refused any more."""

    name: str  # the YAML's, without .yaml
    notebook: Path
    machine: str
    about: str
    expect_minutes: float
    parameters: dict[str, Any]


def plan(yaml_path: str | Path) -> Plan:
    """Read and check a run file, without running anything.

    Raises:
        FileNotFoundError: no such YAML or notebook.
        ValueError: anything else that is wrong with it, in one sentence.
    """
    path = Path(yaml_path)
    if not path.is_file():
        near = ", ".join(sorted(other.name for other in path.parent.glob("*.yaml"))) or "none"
        raise FileNotFoundError(f"no run file {path}; in that folder: {near}")
    try:
        told = yaml.load(path.read_text(encoding="utf-8"), Loader=_Strict)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{path.name} must be a list of keys {', '.join(KEYS)}, not {type(told).__name__}")
    refuse_unknown(path.name, told, list(KEYS), "key")
    for key, kind in KEYS.items():
        if key not in told:
            raise ValueError(f"{path.name} has no {key!r}; it needs {', '.join(KEYS)}")
        if not isinstance(told[key], kind) or isinstance(told[key], bool):
            wanted = {str: "text", dict: "a list of `name: value`"}.get(kind, "a number")
            raise ValueError(f"{path.name}: {key} must be {wanted}, got {told[key]!r}")
    if told["machine"] not in MACHINES:
        raise ValueError(f"{path.name}: unknown machine {told['machine']!r}; known: {', '.join(MACHINES)}")
    suffix = path.stem.rpartition(".")[2]
    if suffix in MACHINES and suffix != told["machine"]:
        raise ValueError(f"{path.name} is named for {suffix}, but its machine is {told['machine']}")
    folder = path.resolve().parent
    notebook = (folder.parent if folder.name == "runs" else folder) / told["notebook"]
    if not notebook.is_file():
        near = ", ".join(sorted(other.name for other in notebook.parent.glob("*.ipynb"))) or "none"
        raise FileNotFoundError(
            f"{path.name}: no notebook {told['notebook']!r} in {notebook.parent.name}/; known: {near}"
        )
    check_parameters(path.name, told["parameters"], notebook_parameters(notebook))
    return Plan(
        name=path.stem,
        notebook=notebook,
        machine=told["machine"],
        about=told["about"],
        expect_minutes=float(told["expect_minutes"]),
        parameters=told["parameters"],
    )


def run(yaml_path: str | Path, *, output: str | Path | None = None, progress: bool = True) -> Path:
    """Check a run file, execute its notebook, stream what it prints, and return the executed notebook.

    The notebook runs in its own folder, with `KANCOURSE_RUN_DIR` set to the folder its results belong in. Running the
    same file again uses the same folder, so a notebook that resumes from its checkpoint there goes on where it stopped.

    Args:
        yaml_path: the run file.
        output: where the executed notebook goes; by default `runs_out/<name>/<notebook>` beside `notebooks/`.
        progress: show the cells' output while they run.

    Raises:
        FileNotFoundError, ValueError: the file is refused, see `plan`, or it needs a GPU that is not there.
        RuntimeError: a cell raised, or the kernel died.
    """
    todo = plan(yaml_path)
    if todo.machine != "cpu" and not torch.cuda.is_available():
        twin = f"{todo.name.removesuffix('.' + todo.machine)}.cpu.yaml"
        raise ValueError(
            f"{todo.name} is meant for a GPU ({todo.machine}) and this machine has none; on a CPU run {twin}"
        )
    default = todo.notebook.parent.parent / "runs_out" / todo.name / todo.notebook.name
    target = Path(output).resolve() if output else default
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # so that what is there afterwards is this run's
    print(
        f"{todo.about}\n{todo.notebook.name} on {todo.machine}, about {todo.expect_minutes:g} minutes, to {target}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        values = Path(scratch) / "parameters.yaml"
        values.write_text(yaml.safe_dump(todo.parameters, allow_unicode=True, sort_keys=False), encoding="utf-8")
        told = "--log-output" if progress else "--log-level=ERROR"
        where = [f"--parameters_file={values}", f"--cwd={todo.notebook.parent}"]
        options = ["--no-progress-bar", "--kernel=python3", "--language=python", told, *where]
        command = [sys.executable, "-m", "papermill", *options, str(todo.notebook), str(target)]
        code = _wait(subprocess.Popen(command, env=_environment(target.parent)))
    if code:
        raise RuntimeError(f"{todo.name} failed: {_what_failed(target)} (exit code {code}; see {target})")
    return target


def _wait(child: subprocess.Popen) -> int:
    """Its exit code. Asked to stop, wait while papermill stops the kernel, which saves what it is training first."""
    with stop_requests() as stop:
        while not stop:
            with suppress(subprocess.TimeoutExpired):
                return child.wait(timeout=0.5)
        if stop.signal != signal.SIGINT:  # a terminal sends Ctrl-C to papermill too
            child.send_signal(signal.SIGINT)
        try:
            child.wait(timeout=30)
        except subprocess.TimeoutExpired:
            child.terminate()
        raise KeyboardInterrupt


def _environment(folder: Path) -> dict[str, str]:
    """The kernel's environment: no widgets, a folder for results, and this kancourse when it runs from a checkout."""
    ours = {"KANCOURSE_WIDGETS": "0", "KANCOURSE_RUN_DIR": str(folder), "JUPYTER_PREFER_ENV_PATH": "1"}
    if (PACKAGE.parent / "pyproject.toml").is_file():
        ours["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONUNBUFFERED": "1", **ours}


def _what_failed(output: Path) -> str:
    """The error stored in an executed notebook, in words; a dead kernel stores none."""
    if not output.is_file():
        return "papermill could not start it"
    cells = json.loads(output.read_text(encoding="utf-8"))["cells"]
    for index, cell in enumerate(cells):
        for result in cell.get("outputs", []):
            if result["output_type"] == "error":
                return f"cell {index} raised {result['ename']}: {result['evalue']}"
    return "the kernel died before its cell ended (out of memory, or killed)"


class _Strict(yaml.SafeLoader):
    """YAML without objects, and without a key that quietly overwrites its twin."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} is given twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
