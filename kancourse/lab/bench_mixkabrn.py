"""Benchmark of the whole: a packed MixKABRN beside its full-precision twin, over context, and on older processors.

An older processor is made of this one by forbidding its newer instructions, to Numba, to PyTorch and to the libraries
behind it; as that is settled when a process starts, each has a process of its own.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kancourse.bit_kernel_choice import bit_kernel
from kancourse.gpt import GPT
from kancourse.lab.bench_retention import decode, seen_state, state_bytes
from kancourse.lab.checkpoint import save_checkpoint
from kancourse.lab.meters import count_parameters
from kancourse.lab.packed_file import load_packed, save_packed
from kancourse.lab.timing import one_thread, time_ratio
from kancourse.packed import PackedGPT
from kancourse.zoo import PRESETS, build

SIZES: dict[str, Any] = {"vocab_size": 512}
NEAR, FAR = 128, 16_384  # tokens seen before decoding goes on
OLDER: dict[str, dict[str, str]] = {
    "AVX2 only": {
        "NUMBA_CPU_NAME": "haswell",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "SSE only": {
        "NUMBA_CPU_NAME": "nehalem",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
}
ALONE = {"OMP_NUM_THREADS": "1", "NUMBA_CPU_FEATURES": ""}  # features: those of the named processor, none of this one's


def models(preset: str = "mixkabrn-small", **sizes: Any) -> tuple[GPT, GPT]:
    """A model and its twin in full precision: nn.Linear for every ternary matrix, KANLinear for every BitKAN."""
    options = PRESETS[preset].ffn_options
    plain = options | {"expert": "kan", "expert_options": {"grid_size": 3, "order": 2}}
    ternary = build(preset, seed=0, **sizes).eval()
    return ternary, build(preset, seed=0, linear="dense", ffn_options=plain, **sizes).eval()


def speed_ratio(preset: str, sizes: dict[str, Any], *, pairs: int = 5) -> float:
    """How many tokens the packed model makes in the time in which its twin makes one."""
    ternary, plain = models(preset, **sizes)
    packed = PackedGPT(ternary)
    return time_ratio(*(partial(decode, m, seen_state(m, NEAR)) for m in (plain, packed)), pairs=pairs)


def older_speed_ratio(name: str, preset: str, sizes: dict[str, Any]) -> float:
    """`speed_ratio` on an older processor, a key of `OLDER`.

    Raises:
        subprocess.CalledProcessError: the process failed.
    """
    return float(_child("say_speed_ratio", preset, json.dumps(sizes), **OLDER[name]))


def say_speed_ratio(preset: str, sizes: str) -> None:
    """Print `speed_ratio`, on one thread; for a process of its own."""
    torch.set_num_threads(1)
    with torch.no_grad():
        print(speed_ratio(preset, json.loads(sizes)))


def memory_growth(path: Path, far: int = FAR) -> int:
    """Bytes that a process holds more after decoding `far` tokens of one text than after `NEAR` of them. Linux only."""
    return int(_child("say_memory_growth", str(path), str(far)))


def say_memory_growth(path: str, far: str) -> None:
    """Decode, print the growth; for a process of its own."""
    model = load_packed(path).model
    state, token, held = None, torch.zeros(1, 1, dtype=torch.long), {}
    for length in range(int(far)):
        _, state = model.step(token, state)
        if length + 1 in (NEAR, int(far)):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            held[length + 1] = pages * os.sysconf("SC_PAGE_SIZE")
    print(held[int(far)] - held[NEAR])


def _child(function: str, *arguments: str, **environment: str) -> str:
    code = f"import sys; from kancourse.lab.bench_mixkabrn import {function}; {function}(*sys.argv[1:])"
    told = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | ALONE | environment if environment else os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return told.stdout


def bench_mixkabrn(preset: str = "mixkabrn-small", sizes: dict[str, Any] = SIZES, *, far: int = FAR) -> Iterator[str]:
    """Speed, file, memory over context, and the speed on older processors."""
    with one_thread(), torch.no_grad():
        yield from _bench(preset, sizes, far)


def _bench(preset: str, sizes: dict[str, Any], far: int) -> Iterator[str]:
    yield f"on one thread; products by {bit_kernel().name} ({bit_kernel().reason})"
    ternary, plain = models(preset, **sizes)
    packed, counts = PackedGPT(ternary), count_parameters(ternary)
    twin = count_parameters(plain)["total"]
    yield (
        f"{preset} of {counts['total'] / 1e6:.2f} million parameters, its fp32 twin of {twin / 1e6:.2f}; packed, it "
        f"decodes {packed.describe()}"
    )
    runs = {name: partial(decode, m, seen_state(m, NEAR)) for name, m in (("fp32", plain), ("packed", packed))}
    modules = partial(decode, packed.model, seen_state(packed, NEAR))
    unpacked = partial(decode, ternary, seen_state(ternary, NEAR))
    yield (
        f"decoding: packed makes {time_ratio(runs['fp32'], runs['packed']):.1f}x the tokens of fp32 in the same time, "
        f"{time_ratio(runs['fp32'], modules):.1f}x without the loops; unpacked, as in training, "
        f"{time_ratio(runs['fp32'], unpacked):.1f}x"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = save_packed(Path(folder, "packed.safetensors"), ternary)
        full = save_checkpoint(Path(folder, "fp32.safetensors"), plain)
        yield f"on disk, with the embedding in fp32, it takes 1/{full.stat().st_size / path.stat().st_size:.1f} of fp32"
        states = {n: seen_state(packed, n) for n in (NEAR, far)}
        slower = time_ratio(*(partial(decode, packed, states[n]) for n in (far, NEAR)), pairs=25)
        sizes_of = {n: state_bytes(state) for n, state in states.items()}
        yield (
            f"after {far:,} tokens, decoding takes {slower:.2f}x the time of decoding after {NEAR}, "
            f"and the state {sizes_of[far] / sizes_of[NEAR]:.2f}x the bytes"
        )
        if sys.platform == "linux":
            growth = memory_growth(path, far) / 1e6
            cache = 2 * packed.config.n_layer * packed.config.n_embd * 4 * (far - NEAR) / 1e6
            yield (
                f"between {NEAR} and {far:,} tokens of one text, the process grows by {growth:.1f} MB; "
                f"the keys and values of attention would by {cache:.1f} MB"
            )
    if platform.machine().lower() in ("x86_64", "amd64") and bit_kernel().name == "numba":
        for name in OLDER:
            yield f"{name}: packed makes {older_speed_ratio(name, preset, sizes):.1f}x the tokens of fp32"
