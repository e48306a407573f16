"""Finding what can be swapped: a model's linear modules, which of them are asked for, and what stands in the way.

Notable points:
- A module is found once, with all the places that hold it.
- What stands in the way: it is read as a tensor and never called, it has hooks or parametrizations or a forward of its
  own, or it shares a parameter with another module (a tied head).
- What was asked for by name and cannot be swapped is an error; what was asked for by a pattern or not at all is left,
  and the report says why.

Shapes: O outputs, I inputs of a layer.
"""

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from kancourse.swap_report import Left, Place
from kancourse.swap_start import is_plain

__all__ = ["ReadLinear", "Site", "Where", "choose", "find_sites", "refuse_wrapped"]

Where = Callable[[str, nn.Module], bool] | str | Collection[str]
ReadLinear = Callable[[nn.Module], tuple[Tensor, Tensor | None]]  # module -> weight (O, I), bias (O,) or None
UNASKED = "not selected by where"


@dataclass
class Site:
    """A linear module of the model, as found."""

    module: nn.Module
    kind: str
    read: ReadLinear | None  # None: it looks linear, but its weight and bias cannot be told
    names: list[str]
    places: list[Place]
    obstacle: str | None = None


def find_sites(model: nn.Module, kinds: dict[type[nn.Module], ReadLinear]) -> list[Site]:
    """All linear modules of the model: of the kinds known here, and of the further `kinds`."""
    sites: dict[int, Site] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        read = next((read for kind, read in kinds.items() if isinstance(module, kind)), None) or _reader(module)
        if read is None and not isinstance(module, nn.Linear | nn.MultiheadAttention):
            continue
        site = sites.setdefault(id(module), Site(module, type(module).__name__, read, [], []))
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
    if is_plain(module):
        return lambda linear: (linear.weight, linear.bias)
    weight = getattr(module, "weight", None)
    if type(module).__name__ == "Conv1D" and isinstance(weight, Tensor) and weight.ndim == 2:  # transformers' GPT-2
        return lambda conv: (conv.weight.T, conv.bias)
    return None


def _obstacle(site: Site) -> str | None:
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


def refuse_wrapped(model: nn.Module) -> None:
    """Raise ValueError if the model, or a part of it, is compiled or wrapped for data-parallel training."""
    for name, module in model.named_modules():
        compiled = hasattr(module, "_orig_mod") or module._compiled_call_impl is not None
        if compiled or isinstance(module, nn.parallel.DistributedDataParallel):
            how = "compiled" if compiled else f"wrapped as {type(module).__name__}"
            raise ValueError(f"{name or 'the model'} is {how}: swap first, on the plain model, and do that afterwards")


def choose(model: nn.Module, sites: list[Site], where: Where | None, untie: bool) -> tuple[list[Site], list[Left]]:
    """The sites to swap, and those to leave with the reason.

    Raises:
        ValueError: nothing matches, or nothing that can be swapped, or a site named outright cannot be.
    """
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


def _tie(site: Site, owners: dict[int, list[str]]) -> str | None:
    """Which parameter this module shares with another module, or None."""
    for name, parameter in site.module.named_parameters(site.names[0]):
        if others := [owner for owner in owners[id(parameter)] if owner != name]:
            own = name.rpartition(".")[2]
            return f"its {own} is also {others[0]} (untie=True swaps it nevertheless)"
    return None
