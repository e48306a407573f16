"""The products of a KAN layer without the zeros: of G+K basis functions K+1 are alive at a point, the others skipped.

A dense product takes G+K+1 multiplications per edge and token, this one K+2. Its loops are C++ (`kan_sparse.cpp`),
built once with the machine's own g++ and kept where `torch.compile` keeps what it builds.

Notable points:
- Same numbers as the dense products, up to rounding, and the same bits whatever the number of threads: each number is
  summed up by one of them.
- For float32 on a CPU, orders up to 5 and a multiple of 16 outputs; `fits` says so, and the dense products do the rest.

Shapes: N tokens, I in_features, O out_features, G grid intervals, K order, M = G+K.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from kancourse.kan_basis import Grid

__all__ = ["fits", "sparse_gradients", "sparse_kan", "sparse_library"]

SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-march=native", "-fopenmp", "-fPIC")
CHUNK, LANES, MAX_ORDER, LEAST_TOKENS = 128, 16, 5, 256  # the first two as in the source


@functools.cache
def sparse_library() -> tuple[ctypes.CDLL | None, str]:
    """The loops, built if this machine has not built them yet, and by which compiler; or None, and why not."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # where torch.compile keeps what it builds

    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return None, f"sparse loops need {compiler} on the PATH"
    key = repr((SOURCE.read_text(), FLAGS, compiler, platform.machine(), platform.node())).encode()
    path = Path(cache_dir()) / "kancourse" / f"kan_sparse_{hashlib.sha256(key).hexdigest()[:16]}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        wide = ["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            half, whole = f"{folder}/half.o", f"{folder}/whole.so"
            for step in ([*FLAGS, *wide, "-c", str(SOURCE), "-o", half], ["-shared", half, "-o", whole]):
                done = subprocess.run([compiler, *step], capture_output=True, text=True)
                if done.returncode:
                    return None, f"{compiler} cannot build the sparse loops: {done.stderr.strip().splitlines()[0]}"
            os.replace(whole, path)  # all of it, or nothing
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:  # PyTorch's OpenMP is another one here
        return None, f"the sparse loops cannot be loaded: {error}"
    pointer, long, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    layer = [pointer, pointer, pointer, pointer, long, long, number, number, long, number]
    for name, others in (("kan_forward", 2), ("kan_slopes", 3), ("kan_weights", 2)):
        getattr(library, name).argtypes = [*layer, *[pointer] * others]
    return library, f"sparse loops by {compiler}"


def fits(x: Tensor, weight: Tensor, order: int, dtype: torch.dtype) -> bool:
    """Whether these functions can compute a layer with x (N, I) and weight (O, ...), and are worth while."""
    return (
        x.device.type == "cpu"
        and {x.dtype, weight.dtype, dtype} == {torch.float32}
        and order <= MAX_ORDER
        and len(weight) % LANES == 0
        and len(x) >= LEAST_TOKENS
        and _can_run()
    )


def _can_run() -> bool:
    """Whether there are loops; where there are none, the log is told why, once."""
    library, why = sparse_library()
    if library is None:
        _tell(why)
    return library is not None


@functools.cache
def _tell(why: str) -> None:
    logging.getLogger(__name__).warning("the compiled KAN kernel multiplies densely: %s", why)


def sparse_kan(x: Tensor, base_weight: Tensor, spline_weight: Tensor, bias: Tensor | None, grid: Grid) -> Tensor:
    """silu(x) @ base_weight.T + Σ_i Σ_g spline_weight[o,i,g]·B_g(x_i) + bias, x (N, I) contiguous → (N, O)."""
    n_out = len(base_weight)
    y = x.new_zeros(len(x), n_out) if bias is None else bias.repeat(len(x), 1)
    weight, bent = in_chunks(base_weight, spline_weight), F.silu(x)
    run(sparse_library()[0].kan_forward, x, bent, grid, n_out, weight, y)
    return y


def sparse_gradients(
    grad: Tensor, x: Tensor, base_weight: Tensor, spline_weight: Tensor, grid: Grid
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, base_weight and spline_weight, given that of the output, (N, O)."""
    library, (n_out, n_in, n_basis), grad = sparse_library()[0], spline_weight.shape, grad.contiguous()
    d_x, weight = torch.empty_like(x), in_chunks(base_weight, spline_weight)
    slope = torch.ops.aten.silu_backward(torch.ones_like(x), x)
    run(library.kan_slopes, x, slope, grid, n_out, weight, grad, d_x)
    d_weight = x.new_zeros(n_in, 1 + n_basis, n_out)
    run(library.kan_weights, x, F.silu(x), grid, n_out, grad, d_weight)
    return d_x, d_weight[:, 0].T.contiguous(), d_weight[:, 1:].permute(2, 0, 1).contiguous()


def in_chunks(base_weight: Tensor, spline_weight: Tensor) -> Tensor:
    """Both weights as the loops read them: (chunks, I, 1+M, CHUNK), filled up with zeros."""
    (n_out, n_in, n_basis), missing = spline_weight.shape, -len(base_weight) % CHUNK
    if missing:
        base_weight, spline_weight = F.pad(base_weight, (0, 0, 0, missing)), F.pad(spline_weight, (0,) * 5 + (missing,))
    out = base_weight.new_empty((n_out + missing) // CHUNK, n_in, 1 + n_basis, CHUNK)
    out[:, :, 0] = base_weight.view(-1, CHUNK, n_in).transpose(1, 2)
    out[:, :, 1:] = spline_weight.view(-1, CHUNK, n_in, n_basis).permute(0, 2, 3, 1)
    return out


def run(loop: Callable, x: Tensor, bent: Tensor, grid: Grid, n_out: int, *others: Tensor) -> None:
    """Call one of the loops, in as many threads as PyTorch uses. All tensors contiguous, but for those of the grid."""
    low, scale = grid.low.contiguous(), grid.scale.contiguous()
    addresses = [tensor.data_ptr() for tensor in (x, bent, low, scale)]
    sizes = (x.size(1), n_out, grid.size, grid.order, len(x), torch.get_num_threads())
    loop(*addresses, *sizes, *(tensor.data_ptr() for tensor in others))
