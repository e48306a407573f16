"""Low-rank adapters: a model learns something new beside its weights, which stay as they are to the last bit.

y = base(x) + (α/r) · B A x, with A (r, I) and B (O, r), r far below I and O [1]. B begins as zeros, so an adapted model
begins as the model it was. Only A and B are trained; without them the old model is back.

Notable points:
- Any layer with `in_features` and `out_features` can be the base: a matrix, a KAN, ternary weights as they lie packed
  in a file. It has to pass the gradient to its input, and nothing more.
- A layer that brings its own norm (`norm_weight`) multiplies normalised numbers; its adapter reads the same numbers.
- An adapter can be merged into an `nn.Linear`. Into ternary weights it cannot: they have no room for what it says.
- Nothing in the trainer is special: frozen parameters are in no group of the optimiser. Weight decay pulls A and B to
  zero, which is to say to the model as it was.

Paper: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" [1].

Glossary (code name ↔ paper symbol [1]): `lora_a`, `lora_b` ↔ A, B; `rank` ↔ r; `alpha` ↔ α; `base` ↔ W_0.

Shapes: I in_features, O out_features, r rank, `...` any leading axes.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kancourse.packed import PackedGPT

__all__ = ["LoRALinear", "add_lora", "is_target", "lora_layers", "lora_state", "merge_lora", "remove_lora"]

HEAD = "lm_head"  # not adapted unless it is asked for: it is large, and often it is the embedding


class LoRALinear(nn.Module):
    """base(x) + (alpha/rank) · B A x, with a base that is frozen.

    Args:
        base: any layer from `in_features` to `out_features`; its parameters stop asking for gradients.
        rank: r, from 1 to the smaller of I and O.
        alpha: α; by α/r the adapter is multiplied.
        generator: draws A; None: the global one.

    Parameters: `lora_a (r, I)`, from N(0, 1/I); `lora_b (O, r)`, zeros.

    Raises:
        ValueError: a rank or an alpha out of range.
    """

    def __init__(
        self, base: nn.Module, *, rank: int, alpha: float = 16.0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = int(base.in_features), int(base.out_features)
        self.rank, self.alpha = rank, alpha
        _check(base, rank, alpha)
        self.base = base.requires_grad_(False)
        device = next((t.device for t in (*base.parameters(), *base.buffers())), None)
        drawn = torch.empty(rank, self.in_features).normal_(std=self.in_features**-0.5, generator=generator)
        self.lora_a = nn.Parameter(drawn.to(device))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, rank, device=device))
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) → (..., O), in the dtype the base answers in."""
        y, z = self.base(x), x.to(self.lora_a.dtype)
        if (gain := getattr(self.base, "norm_weight", None)) is not None:
            z = F.rms_norm(z, (self.in_features,), gain.to(z.dtype), self.base.eps)
        z = F.linear(F.linear(z, self.lora_a), self.lora_b)  # (..., r), then (..., O)
        return y + (z * (self.alpha / self.rank)).to(y.dtype)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha:g}"


