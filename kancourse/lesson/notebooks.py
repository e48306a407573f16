"""What is done to notebooks: `python -m kancourse notebooks sync | stamp | strip | execute | check`.

- `sync` rewrites mirror cells from the package, `stamp` the badges and setup cells from pyproject's address, and the
  tables of the README and of the pages of results and claims.
- `execute` runs notebooks in place and stores outputs, the measured minutes and the date of the run: nobody types them.
- `strip` removes what front-ends leave behind (widget state, timings, ids of their own), and keeps the outputs.
- `check` writes nothing and lists everything that is wrong.
"""

import base64
import datetime
import io
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import PIL.Image
from nbformat import NotebookNode

from kancourse.lesson import contract
from kancourse.lesson.bootstrap import BADGE, ROOT, badge_line, repository, setup_cell
from kancourse.lesson.document import load, source_hash, tags
from kancourse.lesson.machine import versions
from kancourse.lesson.mirror import mirror_text
from kancourse.lesson.tables import TableArgs, refresh

FOLDER = ROOT / "notebooks"


@dataclass(kw_only=True)
class NotebookArgs:
    """Arguments of every notebook command."""

    names: tuple[str, ...] = ()  # "03_gpt" or "03_gpt.ipynb"; none: all of them
    folder: Path = FOLDER
    root: Path = ROOT  # where the README lies, and data/ with the pages of results and claims
    timeout: int = 1200  # seconds a single cell may take (execute)
    record: bool = True  # write the claims of an executed notebook to data/claims (execute)


def chosen(args: NotebookArgs) -> list[Path]:
    """The notebooks that are meant.

    Raises:
        FileNotFoundError: there is no notebook of a given name.
    """
    known = sorted(args.folder.glob("*.ipynb"))
    if not args.names:
        return known
    by_name = {path.stem: path for path in known}
    for name in args.names:
        if Path(name).stem not in by_name:
            raise FileNotFoundError(
                f"no notebook {name!r} in {args.folder.name}/; known: {', '.join(by_name) or 'none'}"
            )
    return [by_name[Path(name).stem] for name in args.names]


def sync(args: NotebookArgs) -> list[Path]:
    """Rewrite every mirror cell from the package; returns the notebooks that changed."""
    return _edit(args, lambda node, _path: _sync(node))


def stamp(args: NotebookArgs) -> list[Path]:
    """Write badges, setup cells and the tables of every page; returns the files that changed."""
    address = repository()
    changed = _edit(args, lambda node, path: _stamp(node, path.name, address))
    return changed + sorted(set(refresh(_tables(args), address).values()))


def strip(args: NotebookArgs) -> list[Path]:
    """Remove widget state, timings and front-end metadata, keep the outputs; returns the notebooks that changed."""
    return _edit(args, lambda node, _path: clean(node))


def check(args: NotebookArgs) -> dict[str, list[str]]:
    """Everything that is wrong, by file; an empty dict when nothing is. Writes nothing."""
    address = repository()
    found = {path.name: contract.violations(load(path, address)) for path in chosen(args)}
    for table, page in refresh(replace(_tables(args), check=True), address).items():
        told = f"the table of {table} is out of date: run `notebooks stamp`"
        found.setdefault(str(page.relative_to(args.root)), []).append(told)
    return {name: wrong for name, wrong in found.items() if wrong}


def execute(args: NotebookArgs) -> dict[str, float]:
    """Run notebooks in place, each in a fresh kernel in its own folder; then write the tables of every page.

    Without names, the lessons: a tool notebook (`train.ipynb`) is run by the run driver, and has no outputs to keep.

    Returns:
        minutes by notebook.

    Raises:
        RuntimeError: a cell raised, or the kernel died; the notebook on disk stays as it was.
        ValueError: a notebook would break the contract (1 MB, machine paths …); it stays as it was too.
    """
    minutes = {}
    for path in chosen(args):
        node = nbformat.read(path, as_version=4)
        if not args.names and not contract.Notebook(path.name, node).is_lesson:
            continue
        seconds = run_cells(node, path, timeout=args.timeout, record=args.record)
        _verified(node, seconds)
        clean(node)
        text = _text(node)
        wrong = contract.is_clean(contract.Notebook(path.name, node, size=len(text.encode())))
        if wrong:
            raise ValueError(f"{path.name} was executed but not saved: {'; '.join(wrong)}")
        _replace(path, text)
        minutes[path.name] = seconds / 60
    refresh(_tables(args), repository())
    return minutes


