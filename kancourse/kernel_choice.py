"""Who does the elementwise part of KAN layers: PyTorch's operators, or a loop that `torch.compile` makes of them.

The choice is made once for the process, says its reason, and can be set: `use_kernel("auto")`, or the environment
variable KANCOURSE_KERNEL. Both give the same numbers up to rounding.
"""

import functools
import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental import _config as config

__all__ = ["Kernel", "by_itself", "compiled", "kernel", "use_kernel"]


@dataclass(frozen=True)
class Kernel:
    """Who computes, and why."""

    name: str  # "eager" or "compiled"
    reason: str


_chosen: Kernel | None = None


def use_kernel(name: str) -> Kernel:
    """Choose the kernel for all KAN layers from now on.

    Args:
        name: "eager": PyTorch's operators; no compiler needed, starts at once. "compiled": one loop instead of a
            hundred, after about half a minute of compiling at the first call; and on a CPU, where `kan_sparse` fits,
            loops in C++ that skip the basis functions that are zero. "auto": compiled where this machine has
            a compiler, else eager.

    Returns:
        The choice with its reason.

    Raises:
        ValueError: an unknown name.
        RuntimeError: "compiled" on a machine without a compiler.
    """
    global _chosen
    missing = missing_compiler()
    if name == "eager":
        _chosen = Kernel("eager", "asked for")
    elif name == "auto" and missing:
        _chosen = Kernel("eager", missing)
    elif name in ("compiled", "auto"):
        if missing:
            raise RuntimeError(f"the compiled kernel needs a compiler, but {missing}; use_kernel('eager') needs none")
        _chosen = Kernel("compiled", "asked for" if name == "compiled" else "there is a compiler")
    else:
        raise ValueError(f"unknown kernel {name!r}; known: eager, compiled, auto")
    return _chosen


def kernel() -> Kernel:
    """The kernel in use. Without `use_kernel`, the first question settles it: KANCOURSE_KERNEL, or else eager."""
    global _chosen
    if _chosen is None:
        wanted = os.environ.get("KANCOURSE_KERNEL")
        default = Kernel("eager", "the default: starts at once; use_kernel('auto') compiles where there is a compiler")
        _chosen = use_kernel(wanted) if wanted else default
    return _chosen


def missing_compiler() -> str:
    """What `torch.compile` would miss on this machine, in words; "" when nothing."""
    if torch.cuda.is_available():
        return "" if importlib.util.find_spec("triton") else "the package triton is not installed"
    if " " in torch.__file__:
        return "PyTorch's compiler cannot build where the path to PyTorch has a space in it"
    compilers = (os.environ.get("CXX", "g++"), "clang++", "cl")
    return "" if any(map(shutil.which, compilers)) else f"none of {', '.join(compilers)} is on the PATH"


@functools.cache
def compiled(fn: Callable) -> Callable:
    """fn as one compiled loop for tensors of any size; its arguments are tensors, lists of them, or anything else."""
    loop = torch.compile(fn, dynamic=True)

    def bare(argument: Any) -> Any:  # a slice remembers what it is of, and the compiler would make that a condition
        if isinstance(argument, list):
            return [bare(item) for item in argument]
        return argument.data if isinstance(argument, Tensor) else argument

    def run(*arguments: Any) -> Any:
        before, config.use_duck_shape = config.use_duck_shape, False  # sizes that are equal now may differ next time
        try:
            return loop(*map(bare, arguments))
        finally:
            config.use_duck_shape = before

    return run


def by_itself(fn: Callable) -> Callable:
    """fn without autograd and autocast, whatever the caller has on: one state, so one compilation."""

    @functools.wraps(fn)
    def run(x: Tensor, *arguments: Any) -> Any:
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            return fn(x, *arguments)

    return run
