"""What in a GPT can change places without changing what it computes.

Hidden units of a feed-forward, and heads of an attention, are summed up: their order means nothing. So are the channels
of the residual stream to a norm that treats all alike, if everything that reads or writes it follows.

Notable points:
- A `Group` lists all axes that must be rearranged together; `permute` does so.
- Feed-forwards are found by their matrices (`c_fc`, `c_proj` and, if gated, `c_gate`), dense, ternary or KAN; inside a
  mixture of experts each expert has hidden units of its own (the order of the experts is left as it is).
- Heads of retention are left as they are: each has a decay of its own, so they are no equals.

Shapes: n members of a group.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kancourse.attention import CausalSelfAttention
from kancourse.bitnet import BitLinear
from kancourse.gpt import GPT
from kancourse.kan import KANLinear
from kancourse.kan_shared import SharedKANLinear
from kancourse.lmc_states import State, shared_names

# Which axis of each tensor belongs to a layer's outputs, and which to its inputs; None: neither.
LAYERS: dict[type[nn.Module], dict[str, tuple[int | None, int | None]]] = {
    nn.Linear: {"weight": (0, 1), "bias": (0, None)},
    BitLinear: {"weight": (0, 1), "norm_weight": (None, 0)},
    KANLinear: {
        "base_weight": (0, 1),
        "spline_weight": (0, 1),
        "bias": (0, None),
        "edge_mask": (0, 1),
        "grid_low": (None, 0),
        "grid_high": (None, 0),
    },
    SharedKANLinear: {
        "weight": (0, 2),
        "base_weight": (None, 1),
        "spline_weight": (None, 1),
        "bias": (0, None),
        "grid_low": (None, 0),
        "grid_high": (None, 0),
    },
}
READERS = ("c_attn", "c_qkvg", "c_fc", "c_gate", "lm_head")  # their inputs are the residual stream
WRITERS = ("c_proj",)  # their outputs are added to it


@dataclass(frozen=True)
class Axis:
    """Where a group's members lie: axis `axis` of tensor `name`, read as (outer, n, inner)."""

    name: str
    axis: int
    outer: int = 1
    inner: int = 1

    def members(self, tensor: Tensor, n: int) -> Tensor:
        """One row per member: (n, everything else)."""
        parted = tensor.unflatten(self.axis, (self.outer, n, self.inner))
        return parted.movedim(self.axis + 1, 0).flatten(1)

    def arrange(self, tensor: Tensor, order: Tensor) -> Tensor:
        """The tensor with member order[i] in place i."""
        parted = tensor.unflatten(self.axis, (self.outer, len(order), self.inner))
        return parted.index_select(self.axis + 1, order.to(tensor.device)).flatten(self.axis, self.axis + 2)


@dataclass
class Group:
    """Members that may change places, and all axes along which they lie."""

    name: str
    n: int
    axes: list[Axis] = field(default_factory=list)


def symmetries(model: GPT, *, residual: bool = False) -> list[Group]:
    """The groups of a model: feed-forward units, attention heads and, if asked, the channels of the residual stream.

    Raises:
        ValueError: a feed-forward or attention with a part whose axes are not known here; or, for the residual stream,
            any such part.
    """
    groups = [Group("residual", model.config.n_embd, _residual_axes(model))] if residual else []
    for name, module in model.named_modules():
        if isinstance(module, CausalSelfAttention):
            groups.append(_heads(name, module))
        elif hasattr(module, "c_fc") and hasattr(module, "c_proj"):
            groups.append(_hidden_units(name, module))
    twins = shared_names([model.state_dict(keep_vars=True)])
    for group in groups:  # a shared tensor is rearranged once
        group.axes = list(dict.fromkeys(Axis(twins.get(a.name, a.name), a.axis, a.outer, a.inner) for a in group.axes))
    return groups


