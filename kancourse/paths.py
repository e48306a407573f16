"""Where the package finds its data and keeps its caches.

- In an installed wheel the data lies inside the package (`kancourse/data`); in a checkout, beside it (`data/`).
- Caches (tokens, downloads) go to `$KANCOURSE_CACHE`, or `~/.cache/kancourse`; deleting them is always safe.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def data_dir() -> Path:
    """The folder of the corpus snapshot, recorded results and small checkpoints.

    Raises:
        FileNotFoundError: neither an installed nor a checkout's data folder exists.
    """
    for folder in (PACKAGE / "data", PACKAGE.parent / "data"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"no data folder at {PACKAGE / 'data'} or {PACKAGE.parent / 'data'}: "
        "the installation is incomplete; reinstall kancourse"
    )


def cache_dir() -> Path:
    """The cache folder, created when missing: `$KANCOURSE_CACHE` or `~/.cache/kancourse`."""
    folder = Path(os.environ.get("KANCOURSE_CACHE") or Path.home() / ".cache" / "kancourse")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
