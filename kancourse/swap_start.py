"""How a layer that is swapped in starts: as the function of the old one, or scaled, or beside it and silent.

Notable points:
- `load_linear` gives a layer the function of a matrix through the layer's `load_linear_(weight, bias)`, and
  `scale_output` multiplies its output through `scale_output_(factor)`; `nn.Linear` needs neither method.
- `LinearPlus` keeps the linear layer and adds another, of whatever kind, that is zero at first.

Shapes: O outputs, I inputs of a layer.
"""

import torch
from torch import Tensor, nn

from kancourse.gpt import LinearFactory

__all__ = ["LinearPlus", "is_plain", "load_linear", "scale_output", "try_out"]


class LinearPlus(nn.Module):
    """linear(x) + extra(x), the extra zero at first: exactly the linear layer at every x, and free to become more.

    The factory of such layers is `partial(LinearPlus, extra=KANLinear)`.

    Args:
        in_features, out_features, bias: of the linear layer.
        extra: makes the other one, `extra(in_features, out_features, bias=False)`; its `scale_output_(0.0)` is called.

    Raises:
        TypeError: the extra has no `scale_output_(factor)`, or its output is not zero after it.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, extra: LinearFactory) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.extra = extra(in_features, out_features, bias=False)
        self._silence_extra()

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) → (..., O)."""
        return self.linear(x) + self.extra(x)

    def load_linear_(self, weight: Tensor, bias: Tensor | None) -> None:
        """Become x @ weight.T + bias, at every x: weight (O, I), bias (O,) or None."""
        load_linear(self.linear, weight, bias)
        self._silence_extra()

    def scale_output_(self, factor: float) -> None:
        """Multiply the output, for every x."""
        scale_output(self.linear, factor)
        scale_output(self.extra, factor)

    def _silence_extra(self) -> None:
        scale_output(self.extra, 0.0)
        output = try_out(self.extra, self.linear.weight, self.in_features, value=0.5)
        if not output.is_meta and output.count_nonzero():
            raise TypeError(f"scale_output_(0.0) of {type(self.extra).__name__} leaves an output that is not zero")


def is_plain(module: nn.Module) -> bool:
    """Whether this is an `nn.Linear` that computes what one does."""
    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward


@torch.no_grad()
def try_out(module: nn.Module, like: Tensor, in_features: int, value: float = 0.0) -> Tensor:
    """What the module makes of a small constant input (2, 3, I), in eval mode, so that it draws and updates nothing."""
    training = [part for part in module.modules() if part.training]
    output = module.eval()(like.new_full((2, 3, in_features), value))
    for part in training:
        part.training = True
    return output


@torch.no_grad()
def load_linear(module: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Make the module compute x @ weight.T + bias: weight (O, I), bias (O,) or None.

    Raises:
        TypeError: it is no `nn.Linear` and has no `load_linear_(weight, bias)`.
        ValueError: there is a bias, and the module has none.
    """
    if hasattr(module, "load_linear_"):
        module.load_linear_(weight, bias)
    elif is_plain(module):
        if bias is not None and module.bias is None:
            raise ValueError(f"the old layer has a bias and the new {type(module).__name__} has none to take it over")
        module.weight.copy_(weight)
        if module.bias is not None:
            module.bias.copy_(bias if bias is not None else torch.zeros_like(module.bias))
    else:
        raise TypeError(
            f"a warm start needs {type(module).__name__}.load_linear_(weight, bias), which makes it compute "
            "x @ weight.T + bias; it has none: add it, or swap in partial(LinearPlus, extra=…)"
        )


@torch.no_grad()
def scale_output(module: nn.Module, factor: float) -> None:
    """Multiply what the module gives by the factor.

    Raises:
        TypeError: it is no `nn.Linear` and has no `scale_output_(factor)`.
    """
    if hasattr(module, "scale_output_"):
        module.scale_output_(factor)
    elif is_plain(module):
        for parameter in module.parameters():
            parameter.mul_(factor)
    else:
        raise TypeError(f"{type(module).__name__} has no scale_output_(factor) method")
