"""Notebook tooling: sync, stamp, strip, execute and check, on a small lesson in a temporary folder.

Run alone: python -m pytest tests/test_lesson_notebooks.py
"""

import datetime
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_output
from notebook_fixtures import lesson, write

from kancourse.lesson import contract, notebooks, tables
from kancourse.lesson.document import load
from kancourse.lesson.notebooks import NotebookArgs, check, execute, stamp, strip, sync
from kancourse.lesson.tables import PAGES

ADDRESS = "https://github.com/someone/kancourse"
MARKS = {
    page: "".join(f"<!-- {name}:begin -->\n<!-- {name}:end -->\n" for name in names) for page, names in PAGES.items()
}


@pytest.fixture
def args(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NotebookArgs:
    monkeypatch.setattr(notebooks, "repository", lambda: None)
    for page, marks in MARKS.items():
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text(marks)
    monkeypatch.setattr(tables, "data_dir", lambda: tmp_path / "data")  # no claims
    monkeypatch.setattr(tables, "results_table", lambda: "")
    monkeypatch.setattr(tables, "studies_table", lambda: "")
    return NotebookArgs(folder=tmp_path / "notebooks", root=tmp_path, timeout=120, record=False)


def test_sync_writes_the_package_code(args: NotebookArgs) -> None:
    node = lesson()
    good = node.cells[5].source
    node.cells[5].source = "# kancourse.attention: naive_attention\n"  # an author writes this line only
    path = write(node, args.folder)
    assert sync(args) == [path]
    assert nbformat.read(path, as_version=4).cells[5].source == good
    assert sync(args) == []


def test_stamp_writes_badge_setup_and_readme(args: NotebookArgs, monkeypatch: pytest.MonkeyPatch) -> None:
    node = lesson()
    node.cells[2].source = ""  # an author tags an empty cell
    path = write(node, args.folder)
    assert stamp(args) == [path, args.root / "README.md"]
    assert contract.violations(load(path, None)) == []
    monkeypatch.setattr(notebooks, "repository", lambda: ADDRESS)
    assert stamp(args) == [path, args.root / "README.md"]
    assert contract.violations(load(path, ADDRESS)) == []  # the outputs are still fresh
    assert "google.com/github/someone/kancourse/blob/main/notebooks/03_demo.ipynb" in path.read_text()
    assert "colab-badge.svg" in (args.root / "README.md").read_text()
    assert stamp(args) == []


def test_stamp_needs_a_place(args: NotebookArgs) -> None:
    node = lesson()
    node.cells[0].source = "# Title"
    path = write(node, args.folder)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"03_demo.ipynb has 0 lines '<!-- badge -->' in its first cell and 1 code"):
        stamp(args)
    assert path.read_bytes() == before


def test_strip_keeps_what_a_reader_needs(args: NotebookArgs) -> None:
    node = lesson()
    node.metadata.update(widgets={}, papermill={}, accelerator="GPU", colab={"gpuType": "L4", "provenance": []})
    node.metadata.kernelspec = {"name": "my-env", "display_name": "My env", "language": "python"}
    node.cells[3].metadata.update(execution={"iopub.status.busy": "2026"}, id="abc", collapsed=True)
    node.cells[8].outputs.append(new_output("display_data", {contract.WIDGET: {"model_id": "x"}}))
    path = write(node, args.folder)
    assert strip(args) == [path]
    found = nbformat.read(path, as_version=4)
    assert contract.violations(load(path, None)) == []
    assert found.metadata.accelerator == "GPU"
    assert found.metadata.colab == {"gpuType": "L4"}
    assert found.metadata.kernelspec.name == "python3"
    assert found.cells[3].metadata == {"tags": ["parameters"]}
    assert [list(output.data) for output in found.cells[8].outputs] == [["image/png"]]
    assert strip(args) == []


def test_check_writes_nothing(args: NotebookArgs) -> None:
    path = write(lesson(), args.folder)
    found = check(args)  # the README has empty tables; those of results and claims are the course's own
    assert set(found) == {"README.md"}
    assert "the table of notebooks is out of date: run `notebooks stamp`" in found["README.md"]
    stamp(args)
    before = path.read_bytes()
    assert check(args) == {}
    node = lesson()
    node.cells[8].outputs = []
    write(node, args.folder)
    assert check(args) == {"03_demo.ipynb": ["cell 8: play(...) left no picture in the output"]}
    assert path.read_bytes() != before


def test_unknown_name(args: NotebookArgs) -> None:
    write(lesson(), args.folder)
    assert notebooks.chosen(NotebookArgs(names=("03_demo.ipynb",), folder=args.folder)) == [
        args.folder / "03_demo.ipynb"
    ]
    with pytest.raises(FileNotFoundError, match="no notebook '04' in notebooks/; known: 03_demo"):
        check(NotebookArgs(names=("04",), folder=args.folder))


def test_execute_fills_in_what_nobody_types(args: NotebookArgs) -> None:
    """A real kernel: the notebook comes out keeping the whole contract."""
    node = lesson()
    card = node.cells[1].source
    card = card.replace("0.1 (2 cores)", "not measured yet").replace("2026-11-22 with Python 3.11", "never")
    node.cells[1].source = card
    node.metadata = {"widgets": {}}
    for cell in node.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    path = write(node, args.folder)
    write(lesson("train.ipynb"), args.folder, "train.ipynb")  # a tool notebook is left alone
    minutes = execute(args)
    assert list(minutes) == ["03_demo.ipynb"]
    assert 0 < minutes["03_demo.ipynb"] < 2
    assert check(args) == {}
    done = nbformat.read(path, as_version=4)
    if "CUDA" not in done.cells[2].outputs[0].text:
        assert re.search(r"Minutes on a CPU:\*\* \d+\.\d \(\d+ cores\)", done.cells[1].source)
    assert f"Last verified:** {datetime.date.today()} with kancourse" in done.cells[1].source
    assert "Minutes on a GPU:** not measured yet" in done.cells[1].source
    assert done.cells[2].outputs[0].text.startswith("kancourse ")
    assert "✘ initial_loss: not done yet" in done.cells[6].outputs[0].text
    assert "<details>" in done.cells[7].outputs[0].data["text/markdown"]
    assert list(json.loads(path.read_text())["metadata"]) == ["kancourse", "kernelspec", "language_info"]


def test_execute_keeps_the_old_notebook_when_a_cell_fails(args: NotebookArgs) -> None:
    node = lesson()
    node.cells = [node.cells[0], node.cells[4]]
    node.cells[1].source = "import os\nprint(os.environ['KANCOURSE_NOTEBOOK'], os.getcwd())\n1 / 0"
    path = write(node, args.folder)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match=r"03_demo.ipynb: a cell raised ZeroDivisionError: division by zero"):
        execute(args)
    assert path.read_bytes() == before
    assert (args.root / "README.md").read_text() == MARKS["README.md"]


def test_execute_refuses_what_would_break_the_contract(args: NotebookArgs) -> None:
    node = lesson()
    node.cells = [node.cells[0], node.cells[4]]
    node.cells[1].source = "print('/home/' + 'someone/x')"
    path = write(node, args.folder)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="was executed but not saved: cell 1: its output shows a path of the machine"):
        execute(args)
    assert path.read_bytes() == before
