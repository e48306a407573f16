"""What growing costs: beside a step of training, in the optimiser, and as a layer that keeps its generations apart."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from kancourse.growth import GenerationAdamW, GrowableLinear, fuse, grow
from kancourse.lab.optim import decay_groups
from kancourse.lab.timing import time_ratio
from kancourse.zoo import build

GROWTHS = {
    "depth 2 → 4": {"n_layer": 4},
    "heads 4 → 8": {"n_head": 8},
    "head size 32 → 64": {"head_dim": 64},
    "feed-forward × 2": {"ffn_dim": 682},
    "vocabulary 512 → 1024": {"vocab_size": 1024},
}
CASES = ((512, 128, 512), (2048, 128, 512), (2048, 512, 512), (8192, 384, 1536))  # tokens, inputs, outputs
SIZES = {"n_layer": 2, "vocab_size": 512, "block_size": 128}


def bench_growth(*, batch_size: int = 16, pairs: int = 7) -> Iterator[str]:
    """The cost of `grow`, of `GenerationAdamW` after it, and of `GrowableLinear`.

    Args:
        batch_size: sequences of 128 tokens in a training step.
        pairs: timings of each, in turn.
    """
    model = build("llama-micro", **SIZES, seed=0)
    optimizer = GenerationAdamW(decay_groups(model, 0.1), lr=1e-3, fused=True)
    idx = torch.randint(SIZES["vocab_size"], (batch_size, SIZES["block_size"]))

    def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model.loss(idx, idx).backward()
        optimizer.step()

    train(model, optimizer)
    for name, sizes in GROWTHS.items():
        ratio = time_ratio(lambda sizes=sizes: grow(model, **sizes), lambda: train(model, optimizer), pairs=pairs)
        yield f"{name}: growing takes as long as {ratio:.2f} steps of training ({batch_size * 128:,} tokens) before it"

    grown = grow(model, n_head=8, optimizer=optimizer)
    other = build(grown.config, seed=0)
    plain = torch.optim.AdamW(decay_groups(other, 0.1), lr=1e-3, fused=True)
    train(grown, optimizer), train(other, plain)
    ratio = time_ratio(optimizer.step, plain.step, pairs=pairs)
    whole = time_ratio(lambda: train(grown, optimizer), lambda: train(other, plain), pairs=pairs)
    yield f"the optimiser after a growth in width: {ratio:.1f}x as long as fused AdamW; the whole step, {whole:.2f}x"

    for tokens, inputs, outputs in CASES:
        layer = GrowableLinear(inputs // 4, outputs // 4)
        layer.grow(in_features=inputs // 2, out_features=outputs // 2)
        layer.grow(in_features=inputs, out_features=outputs)
        plain, linear = (
            partial(_both_ways, fuse(layer), tokens),
            partial(_both_ways, nn.Linear(inputs, outputs), tokens),
        )
        ratio = time_ratio(partial(_both_ways, layer, tokens), linear, pairs=3 * pairs)
        yield (
            f"GrowableLinear {inputs}→{outputs}, three generations, {tokens:,} tokens: {ratio:.2f}x as long as "
            f"nn.Linear [wanted: 1.1x at most], and fused {time_ratio(plain, linear, pairs=3 * pairs):.2f}x"
        )


def _both_ways(layer: nn.Module, tokens: int) -> None:
    """Forward and backward, input and parameters included."""
    x = torch.ones(tokens, layer.in_features, requires_grad=True)
    torch.autograd.grad(layer(x).sum(), (x, *layer.parameters()))
