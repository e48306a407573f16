"""The parameters a notebook takes, and whether values read from YAML fit them.

- The notebook's cell tagged `parameters` declares them: `steps: int = 300`, one per line; the annotation is the type.
- Nothing is coerced, except that a whole number may stand for a float. YAML's lists stand for tuples.
"""

import ast
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One line of a `parameters` cell."""

    name: str
    annotation: str  # "int", "float | None", "tuple[str, ...]", …
    required: bool  # it has no default: the YAML must give it


def notebook_parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters a notebook takes, from its one cell tagged `parameters`.

    Raises:
        ValueError: not a notebook, no such cell or several, or a line in it that is not `name: type = literal`.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", []) and "outputs" in cell]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{notebook.name} is not a notebook: {error}") from error
    if len(tagged) != 1:
        raise ValueError(f"{notebook.name} has {len(tagged)} code cells tagged `parameters`, expected 1")
    found = {}
    try:
        body = ast.parse("".join(tagged[0]["source"])).body
    except SyntaxError as error:
        raise ValueError(f"{notebook.name}: the `parameters` cell is not Python: {error}") from error
    for node in body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            line = ast.unparse(node)
            raise ValueError(
                f"{notebook.name}: the `parameters` cell may hold only `name: type = literal`, not {line!r}"
            )
        name = node.target.id
        found[name] = Parameter(name=name, annotation=ast.unparse(node.annotation), required=node.value is None)
    return found


def check_parameters(file: str, given: Mapping[str, Any], known: Mapping[str, Parameter]) -> None:
    """Raise ValueError, in one sentence, unless every given value fits and every required one is given."""
    refuse_unknown(file, given, list(known), "parameter")
    missing = [name for name, parameter in known.items() if parameter.required and name not in given]
    if missing:
        raise ValueError(f"{file}: the notebook needs {', '.join(missing)}, and no value is given")
    for name, value in given.items():
        annotation = known[name].annotation
        try:
            fits_it = fits(value, ast.parse(annotation, mode="eval").body)
        except ValueError as error:
            raise ValueError(f"{file}: the notebook declares {name} as {annotation}: {error}") from error
        if not fits_it:
            hint = ""
            if isinstance(value, str) and "float" in annotation and "e" in value.lower():
                hint = "; YAML reads 1e-3 as text, write 1.0e-3"
            raise ValueError(f"{file}: {name} must be {annotation}, got {value!r} ({type(value).__name__}){hint}")


def fits(value: Any, annotation: ast.expr) -> bool:
    """Whether a value is of an annotated type: int, float, str, bool, None, unions, list, tuple, dict, Literal.

    Raises:
        ValueError: an annotation that is none of these.
    """
    match annotation:
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id="bool"):
            return isinstance(value, bool)
        case ast.Name(id="int"):
            return isinstance(value, int) and not isinstance(value, bool)
        case ast.Name(id="float"):
            return isinstance(value, int | float) and not isinstance(value, bool)
        case ast.Name(id="str"):
            return isinstance(value, str)
        case ast.Name(id="list" | "tuple"):
            return isinstance(value, list)  # YAML has lists only
        case ast.Name(id="dict"):
            return isinstance(value, dict)
        case ast.BinOp(op=ast.BitOr()):
            return fits(value, annotation.left) or fits(value, annotation.right)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            items = choices.elts if isinstance(choices, ast.Tuple) else [choices]
            return any(
                value == ast.literal_eval(item) and type(value) is type(ast.literal_eval(item)) for item in items
            )
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return isinstance(value, list) and all(fits(item, inner) for item in value)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[inner, ast.Constant(value=others)])):
            if others is Ellipsis:
                return isinstance(value, list) and all(fits(item, inner) for item in value)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=inner):
            items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return isinstance(value, list) and len(value) == len(items) and all(map(fits, value, items))
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, inner])):
            return isinstance(value, dict) and all(fits(k, key) and fits(v, inner) for k, v in value.items())
    raise ValueError(
        f"the driver does not know the type {ast.unparse(annotation)}; known: int, float, str, bool, None, "
        "list[…], tuple[…], dict[…], Literal[…] and unions with |"
    )


def refuse_unknown(file: str, given: Mapping[str, Any], known: list[str], what: str) -> None:
    """Raise ValueError for a name that is not known, with the one that was probably meant."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"{file}: unknown {what} {name!r}; {meant}")
