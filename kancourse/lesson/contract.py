"""What every notebook keeps to, as rules a test can run; each returns what is wrong in one sentence per finding.

- A lesson (`03_gpt.ipynb`: its name begins with two digits) keeps all of them; the tool notebooks (`train.ipynb`) the
  ones that make a notebook safe to open anywhere.
- Tags carry the meaning of a cell: `card`, `setup`, `parameters`, `mirror`, `exercise`.
- The tests plant a violation of each rule and see it found.
"""

import ast
import importlib.metadata
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from kancourse.lesson.bootstrap import BADGE, ROOT, badge_line, setup_cell
from kancourse.lesson.document import Notebook, source_hash, tags
from kancourse.lesson.exercises import all_exercises
from kancourse.lesson.mirror import Definition, mirror_text, package_names, same_code

LIMIT = 1_000_000  # bytes; GitHub shows no larger notebook reliably
CARD = ("You will build", "You need first", "Minutes on a CPU", "Minutes on a GPU", "Last verified")
HEADINGS = ("Quiz", "What this does not show")
TAGS = ("card", "setup", "parameters", "mirror", "exercise")
WIDGET = "application/vnd.jupyter.widget-view+json"


def parses(nb: Notebook) -> list[str]:
    """Every code cell is Python."""
    return nb.broken


def starts_right(nb: Notebook) -> list[str]:
    """Title and badge in the first cell, one setup cell before all other code, both as stamped."""
    wrong = []
    first = nb.node.cells[0] if nb.node.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        return ["the first cell is not a text with a '# title'"]
    badge = [line for line in first.source.splitlines() if line.startswith(BADGE)]
    if badge != [badge_line(nb.name, nb.address)]:
        wrong.append(f"the badge line is not the stamped one: found {badge}, run `notebooks stamp`")
    cells = [index for index, _ in nb.code()]
    setups = [index for index, _ in nb.code("setup")]
    if len(setups) != 1 or setups[0] != cells[0]:
        return [*wrong, "there must be one cell tagged `setup`, the first code cell"]
    if nb.node.cells[setups[0]].source != setup_cell(nb.address):
        wrong.append("the setup cell is not the stamped one: run `notebooks stamp`")
    return wrong


def has_card(nb: Notebook) -> list[str]:
    """The second cell is the card, filled in by `notebooks execute`."""
    cards = [index for index, cell in enumerate(nb.node.cells) if "card" in tags(cell)]
    if cards != [1] or nb.node.cells[1].cell_type != "markdown":
        return [f"the second cell, and no other, is the text tagged `card` (found {cards})"]
    card = nb.node.cells[1].source
    wrong = [f"the card has no line '- **{label}:** …'" for label in CARD if f"- **{label}:** " not in card]
    if not re.search(r"^- \*\*Minutes on a CPU:\*\* [\d.]+ ", card, re.M):
        wrong.append("the card has no measured minutes: run `notebooks execute`")
    if not re.search(r"^- \*\*Last verified:\*\* \d{4}-\d\d-\d\d ", card, re.M):
        wrong.append("the card was never verified: run `notebooks execute`")
    return wrong


def parameters_are_literals(nb: Notebook) -> list[str]:
    """At most one `parameters` cell (a lesson: exactly one), of annotated literals only."""
    cells = list(nb.code("parameters"))
    if len(cells) > 1 or (nb.is_lesson and not cells):
        return [f"{len(cells)} cells are tagged `parameters`, expected 1"]
    wrong = []
    for index, _ in cells:
        for node in nb.trees[index].body:
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                wrong.append(f"parameters, line {node.lineno}: only lines like `steps: int = 300` may stand here")
            elif node.value is None:
                if nb.is_lesson:
                    wrong.append(f"parameters, line {node.lineno}: {node.target.id} has no value")
            else:
                try:
                    ast.literal_eval(node.value)
                except ValueError:
                    wrong.append(f"parameters, line {node.lineno}: the value of {node.target.id} is not a literal")
    return wrong


