"""What a model costs to train, with all that it grew from.

- A saving by growth that leaves out what the small model cost is no saving: a `Lineage` adds up every stage.
- Counted as everyone counts: 2 FLOPs for a multiplication and an addition, matrix products only, the whole T×T square
  of attention, and three times the forward pass for a step of training. `flops_per_token` is the formula;
  PyTorch's own counter agrees with it to the last FLOP.

Shapes: T tokens of a sequence, C channels, L layers, V vocabulary.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from kancourse.attention import CausalSelfAttention
from kancourse.gpt import GPT
from kancourse.growth_vocabulary import CurriculumHead

NO_PRODUCTS = (nn.Embedding, nn.LayerNorm, nn.RMSNorm)
BACKWARD = 2  # the backward pass multiplies twice as much as the forward


def flops_per_token(model: GPT, n_tokens: int | None = None) -> int:
    """FLOPs of a forward pass, per token: 2 for each number of a matrix, and 4·T·C for each layer's attention.

    Args:
        model: dense, with attention.
        n_tokens: T; None: the model's block_size.

    Raises:
        TypeError: a part with parameters whose products the formula does not know.
    """
    n_tokens = n_tokens or model.config.block_size
    total = 0
    for module in model.modules():
        if isinstance(module, CurriculumHead):
            total += 2 * module.in_features * module.n_active
        elif isinstance(module, nn.Linear):
            total += 2 * module.weight.numel()
        elif isinstance(module, CausalSelfAttention):
            total += 4 * n_tokens * module.c_proj.in_features  # scores, and the average of the values
        elif not isinstance(module, NO_PRODUCTS) and list(module.parameters(recurse=False)):
            raise TypeError(f"flops_per_token knows dense GPTs; this model has a {type(module).__name__}")
    return total


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A model between two growths, and how many tokens it was trained on."""

    parameters: int
    flops_per_token: int  # of the forward pass
    tokens: int

    @property
    def flops(self) -> int:
        """Of its training, forward and backward."""
        return (1 + BACKWARD) * self.flops_per_token * self.tokens


@dataclass
class Lineage:
    """A model and its ancestors, oldest first."""

    stages: list[Stage] = field(default_factory=list)

    def add(self, model: GPT, *, tokens: int, n_tokens: int | None = None) -> None:
        """Note that `model` was trained on `tokens` tokens, in sequences of `n_tokens` (None: its block_size).

        Raises:
            ValueError: a negative number of tokens, or fewer parameters than the ancestor's.
        """
        parameters = sum(p.numel() for p in model.parameters())
        if tokens < 0:
            raise ValueError(f"a stage is trained on 0 tokens or more, got {tokens}")
        if parameters < self.parameters:
            raise ValueError(f"models grow: after one of {self.parameters:,} parameters came one of {parameters:,}")
        self.stages.append(
            Stage(parameters=parameters, flops_per_token=flops_per_token(model, n_tokens), tokens=tokens)
        )

    @property
    def parameters(self) -> int:
        """Of the model as it is now; its ancestors' are in it."""
        return self.stages[-1].parameters if self.stages else 0

    @property
    def tokens(self) -> int:
        """Trained on, ancestors included."""
        return sum(stage.tokens for stage in self.stages)

    @property
    def flops(self) -> int:
        """Of all training, ancestors included."""
        return sum(stage.flops for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """For a record: the totals, and the stages."""
        stages = [asdict(stage) | {"flops": stage.flops} for stage in self.stages]
        return {"parameters": self.parameters, "tokens": self.tokens, "flops": self.flops, "stages": stages}
