"""A small lesson notebook that keeps to every rule, for the tests to execute or to break."""

import base64
import io
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kancourse.lesson.bootstrap import badge_line, setup_cell
from kancourse.lesson.document import Notebook, source_hash
from kancourse.lesson.mirror import mirror_text

CARD = """\
- **You will build:** a mask.
- **You need first:** nothing.
- **Minutes on a CPU:** 0.1 (2 cores)
- **Minutes on a GPU:** not measured yet
- **Last verified:** 2026-11-22 with Python 3.11"""

PARAMETERS = """\
steps: int = 3  # how many
rate: float = -1e-3
names: tuple[str, ...] = ("a", "b")
resume: str | None = None"""

IMPORTS = """\
import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from kancourse.lesson import check, play, source"""

EXERCISE = """\
def initial_loss(vocab_size):
    return check.TODO


initial_loss = check.initial_loss(initial_loss)"""

PLAY = """\
def draw(power: int = 2):
    plt.plot([x**power for x in range(steps)])


play(draw, power=(1, 4))"""


def cell(kind: str, source: str, *tags: str) -> NotebookNode:
    """A code or text cell with tags."""
    made = (new_code_cell if kind == "code" else new_markdown_cell)(source)
    made.metadata = nbformat.from_dict({"tags": list(tags)} if tags else {})
    return made


def lesson(name: str = "03_demo.ipynb", address: str | None = None) -> NotebookNode:
    """A lesson that was "executed": counts, a picture, and the hash of its code are in place."""
    node = new_notebook(
        cells=[
            cell("text", f"# 03 · Demo\n{badge_line(name, address)}\n\nA sentence that can be wrong."),
            cell("text", CARD, "card"),
            cell("code", setup_cell(address), "setup"),
            cell("code", PARAMETERS, "parameters"),
            cell("code", IMPORTS),
            cell("code", mirror_text("# kancourse.attention: naive_attention"), "mirror"),
            cell("code", EXERCISE, "exercise"),
            cell("code", "source(check.initial_loss, fold=True)"),
            cell("code", PLAY),
            cell("text", "## What this does *not* show\n\nMuch.\n\n## Quiz\n\nWhy?"),
        ]
    )
    executed(node)
    return node


def executed(node: NotebookNode) -> None:
    """Mark as executed in order, with a picture where `play` is called."""
    code = [one for one in node.cells if one.cell_type == "code"]
    for count, one in enumerate(code, 1):
        one.execution_count = count
        if "play(" in one.source:
            one.outputs = [new_output("display_data", {"image/png": png()})]
    node.metadata["kancourse"] = {"executed": {"source": source_hash(node)}}


@cache
def png() -> str:
    """A tiny picture, base64."""
    figure, buffer = plt.figure(figsize=(0.2, 0.2)), io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def opened(node: NotebookNode, name: str = "03_demo.ipynb", address: str | None = None, size: int = 1000) -> Notebook:
    """As the rules see it."""
    return Notebook(name, node, address, size)


def write(node: NotebookNode, folder: Path, name: str = "03_demo.ipynb") -> Path:
    """Write it to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, folder / name)
    return folder / name