def add_lora(
    model: nn.Module,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] | None = None,
    seed: int | None = None,
) -> dict[str, LoRALinear]:
    """Give layers of a model adapters, in place, and freeze everything else. Its outputs stay what they are.

    Args:
        model: anything with layers that have `in_features` and `out_features`; of layers within layers the outer one
            is adapted. A packed GPT: the GPT inside (`packed.model`), as its compiled loops know no adapters; a
            `PackedGPT` of the adapted model, made anew, decodes adapted parts by modules and the others by loops.
        rank, alpha: as in `LoRALinear`.
        targets: which layers: whole names, or patterns of names or of their ends ("c_attn", "mixer.c_*", "blocks.0.*");
            None: all but the head.
        seed: draws the adapters from this seed; None: from the global generator.

    Returns:
        The adapters, by the names of the layers.

    Raises:
        ValueError: the model has adapters already, a target fits no layer, or a rank that some layer cannot have.
        TypeError: the packed wrapper in place of the model inside it.
    """
    if isinstance(model, PackedGPT):
        raise TypeError("the loops of a PackedGPT know no adapters: adapt the model inside, `.model`")
    if lora_layers(model):
        raise ValueError("the model has adapters already: remove_lora or merge_lora them first")
    layers = _layers(model)
    chosen = _chosen(layers, targets)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    unique = {id(layers[name]): layers[name] for name in chosen}  # a layer that is used twice has one adapter
    for layer in unique.values():
        _check(layer, rank, alpha)
    made = {key: LoRALinear(layer, rank=rank, alpha=alpha, generator=generator) for key, layer in unique.items()}
    adapters = {name: made[id(layers[name])] for name in chosen}
    model.requires_grad_(False)
    for name, adapter in adapters.items():
        model.set_submodule(name, adapter)
        adapter.lora_a.requires_grad_()
        adapter.lora_b.requires_grad_()
    return adapters


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted layers of a model, by name; none of a model without adapters."""
    modules = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in modules if isinstance(module, LoRALinear)}


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of the adapters alone: `<layer>.lora_a` and `<layer>.lora_b`, each on the CPU and by itself.

    Raises:
        ValueError: the model has no adapters.
    """
    layers = lora_layers(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no adapters: add_lora gives it some")
    parts = {f"{name}.{part}": getattr(layer, part) for name, layer in layers.items() for part in ("lora_a", "lora_b")}
    return {name: tensor.detach().cpu().clone() for name, tensor in parts.items()}


def remove_lora(model: nn.Module) -> dict[str, Tensor]:
    """Take the adapters off, in place: the model answers as before, to the last bit. Its parameters stay frozen.

    Returns:
        What the adapters had learned, as `lora_state` says it.

    Raises:
        ValueError: the model has no adapters.
    """
    state = lora_state(model)
    for name, layer in lora_layers(model).items():
        model.set_submodule(name, layer.base)
    return state


@torch.no_grad()
def merge_lora(model: nn.Module) -> None:
    """Add the adapters to the matrices they belong to, W ← W + (α/r) B A, and take them off, in place.

    Raises:
        ValueError: no adapters, or one whose base is not an `nn.Linear`, or has a matrix that is used elsewhere too:
            nothing is merged then.
    """
    lora_state(model)  # says so if there are none
    layers = lora_layers(model)
    owners: dict[int, set[int]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), set()).add(id(module))
    for name, layer in layers.items():
        if not isinstance(layer.base, nn.Linear):
            kind = type(layer.base).__name__
            raise ValueError(f"{name} is a {kind}, which no adapter can be merged into: keep it beside, or remove_lora")
        if len(owners[id(layer.base.weight)]) > 1:
            raise ValueError(f"the matrix of {name} is used elsewhere too, where the adapter does not belong: keep it")
    for layer in {id(layer): layer for layer in layers.values()}.values():
        layer.base.weight += (layer.lora_b @ layer.lora_a * (layer.alpha / layer.rank)).to(layer.base.weight.dtype)
    for name, layer in layers.items():
        model.set_submodule(name, layer.base)


def is_target(name: str, target: str) -> bool:
    """Whether a pattern means the module of that name, by the whole of it or by its end."""
    return fnmatchcase(name, target) or fnmatchcase(name, f"*.{target}")


def _check(base: nn.Module, rank: int, alpha: float) -> None:
    if not 1 <= rank <= min(base.in_features, base.out_features):
        what = f"{type(base).__name__} {base.in_features} → {base.out_features}"
        raise ValueError(f"rank must be from 1 to the smaller side of a layer, got {rank} for a {what}")
    if alpha <= 0:
        raise ValueError(f"alpha must be above 0, got {alpha}")


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every outermost layer with `in_features` and `out_features`, by name (by each, if it is used several times)."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if (
            name
            and not inside
            and all(isinstance(getattr(module, s, None), int) for s in ("in_features", "out_features"))
        ):
            found[name] = module
    return found


def _chosen(layers: dict[str, nn.Module], targets: Sequence[str] | None) -> list[str]:
    if targets is None:
        chosen = [name for name in layers if name.rpartition(".")[2] != HEAD]
        if not chosen:
            raise ValueError("the model has no layer with in_features and out_features, so nothing to adapt")
        return chosen
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    fits = {t: [n for n in layers if is_target(n, t)] for t in targets if t not in layers}
    fits |= {t: [t] for t in targets if t in layers}
    for target, names in fits.items():
        if not names:
            known = sorted({name.rpartition(".")[2] for name in layers})
            raise ValueError(f"no layer is called {target!r}; known: {', '.join(known)}")
    return [name for name in layers if any(name in names for names in fits.values())]
