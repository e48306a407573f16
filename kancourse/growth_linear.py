"""A linear layer that grows, and keeps its generations apart until they are fused.

Notable points:
- A growth adds what reads the new inputs (`right`) and what makes the new outputs (`below`), each a parameter of its
  own: moments, step count and learning rate of the old ones are nobody else's business, with any optimiser.

      [ old   | right ]
      [ below         ]

- The forward pass puts them together and multiplies once. Copying a matrix costs as much as multiplying it with one
  token, so with some hundred tokens it is lost beside the product. No copy is kept: it would be stale after a step.
- New numbers that read and new ones that write meet in products; `silent` says which of the two starts at zero.
- `fuse` makes it a plain `nn.Linear` again, the same function to the last bit.

Shapes: O outputs, I inputs, after all growth so far.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GrowableLinear", "fuse"]

SILENT = ("right", "below")


class GrowableLinear(nn.Module):
    """y = x @ weight.T + bias, with a weight that was put together over time.

    Args:
        in_features, out_features, bias: of the first generation, drawn as `nn.Linear` draws them.

    Parameters: of generation g, in `generations[g]`: `right (O before, I new)`, `below (O new, I)`, `bias (O new,)`,
    those of them that are not empty.

    Raises:
        ValueError: sizes below 1.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        if min(in_features, out_features) < 1:
            raise ValueError(f"a layer has at least 1 input and 1 output, got {in_features} and {out_features}")
        first = nn.Linear(in_features, out_features, bias=bias)
        parts = {"below": first.weight} | ({"bias": first.bias} if bias else {})
        self.has_bias = bias
        self.generations = nn.ModuleList([nn.ParameterDict(parts)])

    @property
    def in_features(self) -> int:
        """I."""
        first = self.generations[0]["below"].size(1)
        return first + sum(g["right"].size(1) for g in self.generations if "right" in g)

    @property
    def out_features(self) -> int:
        """O."""
        return sum(g["below"].size(0) for g in self.generations if "below" in g)

    @property
    def weight(self) -> Tensor:
        """All generations put together, (O, I)."""
        whole = self.generations[0]["below"]
        for generation in self.generations[1:]:
            if "right" in generation:
                whole = torch.cat((whole, generation["right"]), dim=1)
            if "below" in generation:
                whole = torch.cat((whole, generation["below"]), dim=0)
        return whole

    @property
    def bias(self) -> Tensor | None:
        """Of all generations, (O,), or None."""
        parts = [generation["bias"] for generation in self.generations if "bias" in generation]
        return torch.cat(parts) if parts else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) → (..., O)."""
        return F.linear(x, self.weight, self.bias)

    def grow(
        self,
        *,
        in_features: int | None = None,
        out_features: int | None = None,
        silent: str = "right",
        generator: torch.Generator | None = None,
    ) -> None:
        """Add a generation: new inputs, new outputs, or both. Its learning rate is up to the optimiser.

        Args:
            in_features, out_features: the new sizes; None: as it is.
            silent: what starts at zero. "right": old outputs do not hear the new inputs, whatever these are, and new
                outputs are drawn. "below": new outputs are 0, and old outputs hear the new inputs, which must be 0 at
                first if the old outputs are to stay.
            generator: draws the rest, as `nn.Linear` does, on the CPU; None: the global one.

        Raises:
            ValueError: a size below the present one, no growth at all, or an unknown `silent`.
        """
        old_in, old_out = self.in_features, self.out_features
        new_in, new_out = in_features or old_in, out_features or old_out
        if new_in < old_in or new_out < old_out or (new_in, new_out) == (old_in, old_out):
            raise ValueError(f"a layer of {old_in} inputs and {old_out} outputs cannot grow to {new_in} and {new_out}")
        if silent not in SILENT:
            raise ValueError(f"unknown silent {silent!r}; known: {', '.join(SILENT)}")
        like, bound = self.generations[0]["below"], 1 / math.sqrt(new_in)

        def drawn(*shape: int, zero: bool) -> nn.Parameter:
            numbers = torch.zeros(shape) if zero else bound * (2 * torch.rand(shape, generator=generator) - 1)
            return nn.Parameter(numbers.to(like))

        parts = {}
        if new_in > old_in:
            parts["right"] = drawn(old_out, new_in - old_in, zero=silent == "right")
        if new_out > old_out:
            parts["below"] = drawn(new_out - old_out, new_in, zero=silent == "below")
            if self.has_bias:
                parts["bias"] = drawn(new_out - old_out, zero=silent == "below")
        self.generations.append(nn.ParameterDict(parts))

    def parameter_groups(self, *lrs: float) -> list[dict[str, Any]]:
        """Groups for an optimiser: one for each generation, oldest first, with its learning rate.

        Raises:
            ValueError: not one learning rate for each generation.
        """
        if len(lrs) != len(self.generations):
            raise ValueError(f"{len(self.generations)} generations take as many learning rates, got {len(lrs)}")
        return [{"params": list(g.parameters()), "lr": lr} for g, lr in zip(self.generations, lrs, strict=True)]

    @torch.no_grad()
    def scale_output_(self, factor: float) -> None:
        """Multiply the output by `factor`."""
        for parameter in self.parameters():
            parameter.mul_(factor)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.has_bias}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Adopt the generations of the saved layer, whatever was here."""
        saved: dict[int, dict[str, Tensor]] = {}
        for key, value in state_dict.items():
            if key.startswith(f"{prefix}generations."):
                index, part = key.removeprefix(f"{prefix}generations.").split(".")
                saved.setdefault(int(index), {})[part] = value
        shapes = [{part: value.shape for part, value in saved[index].items()} for index in sorted(saved)]
        if shapes and shapes != [{part: p.shape for part, p in g.items()} for g in self.generations]:
            like = self.generations[0]["below"]
            self.generations = nn.ModuleList(
                nn.ParameterDict({part: nn.Parameter(like.new_empty(shape)) for part, shape in parts.items()})
                for parts in shapes
            )
            self.has_bias = "bias" in shapes[0]
        super()._load_from_state_dict(state_dict, prefix, *args)


@torch.no_grad()
def fuse(module: nn.Module) -> nn.Module:
    """The module with every `GrowableLinear` in it, or itself, made a plain `nn.Linear` of the same function.

    A `GrowableLinear` comes back as a new layer; in any other module they are replaced in place. The optimiser is to be
    made afterwards.
    """
    if isinstance(module, GrowableLinear):
        bias, learns = module.bias, any(p.requires_grad for p in module.parameters())
        plain = nn.Linear(module.in_features, module.out_features, bias=bias is not None, device="meta")
        plain.weight = nn.Parameter(module.weight.clone(), requires_grad=learns)
        if bias is not None:
            plain.bias = nn.Parameter(bias.clone(), requires_grad=learns)
        return plain.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, fuse(child))
    return module
