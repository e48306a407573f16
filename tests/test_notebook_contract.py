"""Every notebook keeps the contract, and every rule of the contract finds a planted violation.

Run alone: python -m pytest tests/test_notebook_contract.py
"""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output
from notebook_fixtures import CARD, cell, executed, lesson, opened

from kancourse.lesson import contract
from kancourse.lesson.bootstrap import ROOT, repository
from kancourse.lesson.document import load, source_hash
from kancourse.lesson.mirror import definitions, mirror_text, package_names, same_code

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ADDRESS = "https://github.com/someone/kancourse"
MIRROR, EXERCISE, PLAY = 5, 6, 8  # cells of the fixture


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_the_contract(path: Path) -> None:
    assert contract.violations(load(path, repository())) == []


def test_the_fixture_keeps_the_contract() -> None:
    assert contract.violations(opened(lesson())) == []
    assert contract.violations(opened(lesson(address=ADDRESS), address=ADDRESS)) == []


def source(index: int, old: str, new: str) -> Callable[[NotebookNode], None]:
    """Replace text in a cell, and execute again."""

    def change(node: NotebookNode) -> None:
        assert old in node.cells[index].source
        node.cells[index].source = node.cells[index].source.replace(old, new)
        node.metadata["kancourse"] = {"executed": {"source": source_hash(node)}}

    return change


def added(text: str, *tags: str) -> Callable[[NotebookNode], None]:
    """One more code cell before the quiz, executed."""

    def change(node: NotebookNode) -> None:
        node.cells.insert(-1, cell("code", text, *tags))
        pictures = node.cells[PLAY].outputs
        executed(node)
        node.cells[PLAY].outputs = pictures

    return change


def edited(change: str) -> Callable[[NotebookNode], None]:
    """Any statement on `node`."""
    return lambda node: exec(change, {"node": node, "new_output": new_output, "nbformat": nbformat, "cell": cell})