def mirrors_match(nb: Notebook) -> list[str]:
    """Every `mirror` cell is the package's code."""
    wrong = []
    for index, cell in nb.code("mirror"):
        try:
            if not same_code(cell.source, mirror_text(cell.source)):
                wrong.append(
                    f"cell {index}: differs from the package ({cell.source.splitlines()[0]}): run `notebooks sync`"
                )
        except (ValueError, SyntaxError) as error:
            wrong.append(f"cell {index}: {error}")
    return wrong


def no_second_copy(nb: Notebook) -> list[str]:
    """A function or class the package has is a mirror or an exercise, nothing else."""
    return [
        f"cell {index}: the package has a {node.name}; tag this cell `mirror` or call it toy_{node.name}"
        for index, cell in nb.code()
        if not {"mirror", "exercise"} & set(tags(cell))
        for node in (nb.trees[index].body)
        if isinstance(node, Definition) and node.name in package_names()
    ]


def patches_nothing(nb: Notebook) -> list[str]:
    """No attribute of anything imported from the package, or mirrored from it, is assigned or deleted."""
    ours: set[str] = set()
    for index, cell in nb.code():
        for node in ast.walk(nb.trees[index]):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kancourse":
                ours |= {name.asname or name.name for name in node.names}
            elif isinstance(node, ast.Import):
                ours |= {name.asname or "kancourse" for name in node.names if name.name.split(".")[0] == "kancourse"}
            elif isinstance(node, Definition) and "mirror" in tags(cell):
                ours.add(node.name)
    wrong = []
    for index, tree in nb.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del) and _root(node) in ours:
                wrong.append(f"cell {index}: changes {ast.unparse(node)}, which belongs to the package")
            patching = isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr") and node.args
            if patching and _root(node.args[0]) in ours:
                wrong.append(f"cell {index}: {ast.unparse(node)} changes the package")
    return wrong


def exercises_are_checked(nb: Notebook) -> list[str]:
    """Every `exercise` cell is an unsolved stub, checked in the same cell or the next."""
    wrong, known = [], all_exercises()
    cells = [index for index, _ in nb.code()]
    for index, _cell in nb.code("exercise"):
        after = cells[cells.index(index) + 1 :][:1]
        checks = [name for near in (index, *after) for name in _checks(nb, near)]
        if not checks:
            wrong.append(f"cell {index}: an exercise without a `check.…(fn)` in it or in the next cell")
        wrong += [
            f"cell {index}: no check named {name!r}; known: {', '.join(known)}" for name in checks if name not in known
        ]
        stubs = [node for node in nb.trees[index].body if isinstance(node, Definition)]
        if not stubs or any("check.TODO" not in ast.unparse(node) for node in stubs):
            wrong.append(f"cell {index}: an exercise is a function that returns check.TODO")
    return wrong


def plays_leave_a_picture(nb: Notebook) -> list[str]:
    """Every cell that calls `play` has a PNG in its output."""
    return [
        f"cell {index}: play(...) left no picture in the output"
        for index, cell in nb.code()
        if any(ast.unparse(call.func).split(".")[-1] == "play" for call in nb.calls(index))
        and not any("image/png" in output.get("data", {}) for output in cell.outputs)
    ]


def has_headings(nb: Notebook) -> list[str]:
    """The closing sections are there."""
    texts = [cell.source for cell in nb.node.cells if cell.cell_type == "markdown"]
    headings = [line.replace("*", "").lower() for text in texts for line in text.splitlines() if line.startswith("#")]
    return [f"no heading '{name}'" for name in HEADINGS if not any(name.lower() in heading for heading in headings)]


def ran_in_order(nb: Notebook) -> list[str]:
    """Executed 1..n (a tool notebook may be without outputs), without an error."""
    counts = [cell.execution_count for _, cell in nb.code() if cell.source.strip()]
    wrong = [
        f"cell {index}: its output is an error, {output.ename}"
        for index, cell in nb.code()
        for output in cell.outputs
        if output.output_type == "error"
    ]
    if counts != list(range(1, len(counts) + 1)) and (nb.is_lesson or any(counts)):
        wrong.append(f"not executed in order 1..{len(counts)}: {counts}")
    return wrong


