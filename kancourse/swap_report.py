"""What a swap tells and keeps: what was swapped for what, what was left and why, and the way back.

Notable points:
- The report keeps the old modules, so `report.undo()` is the identity; whoever does not want to go back drops the
  report, and with it their memory.
- `report.deviations` holds every new module against the old one on the activations that really arrive there.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Deviation", "Left", "Place", "Swap", "SwapReport", "count", "install"]

Place = tuple[nn.Module, str]  # a module, and the name under which it holds the linear


@dataclass(frozen=True)
class Swap:
    """One linear module that was replaced, wherever the model holds it."""

    name: str
    also: tuple[str, ...]  # further names of the same module, where it is used more than once
    kind: str
    new_kind: str
    in_features: int
    out_features: int
    bias: bool
    parameters_before: int
    parameters_after: int
    old: nn.Module = field(repr=False)
    new: nn.Module = field(repr=False)
    places: tuple[Place, ...] = field(repr=False)


@dataclass(frozen=True)
class Left:
    """One linear module that stayed, and why."""

    name: str
    kind: str
    why: str


@dataclass(frozen=True)
class Deviation:
    """How far a new module is from the one it replaced: the largest absolute values over all that arrived there."""

    largest_input: float
    largest_output: float  # of the old module
    largest_difference: float  # between the two outputs


@dataclass(frozen=True, eq=False)
class SwapReport:
    """What `swap_linears` did. `print(report)` shows it as a table."""

    model: nn.Module = field(repr=False)
    swapped: tuple[Swap, ...]
    left: tuple[Left, ...]
    parameters_before: int  # of the whole model, a shared one counted once
    parameters_after: int

    def undo(self) -> None:
        """Put the very same old modules back where they were.

        They follow the new ones in train/eval mode, and in device and dtype if the model was moved in between.

        Raises:
            RuntimeError: a place no longer holds the module that this swap put there; nothing is changed then.
        """
        for swap in self.swapped:
            if any(parent._modules.get(key) is not swap.new for parent, key in swap.places):
                raise RuntimeError(
                    f"{swap.name} is no longer the {swap.new_kind} that this swap put there: it was undone already, "
                    "or swapped again, and then the later swap must be undone first"
                )
        for swap in self.swapped:
            swap.old.train(swap.new.training)
            _follow(swap.old, swap.new)
            install(swap.places, swap.old)

    @torch.no_grad()
    def deviations(self, *inputs: Any, **named_inputs: Any) -> dict[str, Deviation]:
        """Run the swapped model and hold each new module against the old one, on the activations that arrive there.

        Args:
            inputs, named_inputs: what the model is called with.

        Returns:
            By name, one for every swapped module that this call of the model reached.
        """
        seen: dict[str, Tensor] = {}

        def compare(swap: Swap, _: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            x, old_output = args[0], swap.old(*args)
            largest = torch.stack([part.abs().max() for part in (x, old_output, output - old_output)])
            seen[swap.name] = torch.maximum(seen.get(swap.name, largest), largest)  # a NaN stays a NaN

        hooks = [swap.new.register_forward_hook(partial(compare, swap)) for swap in self.swapped]
        try:
            for swap in self.swapped:
                _follow(swap.old, swap.new)
            self.model(*inputs, **named_inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: Deviation(*largest.tolist()) for name, largest in seen.items()}

    def __str__(self) -> str:
        rows = [("swapped", "kind", "inputs → outputs", "parameters")]
        for swap in self.swapped:
            name, shape = " = ".join((swap.name, *swap.also)), f"{swap.in_features} → {swap.out_features}"
            sizes = f"{swap.parameters_before:,} → {swap.parameters_after:,}"
            rows.append((name, f"{swap.kind} → {swap.new_kind}", shape, sizes))
        lines = _table(rows)
        if self.left:
            lines += ["", *_table([("left", "kind", "why"), *((left.name, left.kind, left.why) for left in self.left)])]
        sizes = f"{self.parameters_before:,} → {self.parameters_after:,} parameters in the model"
        return "\n".join([*lines, "", f"{len(self.swapped)} swapped, {len(self.left)} left; {sizes}"])


def _follow(old: nn.Module, new: nn.Module) -> None:
    """Move the old module to where the new one is now, if the model was moved or cast since the swap."""
    now, then = next(new.parameters(), None), next(old.parameters(), None)
    if now is not None and then is not None and (now.device, now.dtype) != (then.device, then.dtype):
        old.to(device=now.device, dtype=now.dtype)


def install(places: tuple[Place, ...], module: nn.Module) -> None:
    """Put the module in all these places."""
    for parent, key in places:
        setattr(parent, key, module)


def count(module: nn.Module) -> int:
    """Its parameters, a shared one counted once; those of no shape yet do not count."""
    return sum(parameter.numel() for parameter in module.parameters() if not nn.parameter.is_lazy(parameter))


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