PLANTED = {
    # rule: mirrors
    "mutated line": (source(MIRROR, "math.sqrt(q.size(-1))", "q.size(-1)"), "cell 5: differs from the package"),
    "off by one": (source(MIRROR, ": t + 1]", ": t]"), "differs from the package"),
    "changed default": (source(MIRROR, "v: Tensor)", "v: Tensor = None)"), "differs from the package"),
    "added statement": (source(MIRROR, "    return out", "    out = out\n    return out"), "differs from the package"),
    "second definition": (source(MIRROR, "return out", "return out\n\nx = 1"), "differs from the package"),
    "mirror of nothing": (source(MIRROR, ": naive_attention", ": no_attention"), "attention has no no_attention"),
    "mirror of no module": (source(MIRROR, "kancourse.attention", "kancourse.atention"), "no kancourse file"),
    "mirror without header": (source(MIRROR, "# kancourse.attention: ", "# "), "a mirror cell begins with"),
    # rule: no second copy, nothing patched
    "copy": (added("class GPT:\n    pass"), "the package has a GPT; tag this cell `mirror` or call it toy_GPT"),
    "copied function": (added("def generate():\n    pass"), "the package has a generate"),
    "patch": (added("from kancourse.gpt import GPT\nGPT.forward = None"), "changes GPT.forward"),
    "patch of a module": (added("import kancourse.gpt as g\ng.GPT.step = 1"), "changes g.GPT.step"),
    "patch of a module's path": (added("import kancourse.gpt\nkancourse.gpt.GPT = 1"), "changes kancourse.gpt.GPT"),
    "patch of a mirror": (added("naive_attention.fast = True"), "changes naive_attention.fast"),
    "patch in place": (added("from kancourse import gpt\ngpt.IGNORE += 1"), "changes gpt.IGNORE"),
    "deletion": (added("from kancourse import gpt\ndel gpt.IGNORE"), "changes gpt.IGNORE"),
    "setattr": (added("from kancourse.gpt import GPT\nsetattr(GPT, 'step', 1)"), "changes the package"),
    # rule: parameters
    "no parameters": (edited("node.cells[3].metadata.tags = []"), "0 cells are tagged `parameters`, expected 1"),
    "two parameters cells": (added("more: int = 3", "parameters"), "2 cells are tagged `parameters`"),
    "no annotation": (source(3, "steps: int = 3", "steps = 3"), "line 1: only lines like `steps: int = 300`"),
    "derived value": (source(3, "-1e-3", "steps * 1e-3"), "the value of rate is not a literal"),
    "no value": (source(3, "rate: float = -1e-3", "rate: float"), "rate has no value"),
    "import in parameters": (source(3, "steps:", "import os\nsteps:"), "line 1: only lines like"),
    # rule: badge and setup
    "no title": (source(0, "# 03", "03"), "the first cell is not a text with a '# title'"),
    "no badge": (source(0, "<!-- badge -->", ""), "the badge line is not the stamped one"),
    "old badge": (source(0, "<!-- badge -->", "<!-- badge --> [![Open](x)](y)"), "the badge line is not the stamped"),
    "edited setup": (source(2, "machine = setup()", "machine = setup(seed=1)"), "the setup cell is not the stamped"),
    "no setup": (edited("node.cells[2].metadata.tags = []"), "one cell tagged `setup`, the first code cell"),
    "late setup": (edited("node.cells.insert(2, cell('code', 'x = 1'))"), "one cell tagged `setup`, the first"),
    # rule: executed
    "not in order": (edited("node.cells[4].execution_count = 7"), "not executed in order 1..7: [1, 2, 7,"),
    "not executed": (
        edited("for c in node.cells: c.cell_type == 'code' and c.update(execution_count=None)"),
        "in order",
    ),
    "edited afterwards": (edited("node.cells[4].source += '\\nx = 1'"), "the code changed after the outputs were made"),
    "error output": (
        edited("node.cells[4].outputs = [new_output('error', ename='ValueError', evalue='', traceback=[])]"),
        "cell 4: its output is an error, ValueError",
    ),
    # rule: clean
    "widget state": (edited("node.metadata.widgets = {}"), "metadata.widgets is set"),
    "allow_errors": (edited("node.metadata.execution = {'allow_errors': True}"), "allow_errors hides failures"),
    "raises-exception": (
        edited("node.cells[4].metadata.tags = ['raises-exception']"),
        "unknown tag 'raises-exception'",
    ),
    "skip-execution": (edited("node.cells[4].metadata.tags = ['skip-execution']"), "unknown tag 'skip-execution'"),
    "timings": (edited("node.cells[4].metadata.execution = {}"), "metadata execution is noise: run `notebooks strip`"),
    "widget view": (
        edited(
            "node.cells[4].outputs = [new_output('display_data', {'application/vnd.jupyter.widget-view+json': {}})]"
        ),
        "points at a widget that is not stored",
    ),
    "machine path": (
        edited("node.cells[4].outputs = [new_output('stream', text='saved to /home/someone/x')]"),
        "its output shows a path of the machine it ran on, /home/someone",
    ),
    "not Python": (edited("node.cells[4].source = 'import math math'"), "cell 4: invalid syntax"),
    "foreign import": (source(4, "import math", "import math, einops"), "imports einops, which requirements.txt"),
    "foreign from": (source(4, "import math", "from scipy.linalg import norm"), "imports scipy.linalg, which"),
    # rule: exercises
    "no check": (source(EXERCISE, "check.initial_loss(initial_loss)", "1"), "an exercise without a `check.…(fn)`"),
    "only close": (source(EXERCISE, "check.initial_loss(initial_loss)", "check.close('x', 1, 1)"), "without a `check."),
    "unknown check": (source(EXERCISE, "check.initial_loss(", "check.inital_loss("), "no check named 'inital_loss'"),
    "solved": (
        source(EXERCISE, "return check.TODO", "return math.log(vocab_size)"),
        "a function that returns check.TODO",
    ),
    # rule: pictures, card, headings
    "no picture": (edited("node.cells[8].outputs = []"), "cell 8: play(...) left no picture"),
    "no card": (edited("node.cells[1].metadata.tags = []"), "the second cell, and no other, is the text tagged `card`"),
    "card line": (source(1, "- **You need first:** nothing.\n", ""), "the card has no line '- **You need first:** …'"),
    "no minutes": (source(1, "0.1 (2 cores)", "about one"), "the card has no measured minutes"),
    "never verified": (source(1, "2026-11-22 with", "soon with"), "the card was never verified"),
    "no quiz": (source(9, "## Quiz", "## Questions"), "no heading 'Quiz'"),
    "no limits": (source(9, "## What this does *not* show", "## More"), "no heading 'What this does not show'"),
}


