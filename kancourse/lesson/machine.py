"""The first call of every notebook: what is installed, what it runs on and why, and the figure style.

- It says which device and number type were picked *and the reason*, so that "my numbers differ" has a starting point.
- Seeds are set only when asked: a lesson sets them in the cell after its parameters, where the reader can see them.
- It quiets nothing but the warnings listed in `HARMLESS`, each with the reason it is there.
"""

import importlib.metadata
import os
import platform
import random
import warnings
from dataclasses import dataclass

import numpy as np
import torch

from kancourse import __version__
from kancourse.lesson import figures

REPORTED = ("torch", "numpy", "matplotlib", "ipywidgets", "datasets", "tokenizers", "safetensors")

# (message, category, why it is harmless)
HARMLESS: tuple[tuple[str, type[Warning], str], ...] = (
    ("IProgress not found", Warning, "tqdm falls back to its text bar when there is no widget front-end"),
    ("CUDA initialization: .*driver", UserWarning, "a CUDA build of torch on a machine without a GPU: the CPU is used"),
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a notebook runs on; `setup()` returns one."""

    device: torch.device
    dtype: torch.dtype  # the number type for matrix products (autocast); weights stay float32
    reason: str  # why this device and this type
    threads: int
    versions: dict[str, str]  # package -> installed version, "not installed" where missing
    seed: int | None

    def __str__(self) -> str:
        packages = " · ".join(f"{name} {version}" for name, version in self.versions.items())
        seed = "seeds are set by the lesson" if self.seed is None else f"seed {self.seed}"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{packages}\n{self.device} · {self.reason}\n{threads} · {seed}"

    def _ipython_display_(self) -> None:
        """Nothing: `setup` has printed the report already."""


def versions(packages: tuple[str, ...] = REPORTED) -> dict[str, str]:
    """Installed versions: kancourse and Python first, then `packages`."""
    found = {"kancourse": __version__, "Python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def set_seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators (on every device).

    Experiments take their own generators and do not depend on this; it is for the lines a lesson writes itself.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def setup(*, seed: int | None = None, device: str = "auto", threads: int | None = None) -> Machine:
    """Report packages, device and number type, apply the figure style, and return the `Machine`.

    Args:
        seed: set the global generators to it; None leaves them alone.
        device: "auto", "cpu", "cuda", …, as `kancourse.lab.device.pick_device` takes it.
        threads: limit torch to so many CPU threads; None keeps torch's own choice (or `OMP_NUM_THREADS`).
    """
    from kancourse.lab.device import pick_device

    for message, category, _why in HARMLESS:
        warnings.filterwarnings("ignore", message=message, category=category)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # tokenizers warns on every fork otherwise
    if threads is not None:
        torch.set_num_threads(threads)
    if seed is not None:
        set_seed(seed)
    figures.style()
    picked = pick_device(device)
    machine = Machine(
        device=torch.device(picked.device),
        dtype=picked.dtype,
        reason=picked.reason,
        threads=torch.get_num_threads(),
        versions=versions(),
        seed=seed,
    )
    print(machine)
    return machine
