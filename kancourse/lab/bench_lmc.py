"""Benchmark of mode connectivity: all points of a path in one evaluation, against one after another.

On small batches the computer mostly waits for the next instruction, and one instruction for all points saves that; on
large ones it computes all the time, and nothing is to be saved. Where the two are equal is the break-even.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch

from kancourse.lab.device import pick_device
from kancourse.lab.timing import time_ratio
from kancourse.lmc import align, loss_path, naive_loss_path, permute, random_permutations
from kancourse.zoo import build

LENGTH, VOCABULARY = 32, 128
ALPHAS = torch.linspace(0, 1, 11)
ROWS = (1, 4, 16)


def bench_lmc(names: Sequence[str] = ("gpt-nano", "gpt-micro"), rows_of: Sequence[int] = ROWS) -> Iterator[str]:
    """Batched points against the loop by size of the batch, with the break-even, and what alignment costs beside it.

    Args:
        names: presets.
        rows_of: batches have so many rows, ascending.
    """
    device = pick_device().device
    for name in names:
        sizes = {"vocab_size": VOCABULARY, "block_size": LENGTH}
        model, other = (build(name, seed=seed, **sizes).eval().to(device) for seed in range(2))
        a, b = model.state_dict(), other.state_dict()
        tokens, ratios, naive = [rows * LENGTH for rows in rows_of], [], []
        for rows in rows_of:
            draw = torch.Generator().manual_seed(rows)
            batches = [tuple(torch.randint(VOCABULARY, (2, rows, LENGTH), generator=draw).to(device)) for _ in range(2)]
            path = partial(loss_path, model, a, b, ALPHAS, batches, memory=2**40)
            loop, at_once = partial(path, chunk_size=1), partial(path, chunk_size=len(ALPHAS))
            ratios.append(time_ratio(loop, at_once, pairs=3))
            naive.append(time_ratio(partial(naive_loss_path, model, a, b, ALPHAS, batches), path, pairs=3))
        yield f"{name} on {device.type}, {len(ALPHAS)} points at once against one by one, by tokens in a batch: " + (
            ", ".join(f"{n:,}: {ratio:.2f}x" for n, ratio in zip(tokens, ratios, strict=True))
        )
        yield f"  break-even {break_even(tokens, ratios)}"
        yield (
            f"  the way it chooses itself, against loading every point into the model: {naive[0]:.1f}x on batches of "
            + (f"{tokens[0]:,} tokens, {naive[-1]:.1f}x of {tokens[-1]:,}")
        )
    twin = permute(model, a, random_permutations(model, torch.Generator().manual_seed(0)))
    ratio = time_ratio(partial(align, model, a, twin), loop, pairs=3)
    yield f"aligning {name}: {ratio:.2f}x the time of a path over {2 * tokens[-1]:,} tokens"


def break_even(tokens: Sequence[int], ratios: Sequence[float]) -> str:
    """Where the ratio first falls to 1, in tokens: straight between the measured sizes, on logarithmic scales."""
    if ratios[0] <= 1:
        return f"below {tokens[0]:,} tokens"
    for left in range(len(tokens) - 1):
        high, low = math.log(ratios[left]), math.log(ratios[left + 1])
        if low <= 0:
            share = high / (high - low)
            size = math.exp((1 - share) * math.log(tokens[left]) + share * math.log(tokens[left + 1]))
            return f"at about {size:,.0f} tokens"
    return f"beyond {tokens[-1]:,} tokens"
