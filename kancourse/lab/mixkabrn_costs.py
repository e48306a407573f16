"""What a model costs apart from its loss and its parameters: bytes of its weights, and time to decode.

Notable points:
- *Bytes* are of the weights as a packed file has them: ternary ones at 2 bits, everything else in float32.
- *Tokens per second* are of decoding on one thread, after half of the context: packed if anything is ternary, else
  by PyTorch's operators. They do not depend on what the weights say, and compare only within one machine.
"""

import math
import time
from typing import Any

import torch

from kancourse.bit_kan import BitKAN
from kancourse.bitnet import BitLinear
from kancourse.gpt import GPT
from kancourse.lab.bench_retention import decode, seen_state
from kancourse.lab.corpus import Corpus
from kancourse.lab.timing import one_thread
from kancourse.packed import PackedGPT, packed_bytes

__all__ = ["costs", "grid_cells", "tokens_per_second"]


def costs(model: GPT, corpus: Corpus | None = None, seed: int = 0) -> dict[str, Any]:
    """The probe of that name: `bytes`, `tokens_per_second`, and how it was `decoded`.

    Args:
        model: not packed.
        corpus, seed: not used.
    """
    was_training = model.training
    model.eval()
    try:
        with one_thread():
            packed = PackedGPT(model) if any(isinstance(m, BitLinear | BitKAN) for m in model.modules()) else None
            return {
                "bytes": sum(packed_bytes(model).values()),
                "tokens_per_second": tokens_per_second(packed or model),
                "decoded": packed.describe() if packed else "by PyTorch's operators",
            }
    finally:
        model.train(was_training)


@torch.no_grad()
def tokens_per_second(model: GPT | PackedGPT, *, stretches: int = 5) -> float:
    """Of decoding one text on when half of `block_size` was read: the best of several stretches."""
    read = model.config.block_size // 2
    n_tokens, best, state = max(1, min(16, read)), math.inf, seen_state(model, read)
    for _ in range(stretches):
        start = time.perf_counter()
        decode(model, state, n_tokens)
        best = min(best, time.perf_counter() - start)
    return n_tokens / best


def grid_cells(values: dict[tuple[bool, ...], list[float]]) -> torch.Tensor:
    """Values by ideas, each with a number per seed, as the cells of `kancourse.lab.factorial`: (2, …, 2, seeds).

    Raises:
        ValueError: a combination is missing, or has another number of seeds.
    """
    n = len(next(iter(values)))
    seeds = {len(runs) for runs in values.values()}
    if len(values) != 2**n or len(seeds) != 1:
        raise ValueError(
            f"a full design of {n} ideas has {2**n} combinations of as many seeds each, got {len(values)} of {seeds}"
        )
    cells = torch.empty(*[2] * n, seeds.pop(), dtype=torch.float64)
    for ideas, runs in values.items():
        cells[tuple(map(int, ideas))] = torch.tensor(runs, dtype=torch.float64)
    return cells
