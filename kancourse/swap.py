"""Swapping: every linear layer of a finished model, or some of them, replaced by another kind, and back.

Notable points:
- The finding is in `swap_sites`, the ways to start in `swap_start`, the report in `swap_report`.
- `swap_linears` takes any model and any factory. It finds `nn.Linear`, the transposed `Conv1D` of transformers' GPT-2
  (by its looks: nothing is imported), and whatever kinds the caller describes.
- Everything new is built and tried before the model is touched, so an error leaves the model as it was.
- The report says what was swapped, what was left and why. It keeps the old modules, so `report.undo()` is the identity;
  whoever does not want to go back drops the report, and with it their memory.
- A warm start gives the new layer the old one's function, through `new.load_linear_(weight, bias)`. Splines hold
  straight lines exactly (coefficients w·ξ_g, ξ_g the mean of B_g's inner knots), as far as their grid reaches, or
  everywhere if they go on along their tangents, as ours do: `KANLinear` and `SharedKANLinear` are the old layer up to
  rounding, in float32 1e-5 of its largest output. That is the lean way: no further weights (with rank 1), and decay
  and pruning see the whole function. `LinearPlus` keeps the linear layer and adds to it: equal to the last bit, for any
  kind of layer, and decay pulls it back to the old function; it costs the old weights on top.
  `report.deviations` measures either on the activations that really arrive.
- A weight that another module uses too (a tied head) keeps its tie unless the caller says `untie=True`.
- An optimiser made before the swap still holds the old parameters: make it afterwards. Compile afterwards, too.

Shapes: O outputs, I inputs of a layer.
"""

import math
from collections.abc import Mapping

import torch
from torch import nn

from kancourse.gpt import LinearFactory, residual_projections
from kancourse.swap_report import Deviation, Left, Swap, SwapReport, count, install
from kancourse.swap_sites import ReadLinear, Site, Where, choose, find_sites, refuse_wrapped
from kancourse.swap_start import LinearPlus, load_linear, scale_output, try_out

__all__ = ["Deviation", "Left", "LinearPlus", "Swap", "SwapReport", "swap_linears"]


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
    refuse_wrapped(model)
    chosen, left = choose(model, find_sites(model, dict(kinds or {})), where, untie)
    before = count(model)
    swapped = tuple(_build(site, factory, warm_start) for site in chosen)
    if len({id(swap.new) for swap in swapped}) < len(swapped):
        raise ValueError("the factory returned the same module twice; it must make a new one at every call")
    if reinit_residual:
        _scale_residual(model, swapped)
    for swap in swapped:
        install(swap.places, swap.new)
    return SwapReport(model, swapped, tuple(left), before, count(model))


def _build(site: Site, factory: LinearFactory, warm_start: bool) -> Swap:
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
        load_linear(new, weight.detach(), None if bias is None else bias.detach())
    wanted, shape = (2, 3, outputs), tuple(try_out(new, weight, inputs).shape)
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
        count(old),
        count(new),
        old,
        new.train(old.training),
        tuple(site.places),
    )


def _scale_residual(model: nn.Module, swapped: tuple[Swap, ...]) -> None:
    n_layer = getattr(getattr(model, "config", None), "n_layer", None)
    residual = set(residual_projections(model).values())
    if n_layer is None:
        raise ValueError(
            "reinit_residual needs model.config.n_layer, which this model lacks: scale the new modules yourself"
        )
    for swap in swapped:
        if swap.old in residual:
            scale_output(swap.new, 1 / math.sqrt(2 * n_layer))
