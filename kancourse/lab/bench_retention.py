"""Benchmark of retention: training cost over length, decoding cost over context, and attention of the same size."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from kancourse.attention import KVCache
from kancourse.gpt import GPT, DecodeState
from kancourse.lab.timing import time_ratio
from kancourse.retention import (
    RetentionState,
    chunkwise_retention,
    naive_retention,
    parallel_retention,
    retention_decay,
)
from kancourse.zoo import build

SHORT, LONG = 1024, 4096  # tokens of a training step
NEAR, FAR = 128, 8192  # tokens seen before decoding goes on
DECODED = 16


def seen_state(model: GPT, length: int, seed: int = 0) -> DecodeState:
    """A decode of one text that stands after `length` tokens, with made-up contents: the cost is that of a real one."""
    generator = torch.Generator().manual_seed(seed)
    state = model.empty_state()
    for block in state.blocks:
        filled = (block.k, block.v) if isinstance(block, KVCache) else (block.memory,)
        for tensor in filled:
            tensor.normal_(generator=generator)
        block.length = length
    return DecodeState(length, state.blocks)


def state_bytes(state: DecodeState) -> int:
    """Bytes that a decode needs of its past: all of a retention state, and of a cache the tokens seen."""
    total = 0
    for block in state.blocks:
        if isinstance(block, RetentionState):
            total += block.memory.nbytes
        else:
            total += 2 * block.k[:, :, : block.length].numel() * block.k.element_size()
    return total


def training_step(model: GPT, idx: Tensor) -> None:
    """Forward and backward pass, without the optimiser."""
    model.zero_grad()
    model.loss(idx, idx).backward()


@torch.no_grad()
def decode(model: GPT, state: DecodeState, n_tokens: int = DECODED) -> None:
    """Go on from a state by some tokens, one at a time."""
    token = torch.zeros(1, 1, dtype=torch.long)
    for _ in range(n_tokens):
        _, state = model.step(token, state)


def bench_retention() -> Iterator[str]:
    """Retention against its formula, and over length and context against attention."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 4, LONG, 32, generator=generator)
    decay, few = retention_decay(4), slice(0, 96)
    chunkwise = partial(chunkwise_retention, chunk_size=64)
    with torch.no_grad():
        short = [x[:, :, few] for x in (q, k, v)]
        ratio = time_ratio(lambda: naive_retention(*short, decay), lambda: chunkwise(*short, decay), pairs=3)
        yield f"retention, {few.stop} tokens: chunks are {ratio:.0f}x as fast as the formula by loops"
        ratio = time_ratio(lambda: parallel_retention(q, k, v, decay), lambda: chunkwise(q, k, v, decay), pairs=3)
        yield f"retention, {LONG:,} tokens: chunks are {ratio:.1f}x as fast as the parallel form"

    sizes = {"vocab_size": 65, "seed": 0}
    models = {name: build(f"{name}-micro", block_size=LONG, **sizes) for name in ("retnet", "llama")}
    ids = torch.randint(65, (1, LONG), generator=generator)
    steps: dict[str, dict[int, Callable[[], None]]] = {
        name: {T: partial(training_step, model, ids[:, :T]) for T in (SHORT, LONG)} for name, model in models.items()
    }
    growth = {name: time_ratio(steps[name][LONG], steps[name][SHORT], pairs=3) for name in models}
    yield (
        f"training step, {LONG:,} tokens: {growth['retnet']:.1f}x that of {SHORT:,} (linear: {LONG // SHORT}x); "
        f"with attention {growth['llama']:.1f}x"
    )
    ratio = time_ratio(steps["llama"][LONG], steps["retnet"][LONG], pairs=3)
    yield f"training step, {LONG:,} tokens: attention takes {ratio:.2f}x the time of retention"

    models = {name: build(f"{name}-micro", block_size=FAR + DECODED, **sizes).eval() for name in models}
    states = {name: {n: seen_state(model, n) for n in (NEAR, FAR)} for name, model in models.items()}
    runs = {name: {n: partial(decode, models[name], state) for n, state in by.items()} for name, by in states.items()}
    growth = {name: time_ratio(runs[name][FAR], runs[name][NEAR]) for name in models}
    yield (
        f"decoding a token after {FAR:,}: {growth['retnet']:.2f}x the time of one after {NEAR}; "
        f"with attention and its cache {growth['llama']:.1f}x"
    )
    ratios = {n: time_ratio(runs["llama"][n], runs["retnet"][n]) for n in (NEAR, FAR)}
    yield (
        f"decoding: attention takes {ratios[NEAR]:.2f}x the time of retention after {NEAR} tokens, "
        f"{ratios[FAR]:.1f}x after {FAR:,}"
    )
    held = {n: state_bytes(states["llama"][n]) / state_bytes(states["retnet"][n]) for n in (NEAR, FAR)}
    yield (
        f"memory of the past: the cache is {held[NEAR]:.0f}x the retention state after {NEAR} tokens, "
        f"{held[FAR]:.0f}x after {FAR:,}"
    )
