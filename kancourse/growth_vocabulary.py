"""A vocabulary that wakes up in steps, while the tokenizer stays the same.

Notable points:
- The tokenizer is the final one from the start, its frequent words first; ids from `n_active` on sleep. A sleeping
  word has probability 0, exactly: its logit is -∞, it costs no multiplication, and no gradient reaches its row.
- Waking words cannot leave the function alone: each takes probability from the others. By how much the loss jumps is
  known beforehand: the mean of log(1 + Σ_new e^z / Σ_old e^z), `activation_cost`.
- `grow(model, vocab_size=...)` is the same curriculum with rows that do not exist until they are needed.

Shapes: C channels, V vocabulary.
"""

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kancourse.growth_adam import GenerationAdamW
from kancourse.growth_place import regenerated_state

__all__ = ["CurriculumHead", "activate", "activation_cost", "naive_activation_cost"]


class CurriculumHead(nn.Linear):
    """A dense output layer of which only the first `n_active` words are awake; it may be tied to the embedding.

    Args:
        in_features, out_features, bias: C and V, as for `nn.Linear`.
        n_active: words awake at the start; None: all.

    Raises:
        ValueError: n_active outside 1..V.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False, *, n_active: int | None = None) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.n_active = out_features if n_active is None else n_active
        if not 1 <= self.n_active <= out_features:
            raise ValueError(f"of {out_features} words 1 to {out_features} can be awake, got n_active={n_active}")

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) → (..., V), -∞ for words that sleep."""
        n, bias = self.n_active, self.bias
        logits = F.linear(x, self.weight[:n], None if bias is None else bias[:n])  # (..., n_active)
        return F.pad(logits, (0, self.weight.size(0) - n), value=float("-inf"))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, n_active={self.n_active}"


def activate(model: nn.Module, n_active: int, *, optimizer: GenerationAdamW | None = None) -> None:
    """Wake the words up to `n_active` in a model with a `CurriculumHead`, in place; its config notes it.

    Args:
        model: a GPT with `head="curriculum"`.
        n_active: words awake from now on.
        optimizer: of `model`: the rows that wake become a new generation, which counts its own steps.

    Raises:
        ValueError: fewer words than are awake, or more than there are.
        TypeError: another kind of head.
    """
    head = model.lm_head
    if not isinstance(head, CurriculumHead):
        raise TypeError(f"activate takes a model with a CurriculumHead, this one's is a {type(head).__name__}")
    if not head.n_active <= n_active <= head.out_features:
        raise ValueError(
            f"{head.n_active} of {head.out_features} words are awake, and words only wake up; got n_active={n_active}"
        )
    if optimizer is not None:
        waking = torch.zeros(head.out_features, 1, dtype=torch.bool)
        waking[head.n_active : n_active] = True
        generation = optimizer.n_generations
        for table in dict.fromkeys((head.weight, model.wte.weight)):  # once if tied
            optimizer.state[table] = regenerated_state(optimizer.state[table], table, waking, generation)
    head.n_active = n_active
    if hasattr(model.config, "head_options"):
        options: dict[str, Any] = model.config.head_options | {"n_active": n_active}
        model.config = dataclasses.replace(model.config, head_options=options)


def naive_activation_cost(logits: Tensor, targets: Tensor, n_old: int) -> Tensor:
    """By how much the loss rises when words wake, by computing it before and after. Slow; the oracle.

    Args:
        logits: with all words awake, (..., V).
        targets: ids below n_old, (...).
        n_old: words awake before.

    Returns:
        Nats per token, a scalar.
    """
    asleep = logits.clone()
    asleep[..., n_old:] = float("-inf")
    before, after = (F.cross_entropy(z.flatten(0, -2), targets.flatten()) for z in (asleep, logits))
    return after - before


def activation_cost(logits: Tensor, n_old: int) -> Tensor:
    """The same without knowing the targets: the mean of log(1 + Σ_new e^z / Σ_old e^z), as the target's logit cancels.

    Args:
        logits: with all words awake, (..., V).
        n_old: words awake before, 1..V.

    Returns:
        Nats per token, a scalar; the mean is over all positions.

    Raises:
        ValueError: n_old outside 1..V.
    """
    if not 1 <= n_old <= logits.size(-1):
        raise ValueError(f"of {logits.size(-1)} words 1 to {logits.size(-1)} were awake before, got n_old={n_old}")
    if n_old == logits.size(-1):
        return logits.new_zeros(())
    old, new = logits[..., :n_old].logsumexp(-1), logits[..., n_old:].logsumexp(-1)
    return F.softplus(new - old).mean()
