"""The setup cell, run where kancourse is missing, with a pip that only pretends; and the address it is stamped from.

Run alone: python -m pytest tests/test_lesson_bootstrap.py
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kancourse.lesson.bootstrap import BADGE, badge_line, repository, setup_cell

ADDRESS = "https://github.com/someone/kancourse"

# Lists one package, writes down how it was called, and "installs" a kancourse whose setup() says hello.
PIP = """
import pathlib, sys

here = pathlib.Path(__file__).resolve().parent.parent
if sys.argv[1] == "list":
    print("torch==2.11.0+cu128\\nipywidgets==7.7.1")
else:
    (here / "called.txt").write_text("\\n".join(sys.argv[1:]))
    held = sys.argv[sys.argv.index("--constraint") + 1]
    (here / "held.txt").write_text(pathlib.Path(held).read_text())
    if (here / "offline").exists():
        sys.exit("WARNING: retrying\\nERROR: Could not find a version\\n[notice] a new pip is there")
    (here / "kancourse").mkdir()
    (here / "kancourse" / "__init__.py").touch()
    (here / "kancourse" / "lesson.py").write_text("def setup():\\n    print('hello')\\n")
"""


def run_cell(source: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a cell without site-packages (so kancourse is missing) and with the pretended pip."""
    (folder / "pip").mkdir()
    (folder / "pip" / "__main__.py").write_text(PIP)
    (folder / "pip" / "__init__.py").touch()
    (folder / "cell.py").write_text(source)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-S", "cell.py"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_installs_where_it_is_missing(tmp_path: Path) -> None:
    done = run_cell(setup_cell(ADDRESS), tmp_path)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    called = (tmp_path / "called.txt").read_text().splitlines()
    assert called[:3] == ["install", "--quiet", "--constraint"]
    assert called[4:] == [f"kancourse[notebooks] @ git+{ADDRESS}"]  # not editable, nothing upgraded
    assert (tmp_path / "held.txt").read_text() == "torch==2.11.0+cu128\nipywidgets==7.7.1\n"


def test_leaves_an_installed_course_alone(tmp_path: Path) -> None:
    (tmp_path / "kancourse").mkdir()
    (tmp_path / "kancourse" / "__init__.py").touch()
    (tmp_path / "kancourse" / "lesson.py").write_text("def setup():\n    print('already here')\n")
    done = run_cell(setup_cell(ADDRESS), tmp_path)
    assert done.stdout == "already here\n"
    assert not (tmp_path / "called.txt").exists()


def test_a_failed_installation_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "offline").touch()
    done = run_cell(setup_cell(ADDRESS), tmp_path)
    expected = f"ImportError: kancourse could not be installed from {ADDRESS}: ERROR: Could not find a version"
    assert done.stderr.splitlines()[-1] == expected
    assert done.returncode == 1


def test_without_an_address_it_says_what_to_do(tmp_path: Path) -> None:
    done = run_cell(setup_cell(None), tmp_path)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: kancourse is not installed, and this copy of the course does not know its public address: "
        "start it with `make lab` in its folder"
    )
    assert not (tmp_path / "called.txt").exists()


@pytest.mark.parametrize("address", [None, ADDRESS])
def test_nothing_that_breaks_colab(address: str | None) -> None:
    source = setup_cell(address)
    ast.parse(source)
    assert all(len(line) <= 120 for line in source.splitlines())
    for word in ("autoreload", "--upgrade", "-U", "-e ", "--editable", "torch", "%", "!"):
        assert word not in source


def pyproject(folder: Path, urls: str) -> Path:
    (folder / "pyproject.toml").write_text(f'[project]\nname = "kancourse"\n{urls}')
    return folder


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("https://github.com/OWNER/kancourse", None),
        (ADDRESS, ADDRESS),
        (ADDRESS + ".git", ADDRESS),
        (ADDRESS + "/", ADDRESS),
        ("https://codeberg.org/someone/kancourse", "https://codeberg.org/someone/kancourse"),
    ],
)
def test_address(told: str, expected: str | None, tmp_path: Path) -> None:
    assert repository(pyproject(tmp_path, f'[project.urls]\nRepository = "{told}"\n')) == expected


@pytest.mark.parametrize("told", ["", '[project.urls]\nRepository = "somewhere"\n'])
def test_no_address_is_one_sentence(told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pyproject.toml: Repository is '.*', expected an address like https"):
        repository(pyproject(tmp_path, told))


def test_an_installed_package_cannot_stamp(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="can only be stamped in a checkout"):
        repository(tmp_path)


def test_badge() -> None:
    line = badge_line("03_gpt.ipynb", ADDRESS)
    link = "https://colab.research.google.com/github/someone/kancourse/blob/main/notebooks/03_gpt.ipynb"
    assert line.startswith(BADGE + " [![Open in Colab](")
    assert line.endswith(f"]({link})")
    assert badge_line("03_gpt.ipynb", None) == BADGE
    assert badge_line("03_gpt.ipynb", "https://codeberg.org/someone/kancourse") == BADGE
