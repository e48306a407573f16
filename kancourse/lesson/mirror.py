"""Mirror cells: the package's own code, shown in a notebook, and never a different one.

A cell tagged `mirror` begins with a line that says what it mirrors, `# kancourse.attention: rope, naive_attention`,
and goes on with exactly these definitions. `notebooks sync` writes the cell from that line; a test compares the
syntax trees.
"""

import ast
import re
from functools import cache
from pathlib import Path

from kancourse.paths import PACKAGE

HEADER = re.compile(r"# (kancourse(?:\.\w+)+): (\w+(?:, \w+)*)")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def mirror_text(source: str) -> str:
    """What a mirror cell should hold, from its first line.

    Raises:
        ValueError: the first line is no such header, or names something the package does not have.
    """
    first = source.split("\n", 1)[0].rstrip()
    header = HEADER.fullmatch(first)
    if header is None:
        raise ValueError(f"a mirror cell begins with a line like '# kancourse.gpt: Block, GPT', not {first!r}")
    module, names = header[1], header[2].split(", ")
    path = PACKAGE.parent / (module.replace(".", "/") + ".py")
    if not path.is_file():
        raise ValueError(f"a mirror cell names {module}, but there is no kancourse file of that name")
    known = definitions(path)
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(f"{module} has no {', '.join(missing)}; it has {', '.join(known)}")
    text = first
    for name in names:
        block = known[name]
        long = block.startswith(("@", "def ", "async def ", "class "))
        text += ("\n\n\n" if long and text != first else "\n") + block
    return text


@cache
def definitions(path: Path) -> dict[str, str]:
    """Name -> source of each top-level function, class and constant of a file, decorators included."""
    text = path.read_text(encoding="utf-8")
    lines, found = text.splitlines(), {}
    for node in ast.parse(text).body:
        if isinstance(node, Definition):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(lines[start - 1 : node.end_lineno])
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    found[target.id] = "\n".join(lines[node.lineno - 1 : node.end_lineno])
    return found


@cache
def package_names() -> frozenset[str]:
    """Public top-level functions and classes of the ideas and the lab: a notebook may not define these anew."""
    names: set[str] = set()
    for path in [*PACKAGE.glob("*.py"), *(PACKAGE / "lab").rglob("*.py")]:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        names |= {node.name for node in body if isinstance(node, Definition) and not node.name.startswith("_")}
    return frozenset(names - {"main"})


def same_code(one: str, other: str) -> bool:
    """Whether two sources have the same syntax tree, comments, layout and docstrings aside."""
    return bare_tree(one) == bare_tree(other)


def bare_tree(source: str) -> str:
    """The syntax tree as text, without docstrings and positions."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, Definition) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
