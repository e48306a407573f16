"""What an elephant costs beside the silu of a SwiGLU, in time and in bytes kept for the backward pass."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from kancourse.elephant import ElephantGLU, GatedFeedForward, SwiGLU, XElephantGLU, naive_elephant
from kancourse.gpt import GPTConfig
from kancourse.lab.meters import saved_tensor_bytes
from kancourse.lab.timing import time_ratio

CASES = ((1024, 128), (2048, 256))  # tokens, channels


class _Naive(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return naive_elephant(x)


def bench_elephant(*, pairs: int = 11) -> Iterator[str]:
    """A training step of each gated feed-forward against SwiGLU's, and what it keeps.

    Args:
        pairs: timings of each, in turn.
    """
    for tokens, channels in CASES:
        config = GPTConfig(n_embd=channels, n_head=1, bias=False)
        x, direction = torch.randn(2, tokens, channels, generator=torch.Generator().manual_seed(0))
        swiglu = SwiGLU(config)
        layers = {
            "elephant gate": ElephantGLU(config),
            "elephant gate, learned widths": ElephantGLU(config, learnable=True),
            "x·elephant gate": XElephantGLU(config),
            "the formula as a gate": GatedFeedForward(config, gate=lambda hidden: _Naive()),
        }
        kept = saved_tensor_bytes(lambda x=x, part=swiglu: part(x), ignore=swiglu)
        for name, layer in layers.items():
            slow, fast = (partial(_train_step, part, x, direction) for part in (layer, swiglu))
            ratio = time_ratio(slow, fast, pairs=pairs)
            bytes_kept = saved_tensor_bytes(lambda x=x, part=layer: part(x), ignore=layer) / kept
            yield (
                f"{name}, {tokens:,} tokens of {channels}: {ratio:.2f}x SwiGLU's training step, "
                f"{bytes_kept:.2f}x the bytes kept"
            )


def _train_step(layer: nn.Module, x: Tensor, direction: Tensor) -> None:
    """Forward and backward, with gradients of the input and of all parameters."""
    z = x.clone().requires_grad_()
    torch.autograd.grad(layer(z), (z, *layer.parameters()), direction)
