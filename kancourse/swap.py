"""Swapping: every linear layer of a finished model, or some of them, replaced by another kind, and back.

Notable points:
- `swap_linears` takes any model and any factory. It finds `nn.Linear`, the transposed `Conv1D` of transformers' GPT-2
  (by its looks: nothing is imported), and whatever kinds the caller describes.
- Everything new is built and tried before the model is touched, so an error leaves the model as it was.
- The report says what was swapped, what was left and why. It keeps the old modules, so `report.undo()` is the identity;
  whoever does not want to go back drops the report, and with it their memory.
- A warm start gives the new layer the old one's function, through `new.load_linear_(weight, bias)`. Splines hold
  straight lines exactly (coefficients w·ξ_g, ξ_g the mean of B_g's inner knots), as far as their grid reaches, or
  everywhere if they go on along their tangents, as ours do. That is the lean way: no further weights, and decay and
  pruning see the whole function. `LinearPlus` keeps the linear layer and adds to it: equal to the last bit, for any
  kind of layer, and decay pulls it back to the old function; it costs the old weights on top.
  `report.deviations` measures either on the activations that really arrive.
- A weight that another module uses too (a tied head) keeps its tie unless the caller says `untie=True`.
- An optimiser made before the swap still holds the old parameters: make it afterwards. Compile afterwards, too.

Shapes: O outputs, I inputs of a layer.
"""

import difflib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from kancourse.gpt import LinearFactory, residual_projections

__all__ = ["Deviation", "Left", "LinearPlus", "Swap", "SwapReport", "swap_linears"]

Where = Callable[[str, nn.Module], bool] | str | Collection[str]
ReadLinear = Callable[[nn.Module], tuple[Tensor, Tensor | None]]  # module -> weight (O, I), bias (O,) or None
Place = tuple[nn.Module, str]  # a module, and the name under which it holds the linear
UNASKED = "not selected by where"


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
        _load_linear(self.linear, weight, bias)
        self._silence_extra()

    def scale_output_(self, factor: float) -> None:
        """Multiply the output, for every x."""
        _scale_output(self.linear, factor)
        _scale_output(self.extra, factor)

    def _silence_extra(self) -> None:
        _scale_output(self.extra, 0.0)
        output = _try_out(self.extra, self.linear.weight, self.in_features, value=0.5)
        if not output.is_meta and output.count_nonzero():
            raise TypeError(f"scale_output_(0.0) of {type(self.extra).__name__} leaves an output that is not zero")


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
            _install(swap.places, swap.old)

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


def swap_linears(
    model: nn.Module,
    factory: LinearFactory,
    *,
    where: Where | None = None,
    warm_start: bool = False,
    untie: bool = False,
    reinit_residual: bool = False,
    kinds: Mapping[type[nn.Module], ReadLinear] | None = None,
) -> SwapReport:
    """Replace linear modules of a model, in place, by what the factory makes.

    A new module gets the old one's device, dtype and train/eval mode, `in_features` and `out_features` if it lacks
    them, and where the old weight (bias) was frozen, its parameters (called `bias`) are. A module that is used in
    several places is swapped once and stays shared.

    Args:
        model: any `nn.Module`; of transformers, BERT, RoBERTa, DistilBERT, BART and GPT-2 are tested.
        factory: `factory(in_features, out_features, bias=...) -> module` on tensors (..., in_features).
        where: which ones: a predicate on (name, module), or whole names and patterns such as `"blocks.0.*"` (one, or
            several). None: all, except output embeddings, which are what the model's `get_output_embeddings()` returns
            and whatever is called `lm_head`.
        warm_start: the new module takes over the old one's function through its `load_linear_(weight (O, I), bias (O,)
            or None)`; how exactly is that method's promise, and `report.deviations` measures it. `nn.Linear` needs no
            such method.
        untie: swap also modules that share a parameter with another module; the new one has its own. In transformers
            set `model.config.tie_word_embeddings = False` as well, or its `tie_weights()` ties a new `weight` again.
        reinit_residual: new modules called `c_proj` get `scale_output_(1/√(2L))`, as `GPT.init_weights` does, with
            L = model.config.n_layer.
        kinds: further kinds of linear modules, each with a function that reads weight (O, I) and bias off one.

    Returns:
        The report, which can undo the swap.

    Raises:
        ValueError: `where` matches nothing, or nothing that can be swapped, or names outright what cannot be; the model
            is compiled or wrapped for data-parallel training; a new module has the wrong output shape;
            `warm_start` and `reinit_residual` exclude each other.
        TypeError: the factory makes no module, or one without the method that a warm start or `reinit_residual` needs.
    """
    if warm_start and reinit_residual:
        raise ValueError("warm_start keeps the old function and reinit_residual scales it: ask for one of them")
    _refuse_wrapped(model)
    chosen, left = _choose(model, _find(model, dict(kinds or {})), where, untie)
    before = _count(model)
    swapped = tuple(_build(site, factory, warm_start) for site in chosen)
    if len({id(swap.new) for swap in swapped}) < len(swapped):
        raise ValueError("the factory returned the same module twice; it must make a new one at every call")
    if reinit_residual:
        _scale_residual(model, swapped)
    for swap in swapped:
        _install(swap.places, swap.new)
    return SwapReport(model, swapped, tuple(left), before, _count(model))


