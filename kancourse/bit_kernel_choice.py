"""Who multiplies by packed ternary weights: loops that Numba compiles, or PyTorch's operators.

The choice is made once for the process, says its reason, and can be set: `use_bit_kernel("eager")`, or the environment
variable KANCOURSE_BIT_KERNEL. Both give the same bits.
"""

import importlib.util
import os

from kancourse.kernel_choice import Kernel

__all__ = ["bit_kernel", "use_bit_kernel"]

ABSENT = "Numba is not installed; pip install 'kancourse[fast]' brings it"

_chosen: Kernel | None = None


def use_bit_kernel(name: str) -> Kernel:
    """Choose who multiplies by packed weights on a CPU from now on. The numbers are the same.

    Args:
        name: "numba": compiled loops, after a second or two of compiling at the first call ever. "eager": PyTorch's
            operators, which unpack to int8 at every call. "auto": numba where it is installed.

    Returns:
        The choice with its reason.

    Raises:
        ValueError: an unknown name.
        RuntimeError: "numba" where it is not installed.
    """
    global _chosen
    absent = importlib.util.find_spec("numba") is None
    if name == "eager":
        _chosen = Kernel("eager", "asked for")
    elif name == "auto":
        _chosen = Kernel("eager", ABSENT) if absent else Kernel("numba", "it is installed")
    elif name == "numba":
        if absent:
            raise RuntimeError(ABSENT)
        _chosen = Kernel("numba", "asked for")
    else:
        raise ValueError(f"unknown bit kernel {name!r}; known: numba, eager, auto")
    return _chosen


def bit_kernel() -> Kernel:
    """Who multiplies. Without `use_bit_kernel`, the first question settles it: KANCOURSE_BIT_KERNEL, or else auto."""
    return _chosen or use_bit_kernel(os.environ.get("KANCOURSE_BIT_KERNEL", "auto"))