def permute(model: GPT, state: State, orders: Mapping[str, Tensor], *, residual: bool = False) -> dict[str, Tensor]:
    """The same function with its parts in another order: member orders[group][i] comes to place i.

    Args:
        model: gives the architecture.
        state: a state dict of that architecture.
        orders: permutations by group name; groups without one stay as they are.
        residual: as for `symmetries`.

    Raises:
        ValueError: an unknown group, or an order that is no permutation of its members.
    """
    groups = {group.name: group for group in symmetries(model, residual=residual or "residual" in orders)}
    twins = shared_names([model.state_dict(keep_vars=True)])
    out = {name: tensor.detach().clone() for name, tensor in state.items() if name not in twins}
    for name, order in orders.items():
        if name not in groups:
            raise ValueError(f"the model has no group {name!r}; known: {', '.join(groups) or 'none'}")
        group = groups[name]
        if not torch.equal(order.cpu().sort().values, torch.arange(group.n)):
            raise ValueError(f"the order of {name} must be a permutation of 0 to {group.n - 1}")
        for axis in group.axes:
            out[axis.name] = axis.arrange(out[axis.name], order)
    return {name: out[twins.get(name, name)] for name in state}


def random_permutations(model: GPT, generator: torch.Generator, *, residual: bool = False) -> dict[str, Tensor]:
    """A random order for every group, to make twins that compute the same from weights that look unlike."""
    return {g.name: torch.randperm(g.n, generator=generator) for g in symmetries(model, residual=residual)}


def layer_axes(name: str, layer: nn.Module, *, outputs: bool, outer: int = 1, inner: int = 1) -> Iterator[Axis]:
    """The axes of a layer's outputs, or inputs, each read as (outer, n, inner).

    Raises:
        ValueError: a layer of a kind that `LAYERS` does not have.
    """
    kind = next((kind for kind in LAYERS if isinstance(layer, kind)), None)
    if kind is None:
        known = ", ".join(kind.__name__ for kind in LAYERS)
        raise ValueError(f"{name} is a {type(layer).__name__}, whose axes are not known here; known: {known}")
    for tensor in layer.state_dict():
        axis = LAYERS[kind][tensor][0 if outputs else 1]
        if axis is not None:
            yield Axis(f"{name}.{tensor}", axis, outer, inner)


def _heads(name: str, module: CausalSelfAttention) -> Group:
    width = module.c_proj.in_features // module.n_head
    axes = [
        *layer_axes(f"{name}.c_attn", module.c_attn, outputs=True, outer=3, inner=width),
        *layer_axes(f"{name}.c_proj", module.c_proj, outputs=False, inner=width),
    ]
    return Group(name, module.n_head, axes)


def _hidden_units(name: str, module: nn.Module) -> Group:
    n = module.c_proj.in_features
    axes = list(layer_axes(f"{name}.c_proj", module.c_proj, outputs=False))
    for child in ("c_fc", "c_gate"):
        if hasattr(module, child):
            axes += layer_axes(f"{name}.{child}", getattr(module, child), outputs=True)
    for tensor, value in module.state_dict().items():
        if tensor.split(".")[0] in ("c_fc", "c_gate", "c_proj"):
            continue
        if value.shape == (n,):  # something that every unit has for itself: the width of an elephant
            axes.append(Axis(f"{name}.{tensor}", 0))
        elif value.numel() != 1:
            raise ValueError(f"{name}.{tensor} of shape {(*value.shape,)} is neither one per unit nor one for all {n}")
    return Group(name, n, axes)


def _residual_axes(model: GPT) -> list[Axis]:
    axes = []
    for name, module in model.named_modules():
        own = [tensor for tensor, _ in module.named_parameters(recurse=False)]
        role = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding):
            axes.append(Axis(f"{name}.weight", 1))
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            axes += [Axis(f"{name}.{tensor}", 0) for tensor in own]
        elif role in READERS + WRITERS:
            axes += layer_axes(name, module, outputs=role in WRITERS)
        elif own and not hasattr(module, "c_fc"):
            raise ValueError(f"{name} is a {type(module).__name__}: how it meets the residual stream is not known here")
    return axes