@dataclass
class _Site:
    """A linear module of the model, as found."""

    module: nn.Module
    kind: str
    read: ReadLinear | None  # None: it looks linear, but its weight and bias cannot be told
    names: list[str]
    places: list[Place]
    obstacle: str | None = None


def _find(model: nn.Module, kinds: dict[type[nn.Module], ReadLinear]) -> list[_Site]:
    sites: dict[int, _Site] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        read = next((read for kind, read in kinds.items() if isinstance(module, kind)), None) or _reader(module)
        if read is None and not isinstance(module, nn.Linear | nn.MultiheadAttention):
            continue
        site = sites.setdefault(id(module), _Site(module, type(module).__name__, read, [], []))
        site.names.append(name)
        path, _, key = name.rpartition(".")
        parent = model.get_submodule(path)
        if name and not any(parent is other and key == k for other, k in site.places):
            site.places.append((parent, key))
    for site in sites.values():
        site.obstacle = _obstacle(site)
    return list(sites.values())


def _reader(module: nn.Module) -> ReadLinear | None:
    """How to read weight (O, I) and bias off the kinds known here; None for anything else."""
    if _is_plain(module):
        return lambda linear: (linear.weight, linear.bias)
    weight = getattr(module, "weight", None)
    if type(module).__name__ == "Conv1D" and isinstance(weight, Tensor) and weight.ndim == 2:  # transformers' GPT-2
        return lambda conv: (conv.weight.T, conv.bias)
    return None


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward


def _obstacle(site: _Site) -> str | None:
    """Why this module cannot be swapped, or None."""
    module = site.module
    if isinstance(module, nn.MultiheadAttention):
        return "it packs its projections into one tensor (in_proj_weight), not into linear modules"
    for parent, key in site.places:
        if isinstance(parent, nn.MultiheadAttention):
            return "nn.MultiheadAttention reads its weight as a tensor and never calls it"
        if isinstance(parent, nn.TransformerEncoderLayer) and key in ("linear1", "linear2"):
            return "nn.TransformerEncoderLayer reads its weight as a tensor in its fused inference path"
    if not site.places:
        return "it is the model itself, with no parent to hold another: call the factory instead"
    if site.read is None:
        return "it is an nn.Linear with a forward of its own: say in kinds= how to read weight and bias off it"
    if is_parametrized(module):
        return "it has parametrizations, which would be lost: remove them first (torch.nn.utils.parametrize)"
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if nn.parameter.is_lazy(getattr(module, "weight", None)):
        return "its weight has no shape yet: run the model once first"
    if any(getattr(module, hook) for hook in hooks):
        return "it has hooks, which the new module would not call: remove them first"
    if "forward" in vars(module):
        return "its forward was replaced on this one object, and what that does cannot be taken over"
    if not site.read(module)[0].is_floating_point():
        return f"its weight is {site.read(module)[0].dtype}, and layers are made in floating point"
    return None


def _refuse_wrapped(model: nn.Module) -> None:
    for name, module in model.named_modules():
        compiled = hasattr(module, "_orig_mod") or module._compiled_call_impl is not None
        if compiled or isinstance(module, nn.parallel.DistributedDataParallel):
            how = "compiled" if compiled else f"wrapped as {type(module).__name__}"
            raise ValueError(f"{name or 'the model'} is {how}: swap first, on the plain model, and do that afterwards")


def _choose(model: nn.Module, sites: list[_Site], where: Where | None, untie: bool) -> tuple[list[_Site], list[Left]]:
    """The sites to swap, and those to leave with the reason."""
    patterns = [where] if isinstance(where, str) else [] if where is None or callable(where) else list(where)
    names = [name for site in sites for name in site.names]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"where={pattern!r} matches no linear module; {_suggest(pattern, names)}")
    owners, outputs = _owners(model), _output_embeddings(model)
    chosen, left = [], []
    for site in sites:
        tie = None if untie else _tie(site, owners)
        if where is None:
            asked = site.module not in outputs
            unasked = "; ".join(filter(None, ("it is the output embedding (where= can name it)", tie)))
        elif callable(where):
            # A predicate may read in_features and the like: what may lack it goes straight to its obstacle.
            asked = site.read is None or any(where(name, site.module) for name in site.names)
            unasked = UNASKED
        else:
            asked = any(fnmatchcase(name, pattern) for name in site.names for pattern in patterns)
            unasked = UNASKED
        why = (site.obstacle or tie) if asked else unasked
        if asked and why and any(name in patterns for name in site.names):
            raise ValueError(f"{site.names[0]} ({site.kind}) cannot be swapped: {why}")
        if why:
            left.append(Left(site.names[0], site.kind, why))
        else:
            chosen.append(site)
    if not chosen:
        reasons = [f"{entry.name}: {entry.why}" for entry in left if entry.why != UNASKED][:4]
        raise ValueError(
            f"no linear module is selected that can be swapped; {'; '.join(reasons) or _suggest('', names)}"
        )
    return chosen, left


