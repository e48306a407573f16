"""The Colab badge and the setup cell of every notebook, written from the one address in `pyproject.toml`.

- The setup cell installs the course only where it is missing, and then from the repository, not editable: an editable
  install stays invisible to a running Colab kernel.
- Every version that is already installed is held by a constraint file, so pip can add packages but never change torch,
  numpy, ipywidgets or IPython under a running kernel; where that is impossible it says so. (`--no-deps` would need a
  second list of what the course depends on.)
- It ends in one sentence when the installation fails, or when the address is not known yet.
"""

import tomllib
from pathlib import Path

from kancourse.paths import PACKAGE

ROOT = PACKAGE.parent  # the checkout; an installed wheel has no pyproject.toml there
BADGE = "<!-- badge -->"

_HEAD = """\
# Setup, the same in every notebook (written by `python -m kancourse notebooks stamp`).
import importlib.util

if importlib.util.find_spec("kancourse") is None:  # a fresh Colab
"""

_INSTALL = """\
    import pathlib
    import subprocess
    import sys
    import tempfile

    pip = [sys.executable, "-m", "pip"]
    here = subprocess.run([*pip, "list", "--format=freeze"], capture_output=True, text=True).stdout
    held = pathlib.Path(tempfile.mkdtemp()) / "held.txt"
    held.write_text(here)  # pip may add packages, but what is here keeps its version
    course = "kancourse[notebooks] @ git+{address}"
    done = subprocess.run([*pip, "install", "--quiet", "--constraint", held, course], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.splitlines() or ["pip says nothing"]
        reason = next((line for line in said if line.strip().lower().startswith("error")), said[-1])
        raise ImportError("kancourse could not be installed from {address}: " + reason)
    importlib.invalidate_caches()
"""

_NO_ADDRESS = """\
    raise ImportError(
        "kancourse is not installed, and this copy of the course does not know its public address: "
        "start it with `make lab` in its folder"
    )
"""

_TAIL = """
from kancourse.lesson import setup

machine = setup()"""


def repository(root: Path = ROOT) -> str | None:
    """The public address, `[project.urls] Repository` in pyproject.toml; None while it is still the placeholder OWNER.

    Raises:
        FileNotFoundError: no pyproject.toml, as in an installed wheel.
        ValueError: it names no address, or not one like https://github.com/owner/name.
    """
    path = root / "pyproject.toml"
    if not path.is_file():
        raise FileNotFoundError(f"no pyproject.toml in {root}: notebooks can only be stamped in a checkout")
    address = tomllib.loads(path.read_text(encoding="utf-8"))["project"].get("urls", {}).get("Repository", "")
    parts = address.rstrip("/").removesuffix(".git").split("/")
    if len(parts) != 5 or parts[0] != "https:":
        raise ValueError(
            f"pyproject.toml: Repository is {address!r}, expected an address like https://github.com/owner/name"
        )
    return None if "OWNER" in parts else "/".join(parts)


def setup_cell(address: str | None) -> str:
    """The source of the setup cell."""
    return _HEAD + (_NO_ADDRESS if address is None else _INSTALL.format(address=address)) + _TAIL


def badge_line(notebook: str, address: str | None) -> str:
    """The line that holds the Colab badge of `notebooks/<notebook>`; only the marker where there is none to show."""
    if address is None or not address.startswith("https://github.com/"):  # Colab opens notebooks from GitHub only
        return BADGE
    place = address.removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{notebook}"
    return f"{BADGE} [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({link})"