def outputs_are_fresh(nb: Notebook) -> list[str]:
    """The code is the code whose outputs are stored (comments, layout, docstrings and the setup cell aside)."""
    if nb.broken:
        return []
    executed = nb.node.metadata.get("kancourse", {}).get("executed", {})
    if executed.get("source") == source_hash(nb.node) or not (nb.is_lesson or executed):
        return []
    return ["the code changed after the outputs were made: run `notebooks execute`"]


def is_clean(nb: Notebook) -> list[str]:
    """Small, without widget state, hidden failures, unknown tags, or paths of the machine it ran on."""
    wrong = [] if nb.size < LIMIT else [f"{nb.size} bytes, more than {LIMIT}"]
    meta = nb.node.metadata
    if "widgets" in meta:
        wrong.append("metadata.widgets is set: GitHub may refuse to show the notebook")
    if meta.get("execution", {}).get("allow_errors"):
        wrong.append("metadata.execution.allow_errors hides failures")
    for index, cell in enumerate(nb.node.cells):
        wrong += [
            f"cell {index}: unknown tag {tag!r}; known: {', '.join(TAGS)}" for tag in tags(cell) if tag not in TAGS
        ]
        extra = set(cell.metadata) - {"tags"}
        if extra:
            wrong.append(f"cell {index}: metadata {', '.join(sorted(extra))} is noise: run `notebooks strip`")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if WIDGET in data:
                wrong.append(f"cell {index}: its output points at a widget that is not stored")
            text = output.get("text", "") + "".join(value for value in data.values() if isinstance(value, str))
            found = re.search(rf"{re.escape(str(ROOT))}|/(?:home|Users|root|tmp)/\w+", text)
            if found:
                wrong.append(f"cell {index}: its output shows a path of the machine it ran on, {found[0]}")
    return wrong


def imports_are_declared(nb: Notebook) -> list[str]:
    """Only Python's own modules, kancourse, and what requirements.txt declares are imported."""
    allowed = declared_modules()
    wrong = []
    for index, tree in nb.trees.items():
        for node in ast.walk(tree):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [
                f"cell {index}: imports {name}, which requirements.txt does not declare"
                for name in names
                if name.split(".")[0] not in allowed
            ]
    return wrong


SAFE: tuple[Callable[[Notebook], list[str]], ...] = (
    parses,
    starts_right,
    parameters_are_literals,
    mirrors_match,
    no_second_copy,
    patches_nothing,
    exercises_are_checked,
    ran_in_order,
    outputs_are_fresh,
    is_clean,
    imports_are_declared,
)
LESSON = (*SAFE, has_card, plays_leave_a_picture, has_headings)


def violations(nb: Notebook) -> list[str]:
    """Everything that is wrong with a notebook."""
    return [finding for rule in (LESSON if nb.is_lesson else SAFE) for finding in rule(nb)]


@cache
def declared_modules(requirements: Path = ROOT / "requirements.txt") -> frozenset[str]:
    """Names that may be imported: the standard library, kancourse, and the modules of the declared packages."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    declared = {_normal(match[0]) for line in lines if (match := re.match(r"[A-Za-z][\w.-]*", line))}
    installed = importlib.metadata.packages_distributions()
    ours = {module for module, owners in installed.items() if declared & {_normal(owner) for owner in owners}}
    return frozenset({"kancourse", *sys.stdlib_module_names, *ours})


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _root(node: ast.AST) -> str | None:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _checks(nb: Notebook, index: int) -> list[str]:
    called = [ast.unparse(call.func).split(".") for call in nb.calls(index)]
    return [parts[-1] for parts in called if parts[-2:-1] == ["check"] and parts[-1] not in ("close", "true")]
