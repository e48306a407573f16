"""A notebook as the tooling sees it: its cells, their tags, and the syntax tree of each code cell."""

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from kancourse.lesson.mirror import bare_tree


@dataclass
class Notebook:
    """A notebook with what the rules ask of it."""

    name: str  # "03_gpt.ipynb"
    node: NotebookNode
    address: str | None = None  # the course's public address
    size: int = 0  # bytes on disk
    trees: dict[int, ast.Module] = field(
        init=False
    )  # cell index -> syntax tree of each code cell, empty where it does not parse
    broken: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.trees, self.broken = {}, []
        for index, cell in self.code():
            try:
                self.trees[index] = ast.parse(TransformerManager().transform_cell(cell.source))
            except SyntaxError as error:
                self.trees[index] = ast.Module(body=[], type_ignores=[])
                self.broken.append(f"cell {index}: {error.msg}, line {error.lineno}")

    @property
    def is_lesson(self) -> bool:
        return re.match(r"\d\d[a-z]?_", self.name) is not None

    def code(self, tag: str | None = None) -> Iterator[tuple[int, NotebookNode]]:
        """(index, cell) of code cells, of one tag when asked."""
        for index, cell in enumerate(self.node.cells):
            if cell.cell_type == "code" and (tag is None or tag in tags(cell)):
                yield index, cell

    def calls(self, index: int) -> Iterator[ast.Call]:
        """Every call in a cell."""
        for node in ast.walk(self.trees[index]):
            if isinstance(node, ast.Call):
                yield node


def tags(cell: NotebookNode) -> list[str]:
    """A cell's tags."""
    return cell.metadata.get("tags", [])


def load(path: Path, address: str | None) -> Notebook:
    """Read a notebook from disk, to be judged with the course's public address."""
    return Notebook(path.name, nbformat.read(path, as_version=4), address, path.stat().st_size)


def source_hash(node: NotebookNode) -> str:
    """A short hash of what a notebook's code does; the setup cell aside, because the address in it may change."""
    digest = hashlib.sha256()
    for cell in node.cells:
        if cell.cell_type == "code" and "setup" not in tags(cell):
            digest.update(bare_tree(TransformerManager().transform_cell(cell.source)).encode())
    return digest.hexdigest()[:16]
