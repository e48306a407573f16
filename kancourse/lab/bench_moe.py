"""Benchmark of the mixture of experts: what many parameters cost when few of them are active."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from kancourse.gpt import GPTConfig, SwiGLU
from kancourse.lab.timing import time_ratio
from kancourse.moe import MoE, moe_feed_forward, naive_moe, softmax_gate

WIDTH, TOKENS = 256, 2048


def bench_moe() -> Iterator[str]:
    """Training step, decoding step and the loop, each against what it should be compared with."""
    generator = torch.Generator().manual_seed(0)
    config = GPTConfig(n_embd=WIDTH, n_head=1, bias=False)
    x, direction = torch.randn(2, TOKENS, WIDTH, generator=generator)
    torch.manual_seed(0)
    dense = SwiGLU(config)

    def mixture(n_expert: int, top_k: int, n_shared: int, expert_dim: int | None = None) -> MoE:
        sizes = {"n_expert": n_expert, "top_k": top_k, "n_shared": n_shared, "expert_dim": expert_dim}
        return moe_feed_forward(config, nn.Linear, gate=softmax_gate, **sizes)

    def against(layer: nn.Module, other: nn.Module, pairs: int = 7) -> float:
        return time_ratio(
            partial(train_step, layer, x, direction), partial(train_step, other, x, direction), pairs=pairs
        )

    layer, fine = mixture(16, 2, 0), mixture(31, 3, 1)
    for name, kind in (("2 of 16 experts", layer), ("3 of 31 narrower experts and a shared one", fine)):
        total, ratio = count(kind) / count(dense), against(kind, dense)
        yield f"training step of {TOKENS:,} tokens, {name}: {total:.1f}x the parameters in {ratio:.2f}x a SwiGLU's time"

    dim = layer.experts[0].c_fc.out_features
    ratio = against(mixture(16, 16, 0, dim), layer, pairs=3)
    yield f"the same with all 16 experts at work: {ratio:.1f}x the time of 2 of 16"

    few = x[:128]
    ratio = time_ratio(lambda: naive_moe(few, layer), lambda: layer(few), pairs=3)
    yield f"sorted dispatch of {len(few)} tokens is {ratio:.0f}x as fast as the formula by loops"

    with torch.no_grad():
        ratio = time_ratio(many(layer.eval(), x[:1]), many(dense, x[:1]))
    yield f"decoding one token: {ratio:.1f}x a dense SwiGLU's time"


def count(module: nn.Module) -> int:
    """Its parameters."""
    return sum(p.numel() for p in module.parameters())


def train_step(layer: nn.Module, x: Tensor, direction: Tensor) -> None:
    """Forward and backward, with gradients of the input and of all parameters."""
    for parameter in layer.parameters():
        parameter.grad = None
    layer(x.clone().requires_grad_()).backward(direction)


def many(layer: nn.Module, x: Tensor, times: int = 50) -> Callable[[], None]:
    """A call too short to time, many times."""

    def run() -> None:
        for _ in range(times):
            layer(x)

    return run
