"""What a loss means: nats per token, beside bits per character, the unigram entropy and the floor where it is known.

Notable points:
- Every target of the split is scored exactly once, padding never, and the mean is over tokens, not over batches.
- Losses are summed in float64, so the number does not depend on how the tokens were batched.

Shapes: B batch, T time.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from kancourse.gpt import GPT, IGNORE
from kancourse.lab.batches import evaluation_batches
from kancourse.lab.device import Device, pick_device
from kancourse.lab.distributed import sum_over_ranks, world
from kancourse.lab.tokens import TokenArray


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A loss and the references that give it meaning. All losses in nats per token unless the name says otherwise."""

    loss: float
    n_tokens: int  # targets that were scored
    bits_per_character: float
    unigram_entropy: float  # the loss of a model that knows only how frequent each token is
    floor: float | None  # the lowest loss any model can reach, where the source of the text is known

    @property
    def perplexity(self) -> float:
        """exp(loss): how many equally likely tokens the model hesitates between."""
        return math.exp(min(self.loss, 700.0))

    @property
    def excess(self) -> float | None:
        """Nats per token above the floor."""
        return None if self.floor is None else self.loss - self.floor

    def __str__(self) -> str:
        floor = "" if self.floor is None else f", {self.excess:.3f} above the floor {self.floor:.3f}"
        return (
            f"{self.loss:.4f} nats per token{floor} ({self.bits_per_character:.3f} bits per character; "
            f"unigram entropy {self.unigram_entropy:.3f})"
        )


def evaluate(
    model: GPT,
    tokens: TokenArray,
    *,
    batch_size: int = 32,
    max_batches: int | None = None,
    device: Device | None = None,
) -> Evaluation:
    """Score a split.

    Args:
        model: scored in eval mode, in float32 unless `device` says otherwise; its mode is put back.
        tokens: the split.
        batch_size: rows per forward pass; changes the speed, not the result.
        max_batches: stop after so many (the same ones every time); None: the whole split.
        device: where and in which precision; default: where the model is, in float32.

    Raises:
        ValueError: no target was scored.
    """
    device = device or pick_device(next(model.parameters()).device.type, "float32")
    batches = evaluation_batches(tokens, model.config.block_size, batch_size, max_batches=max_batches)
    loss, n_tokens = mean_loss(model, batches, device)
    return Evaluation(
        loss=loss,
        n_tokens=n_tokens,
        bits_per_character=tokens.bits_per_character(loss),
        unigram_entropy=tokens.unigram_entropy(),
        floor=tokens.floor,
    )


@torch.no_grad()
def mean_loss(model: GPT, batches: Iterable[tuple[Tensor, Tensor]], device: Device) -> tuple[float, int]:
    """Mean loss in nats over all counted targets of some batches, and how many those were.

    Under torchrun each process takes every world-size-th batch and the sums are added up.
    """
    was_training = model.training
    model.eval()
    rank, n_ranks = world()
    totals = torch.zeros(2, dtype=torch.float64)
    for index, (x, y) in enumerate(batches):
        if index % n_ranks != rank:
            continue
        count = int((y != IGNORE).sum())
        if count:
            with device.autocast():
                loss = model.loss(x.to(device.device), y.to(device.device))
            totals += torch.tensor([float(loss) * count, count], dtype=torch.float64)
    model.train(was_training)
    total, count = sum_over_ranks(totals, device.device).tolist()
    if not count:
        raise ValueError("nothing to evaluate: no batch holds a target")
    return total / count, int(count)