def run_cells(node: NotebookNode, path: Path, *, timeout: int = 1200, record: bool = False) -> float:
    """Run a notebook's cells in a fresh kernel, in the notebook's folder, with this kancourse; returns the seconds.

    Raises:
        RuntimeError: a cell raised or took too long, or the kernel died.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "KANCOURSE_WIDGETS": "0",
        "KANCOURSE_NOTEBOOK": path.name,
        "KANCOURSE_RECORD": "1" if record else "0",
    }
    client = NotebookClient(
        node,
        timeout=timeout,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    began = time.perf_counter()
    try:
        client.execute(env=environment)
    except CellExecutionError as error:
        raise RuntimeError(f"{path.name}: a cell raised {error.ename}: {error.evalue}\n{error.traceback}") from None
    except CellTimeoutError:
        raise RuntimeError(f"{path.name}: a cell took more than {timeout} s") from None
    except DeadKernelError:
        raise RuntimeError(f"{path.name}: the kernel died (out of memory, or killed)") from None
    return time.perf_counter() - began


def clean(node: NotebookNode) -> None:
    """Leave only what a reader needs: sources, tags, outputs, the language, and the runtime Colab should pick."""
    kept = {key: node.metadata[key] for key in ("accelerator", "colab", "kancourse") if key in node.metadata}
    if "colab" in kept:
        kept["colab"] = {key: value for key, value in kept["colab"].items() if key in ("gpuType", "machine_shape")}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    node.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}, **kept})
    for cell in node.cells:
        cell.metadata = nbformat.from_dict({"tags": tags(cell)} if tags(cell) else {})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if contract.WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = _fewer_colours(output.data["image/png"])


def _fewer_colours(png: str, colours: int = 128) -> str:
    """A base64 picture with a palette: a third of the size, and nobody sees the difference in a plot."""
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.mode == "P":
        return png
    small = io.BytesIO()
    flat = PIL.Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture.getchannel("A") if "A" in picture.getbands() else None)
    flat.quantize(colours, dither=PIL.Image.Dither.NONE).save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def _tables(args: NotebookArgs) -> TableArgs:
    return TableArgs(root=args.root, notebooks=args.folder)


def _sync(node: NotebookNode) -> None:
    for cell in node.cells:
        if cell.cell_type == "code" and "mirror" in tags(cell):
            cell.source = mirror_text(cell.source)


def _stamp(node: NotebookNode, name: str, address: str | None) -> None:
    lines = node.cells[0].source.splitlines() if node.cells else []
    places = [index for index, line in enumerate(lines) if line.startswith(BADGE)]
    setups = [cell for cell in node.cells if cell.cell_type == "code" and "setup" in tags(cell)]
    if len(places) != 1 or len(setups) != 1:
        raise ValueError(
            f"{name} has {len(places)} lines '{BADGE}' in its first cell and {len(setups)} code cells tagged `setup`; "
            "both are written for you, but there must be one of each"
        )
    lines[places[0]] = badge_line(name, address)
    node.cells[0].source = "\n".join(lines)
    setups[0].source = setup_cell(address)


def _verified(node: NotebookNode, seconds: float) -> None:
    """Write minutes and date into the card, and what was run into the metadata."""
    import torch

    date = datetime.date.today().isoformat()
    if torch.cuda.is_available():
        label, where = "Minutes on a GPU", torch.cuda.get_device_name()
    else:
        label, where = "Minutes on a CPU", f"{os.cpu_count()} cores"
    told = ", ".join(f"{name} {version}" for name, version in versions(("torch", "ipywidgets")).items())
    for cell in node.cells:
        if "card" in tags(cell):
            cell.source = _fill(cell.source, label, f"{seconds / 60:.1f} ({where})")
            cell.source = _fill(cell.source, "Last verified", f"{date} with {told}")
    node.metadata["kancourse"] = {"executed": {"date": date, "seconds": round(seconds), "source": source_hash(node)}}


def _fill(card: str, label: str, value: str) -> str:
    return re.sub(rf"^- \*\*{label}:\*\*.*$", lambda _match: f"- **{label}:** {value}", card, flags=re.M)


def _edit(args: NotebookArgs, change: Callable[[NotebookNode, Path], None]) -> list[Path]:
    """Apply a change to the chosen notebooks and write those it changed."""
    changed = []
    for path in chosen(args):
        node = nbformat.read(path, as_version=4)
        change(node, path)
        text = _text(node)
        if text != path.read_text(encoding="utf-8"):
            _replace(path, text)
            changed.append(path)
    return changed


def _text(node: NotebookNode) -> str:
    return nbformat.writes(node, indent=1, ensure_ascii=False) + "\n"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