def _suggest(pattern: str, names: list[str]) -> str:
    if not names:
        return "the model has none of a known kind (nn.Linear, Conv1D of transformers); kinds= can describe others"
    core = pattern.strip("*")
    inside = [name for name in names if core and core in name]
    shown = (inside or difflib.get_close_matches(pattern, names, cutoff=0.5) or names)[:3]
    hint = f"; patterns match whole names, so '*{core}*' would match" if inside else ""
    return f"there are {len(names)}, such as {', '.join(shown)}{hint}"


def _output_embeddings(model: nn.Module) -> set[nn.Module]:
    found = {module for name, module in model.named_modules() if name.rpartition(".")[2] == "lm_head"}
    for module in model.modules():
        if hasattr(module, "get_output_embeddings"):  # transformers' models say it themselves
            found.add(module.get_output_embeddings())
    return found


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """For each parameter, by id, its names: one for every module object that owns it."""
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    return owners


def _tie(site: _Site, owners: dict[int, list[str]]) -> str | None:
    """Which parameter this module shares with another module, or None."""
    for name, parameter in site.module.named_parameters(site.names[0]):
        if others := [owner for owner in owners[id(parameter)] if owner != name]:
            own = name.rpartition(".")[2]
            return f"its {own} is also {others[0]} (untie=True swaps it nevertheless)"
    return None


def _build(site: _Site, factory: LinearFactory, warm_start: bool) -> Swap:
    """Make the new module and try it, without touching the model."""
    old, name = site.module, site.names[0]
    with torch.no_grad():
        weight, bias = site.read(old)
    outputs, inputs = weight.shape
    with torch.device(weight.device):
        new = factory(inputs, outputs, bias=bias is not None)
    if not isinstance(new, nn.Module):
        raise TypeError(f"the factory must make an nn.Module, for {name} it made a {type(new).__name__}")
    new.to(device=weight.device, dtype=weight.dtype)
    if warm_start:
        _load_linear(new, weight.detach(), None if bias is None else bias.detach())
    wanted, shape = (2, 3, outputs), tuple(_try_out(new, weight, inputs).shape)
    if shape != wanted:
        raise ValueError(f"{name}: the new {type(new).__name__} turns (2, 3, {inputs}) into {shape}, not into {wanted}")
    for key, size in (("in_features", inputs), ("out_features", outputs)):
        if not hasattr(new, key):
            setattr(new, key, size)
    trains = {key: parameter.requires_grad for key, parameter in old.named_parameters()}
    bias_trains = trains.pop("bias", None)  # None: the new bias goes with the weights
    for key, parameter in new.named_parameters():
        if key.rpartition(".")[2] == "bias" and bias_trains is not None:
            parameter.requires_grad_(parameter.requires_grad and bias_trains)
        elif trains and not any(trains.values()):
            parameter.requires_grad_(False)
    return Swap(
        name,
        tuple(site.names[1:]),
        site.kind,
        type(new).__name__,
        inputs,
        outputs,
        bias is not None,
        _count(old),
        _count(new),
        old,
        new.train(old.training),
        tuple(site.places),
    )


@torch.no_grad()
def _try_out(module: nn.Module, like: Tensor, in_features: int, value: float = 0.0) -> Tensor:
    """What the module makes of a small constant input (2, 3, I), in eval mode, so that it draws and updates nothing."""
    training = [part for part in module.modules() if part.training]
    output = module.eval()(like.new_full((2, 3, in_features), value))
    for part in training:
        part.training = True
    return output


@torch.no_grad()
def _load_linear(module: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Make the module compute x @ weight.T + bias."""
    if hasattr(module, "load_linear_"):
        module.load_linear_(weight, bias)
    elif _is_plain(module):
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
def _scale_output(module: nn.Module, factor: float) -> None:
    if hasattr(module, "scale_output_"):
        module.scale_output_(factor)
    elif _is_plain(module):
        for parameter in module.parameters():
            parameter.mul_(factor)
    else:
        raise TypeError(f"{type(module).__name__} has no scale_output_(factor) method")


def _scale_residual(model: nn.Module, swapped: tuple[Swap, ...]) -> None:
    n_layer = getattr(getattr(model, "config", None), "n_layer", None)
    residual = set(residual_projections(model).values())
    if n_layer is None:
        raise ValueError(
            "reinit_residual needs model.config.n_layer, which this model lacks: scale the new modules yourself"
        )
    for swap in swapped:
        if swap.old in residual:
            _scale_output(swap.new, 1 / math.sqrt(2 * n_layer))


def _follow(old: nn.Module, new: nn.Module) -> None:
    """Move the old module to where the new one is now, if the model was moved or cast since the swap."""
    now, then = next(new.parameters(), None), next(old.parameters(), None)
    if now is not None and then is not None and (now.device, now.dtype) != (then.device, then.dtype):
        old.to(device=now.device, dtype=now.dtype)


def _install(places: tuple[Place, ...], module: nn.Module) -> None:
    for parent, key in places:
        setattr(parent, key, module)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if not nn.parameter.is_lazy(parameter))


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
