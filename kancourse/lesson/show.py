"""Show the source of anything in the package inside a notebook, so that no second copy of it has to be kept.

- Highlighted where the front-end renders Markdown (JupyterLab, VS Code, Colab, GitHub), plain text everywhere else.
- `fold=True` hides it behind a line to click: the solution of an exercise.
- The heading is the file and line inside the package, never a path of this machine.
"""

import inspect
import sysconfig
import textwrap
from pathlib import Path
from typing import Any

from IPython.display import display

from kancourse.lesson.exercises import Exercise
from kancourse.paths import PACKAGE


def source_text(obj: Any) -> tuple[str, str]:
    """The place of an object ("kancourse/gpt.py:45", or "this notebook") and its source, dedented.

    Raises:
        TypeError: there is no Python source: a value, a builtin, or a function made by `exec`.
    """
    target = inspect.unwrap(obj) if callable(obj) else obj
    try:
        lines, start = inspect.getsourcelines(target)
        path = inspect.getsourcefile(target)
    except (TypeError, OSError) as error:
        name = getattr(obj, "__name__", repr(obj))
        raise TypeError(
            f"source({name}): {name} has no Python source to show; give a function, class or module written in Python"
        ) from error
    return f"{_place(path)}{'' if inspect.ismodule(target) else f':{start}'}", textwrap.dedent("".join(lines)).rstrip()


def source(obj: Any, *, fold: bool = False, title: str | None = None) -> None:
    """Show the source code of a function, class, method, module or exercise (`check.causal_mask`).

    Args:
        obj: whose source; an exercise shows its solution, the package's own function.
        fold: hide it behind one line to click.
        title: that line's words; by default the place, "kancourse/gpt.py:45".

    Raises:
        TypeError: `obj` has no Python source.
    """
    place, code = source_text(obj.solution if isinstance(obj, Exercise) else obj)
    fence = "````" if "```" in code else "```"
    block = f"{fence}python\n{code}\n{fence}"
    if fold:
        heading = f"{title} · <code>{place}</code>" if title else f"<code>{place}</code>"
        markdown = f"<details><summary>{heading}</summary>\n\n{block}\n\n</details>"
    else:
        markdown = f"{title + ' · ' if title else ''}`{place}`\n\n{block}"
    display({"text/markdown": markdown, "text/plain": f"# {place}\n{code}"}, raw=True)


def _place(path: str | None) -> str:
    """A file's name as a reader should see it: from the package, or from site-packages, or "this notebook"."""
    for root in (PACKAGE, Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib"))):
        if path and Path(path).is_relative_to(root):
            return Path(path).relative_to(root.parent if root == PACKAGE else root).as_posix()
    return "this notebook"
