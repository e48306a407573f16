"""Benchmark of packed ternary weights: a matrix, a model, its file, its memory; beside fp32 and the speed of memory."""

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kancourse.bit_kernel_choice import bit_kernel
from kancourse.bit_pack import PackedBitLinear
from kancourse.bitnet import BitLinear
from kancourse.gpt import GPT
from kancourse.lab.bench_retention import FAR, NEAR, decode, seen_state, state_bytes
from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.meters import count_parameters
from kancourse.lab.packed_file import load_packed, save_packed
from kancourse.lab.timing import one_thread, time_ratio
from kancourse.packed import PackedGPT, packed_bytes
from kancourse.zoo import build

SIZES: dict[str, Any] = {"n_layer": 12, "n_head": 8, "n_embd": 512, "ffn_dim": 1200, "vocab_size": 512}
MATRIX = (768, 2048)
READ = 2**28  # bytes, more than any cache holds
FP32, PACKED = "fp32.safetensors", "packed.safetensors"


def models(**sizes: Any) -> tuple[GPT, GPT]:
    """The same retention model in fp32 and ternary."""
    dense = build("retnet-mini", seed=0, **sizes).eval()
    return dense, build("retnet-mini", seed=0, linear="bit", block_norm="none", **sizes).eval()


def read_speed(size: int = READ) -> float:
    """Bytes per second at which one thread reads memory, the best of several times."""
    data, best = torch.ones(size // 4), math.inf
    for _ in range(7):
        start = time.perf_counter()
        data.sum()
        best = min(best, time.perf_counter() - start)
    return data.nbytes / best


def tokens_per_second(model: GPT | PackedGPT, n_tokens: int = 16) -> float:
    """Of decoding one text on, the best of several stretches."""
    state, best = seen_state(model, NEAR), math.inf
    for _ in range(5):
        start = time.perf_counter()
        decode(model, state, n_tokens)
        best = min(best, time.perf_counter() - start)
    return n_tokens / best


def memory_to_decode(path: Path) -> int:
    """Bytes that a process of its own holds more than before, once it has loaded a model and decodes. Linux only."""
    code = f"from kancourse.lab.bench_bitnet import say_memory; say_memory({str(path)!r})"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return int(subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True).stdout)


def say_memory(path: str) -> None:
    """Load, decode, print the bytes; what any model needs (libraries, machine code) is there before they count."""
    dense, ternary = models(**SIZES | {"n_layer": 1})
    with tempfile.TemporaryDirectory() as folder:
        for small in (save_packed(Path(folder, PACKED), ternary), save_checkpoint(Path(folder, FP32), dense)):
            _load_and_decode(small)
    del dense, ternary
    before = _resident()
    model = _load_and_decode(Path(path))
    print(_resident() - before)
    del model


def _load_and_decode(path: Path) -> GPT | PackedGPT:
    model = load_packed(path).model if path.name == PACKED else load_checkpoint(path).model
    decode(model, seen_state(model, NEAR), 8)
    return model


def _resident() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmRSS:\s*(\d+) kB", status)[1])


def bench_bitnet(sizes: dict[str, Any] = SIZES, *, read: int = READ, far: int = FAR) -> Iterator[str]:
    """A matrix, then a whole model: speed, file, memory, and how near to the speed of memory it comes."""
    with one_thread(), torch.no_grad():
        yield from _bench(sizes, read, far)


def _bench(sizes: dict[str, Any], read: int, far: int) -> Iterator[str]:
    yield f"on one thread; products by {bit_kernel().name} ({bit_kernel().reason})"
    inputs, outputs = MATRIX
    layer, dense, x = BitLinear(inputs, outputs), nn.Linear(inputs, outputs, bias=False), torch.randn(1, inputs)
    packed = PackedBitLinear.from_bit_linear(layer)
    by_dense, by_layer = (time_ratio(_many(slow, x), _many(packed, x)) for slow in (dense, layer))
    yield (
        f"one token through a {inputs} → {outputs} matrix: packed is {by_dense:.1f}x as fast as nn.Linear, "
        f"{by_layer:.0f}x as BitLinear, which rounds its weights anew"
    )

    fp32, ternary = models(**sizes)
    model, counts, held = PackedGPT(ternary), count_parameters(fp32), packed_bytes(ternary)
    yield f"a retention model of {counts['total'] / 1e6:.1f} million parameters; packed, it decodes {model.describe()}"
    speeds = {"packed": tokens_per_second(model), "by modules": tokens_per_second(model.model)}
    speeds["fp32"] = tokens_per_second(fp32)
    runs = [partial(decode, m, seen_state(m, NEAR)) for m in (fp32, model)]
    yield (
        f"decoding: packed makes {time_ratio(*runs, pairs=5):.1f}x the tokens of fp32 in the same time, "
        f"{speeds['by modules'] / speeds['fp32']:.1f}x without the loops"
    )

    with tempfile.TemporaryDirectory() as folder:
        files = {bits: save_packed(Path(folder, f"{bits}"), ternary, bits=bits).stat().st_size for bits in (2, 1.6)}
        body = {bits: 4 * counts["body"] / (size - held["embedding"] - held["head"]) for bits, size in files.items()}
        paths = save_checkpoint(Path(folder, FP32), fp32), save_packed(Path(folder, PACKED), ternary)
        sizes_on_disk = [path.stat().st_size for path in paths]
        yield (
            f"on disk: the body is 1/{body[2]:.1f} of fp32's at 2 bits, 1/{body[1.6]:.1f} at 1.6; "
            f"the whole file, with its embedding in fp32, 1/{sizes_on_disk[0] / sizes_on_disk[1]:.1f}"
        )
        if sys.platform == "linux":
            needs = [memory_to_decode(path) for path in paths]
            yield f"resident memory that decoding takes, from that file: 1/{needs[0] / needs[1]:.1f} of fp32's"

    speed = read_speed(read)
    state = 2 * state_bytes(model.empty_state())  # read and written
    limits = {
        "packed": speed / (held["body"] + held["head"] + held["embedding"] + state),
        "fp32": speed / (4 * counts["total"] + state),
    }
    shares = {name: f"{speeds[name] / limit:.0%} of the {limit:,.0f}" for name, limit in limits.items()}
    yield (
        f"one thread reads {speed / 1e9:.0f} GB/s here: packed decodes {shares['packed']} tokens/s that this allows "
        f"for its bytes, fp32 {shares['fp32']} for its own"
    )
    del fp32, model, runs

    small = PackedGPT(models(**sizes | {"n_layer": 2})[1])
    runs = [partial(decode, small, seen_state(small, n)) for n in (far, NEAR)]
    yield f"decoding after {far:,} tokens: {time_ratio(*runs, pairs=25):.2f}x the time of decoding after {NEAR}"


def _many(layer: nn.Module, x: Tensor, times: int = 20) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            layer(x)

    return run