@cache
def findings(name: str) -> dict[Callable, list[str]]:
    """What each rule says about a planted violation."""
    node = lesson()
    PLANTED[name][0](node)
    nb = opened(node)
    return {rule: rule(nb) for rule in contract.LESSON}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found(name: str) -> None:
    found = [finding for wrong in findings(name).values() for finding in wrong]
    assert any(PLANTED[name][1] in finding for finding in found), found


def test_too_large() -> None:
    assert contract.violations(opened(lesson(), size=1_000_001)) == ["1000001 bytes, more than 1000000"]


def test_every_rule_has_a_planted_violation() -> None:
    heard = {rule for name in PLANTED for rule, wrong in findings(name).items() if wrong}
    assert heard == set(contract.LESSON)


def test_comments_layout_and_docstrings_may_differ() -> None:
    node = lesson()
    text = node.cells[MIRROR].source
    begin, end = text.index('"""'), text.rindex('"""') + 3
    node.cells[MIRROR].source = text[:begin] + "'''Mine.'''  # and a comment\n" + text[end:]
    assert contract.violations(opened(node)) == []


def test_a_tool_notebook_has_a_lighter_contract() -> None:
    node = lesson("train.ipynb")
    del node.cells[7:]
    del node.cells[1]
    node.cells[2].source = "corpus: str"  # required: the run driver gives it
    for one in node.cells:
        if one.cell_type == "code":
            one.execution_count, one.outputs = None, []
    node.metadata.pop("kancourse")
    assert contract.violations(opened(node, "train.ipynb")) == []
    node.cells[3].source = "import einops"
    assert len(contract.violations(opened(node, "train.ipynb"))) == 1


def test_magics_are_python_too() -> None:
    node = lesson()
    added("%timeit -n 1 1 + 1\n!echo hello")(node)
    assert contract.violations(opened(node)) == []


def test_mirror_text_names_several() -> None:
    header = "# kancourse.attention: rope, naive_attention"
    text = mirror_text(header + "\nanything")
    assert text.startswith(f"{header}\ndef rope(")
    assert "\n\n\ndef naive_attention(" in text
    assert same_code(text, mirror_text(text))
    assert mirror_text("# kancourse.gpt: IGNORE, GPTConfig").split("\n")[1].startswith("IGNORE = ")
    assert "\n\n\n@dataclass" in mirror_text("# kancourse.gpt: IGNORE, GPTConfig")


def test_every_public_definition_can_be_mirrored() -> None:
    for path in (ROOT / "kancourse").glob("*.py"):
        for name in definitions(path):
            mirror_text(f"# kancourse.{path.stem}: {name}")
    assert {"GPT", "naive_attention", "train", "generate", "load_corpus"} <= package_names()
    assert not {name for name in package_names() if name.startswith("_")}


def test_card_of_the_fixture_is_the_documented_one() -> None:
    assert [line.split(":**")[0].removeprefix("- **") for line in CARD.splitlines()] == list(contract.CARD)


def test_ruff_agrees_with_the_fixture(tmp_path: Path) -> None:
    """The stamped setup cell and the cells a lesson is told to write pass the linter the notebooks must pass."""
    path = tmp_path / "03_demo.ipynb"
    nbformat.write(lesson(address=ADDRESS), path)
    for command in (["check"], ["format", "--check", "--diff"]):
        told = [sys.executable, "-m", "ruff", *command, "--config", str(ROOT / "pyproject.toml"), str(path)]
        done = subprocess.run(told, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
