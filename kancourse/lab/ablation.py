"""Sizes for an ablation of four ideas: every combination of ternary matrices, retention, experts and KANs, made equal.

Which idea is worth what depends on what the arms have in common: the parameters that work on a token, or the bytes that
the model takes on disk. Both are solved for here, by the width of the feed-forward, and where bytes are to be equal, of
the stream, too.

Notable points:
- Active parameters are those of the blocks without the routed experts that a token does not visit. Embedding and head
  are the same in all arms of one width, and are left out.
- Bytes are of the whole model, packed at two bits where it is ternary, float32 elsewhere.
- A KAN feed-forward has G+K+1 numbers on an edge where a matrix has one, and no gate: it is that much narrower.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

from torch import nn

from kancourse.gpt import GPT
from kancourse.lab.experiment import Experiment
from kancourse.moe import MoE
from kancourse.packed import packed_bytes
from kancourse.zoo import build

__all__ = ["IDEAS", "active_parameters", "arm_fields", "arms", "equal_active", "equal_bytes", "make", "total_bytes"]

IDEAS = ("bit", "retention", "experts", "kan")
GRID = {"grid_size": 3, "order": 2}
VOCABULARY = 214  # words of microworld's first level, with its end of text
MIXTURE = {"n_expert": 8, "top_k": 2, "n_shared": 1}


def arms() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The sixteen combinations, with a name each: "none", "bit", …, "bit + retention + experts + kan"."""
    for taken in product((False, True), repeat=len(IDEAS)):
        ideas = tuple(idea for idea, is_in in zip(IDEAS, taken, strict=True) if is_in)
        yield " + ".join(ideas) or "none", ideas


def arm_fields(ideas: tuple[str, ...], n_embd: int, width: int) -> dict[str, Any]:
    """The fields of `Experiment` that make an arm of a llama.

    Args:
        ideas: of `IDEAS`.
        n_embd: C.
        width: hidden units of the feed-forward, or of each expert.
    """
    fields: dict[str, Any] = {"n_embd": n_embd}
    if "bit" in ideas:
        fields["linear"] = "bit"
    if "retention" in ideas:
        fields["mixer"] = "retention"
    kind = ("bit_kan" if "bit" in ideas else "kan") if "kan" in ideas else "swiglu"
    options = dict(GRID) if "kan" in ideas else {}
    if "experts" in ideas:
        mixture = MIXTURE | {"expert": kind, "expert_dim": width} | ({"expert_options": options} if options else {})
        return fields | {"ffn": "moe", "ffn_options": mixture}
    return fields | {"ffn": kind, "ffn_dim": width} | ({"ffn_options": options} if options else {})


def active_parameters(model: GPT) -> int:
    """How many parameters of the blocks a token meets."""
    idle = 0
    for layer in model.modules():
        if isinstance(layer, MoE):
            one = sum(p.numel() for p in layer.experts[0].parameters())
            idle += (layer.n_expert - layer.top_k) * one
    return sum(p.numel() for p in model.blocks.parameters()) - idle


def total_bytes(model: nn.Module) -> int:
    """Bytes of all its weights, ternary ones packed at two bits."""
    return sum(packed_bytes(model).values())


def equal_active(target: int, n_embd: int, base: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All arms at one width of the stream, with as nearly `target` active parameters as whole hidden units allow.

    Args:
        base: of `Experiment`, what all arms have in common; with `n_layer`.
    """
    widths = {name: _width(target / base["n_layer"], ideas, n_embd, base, active_parameters) for name, ideas in arms()}
    return {name: arm_fields(ideas, n_embd, widths[name]) for name, ideas in arms()}


def equal_bytes(
    target: int, base: dict[str, Any], *, shape: float, widths: Sequence[int], tolerance: float = 0.025
) -> dict[str, dict[str, Any]]:
    """All arms with nearly `target` bytes, each at the width of the stream that keeps the arms alike in shape.

    Args:
        base: of `Experiment`, what all arms have in common; with `n_layer`.
        shape: hidden units that a token meets, per channel of the stream, counted as a SwiGLU's.
        widths: of the stream, to choose from.
        tolerance: of the bytes.

    Raises:
        ValueError: an arm that no width brings within the tolerance.
    """
    n_layer, found = base["n_layer"], {}
    for name, ideas in arms():
        tries = []
        for n_embd in widths:
            for_layers = target - 4 * (VOCABULARY + 1) * n_embd  # the rest are the embedding and the last norm
            width = _width(for_layers / n_layer, ideas, n_embd, base, lambda model: total_bytes(model.blocks))
            if width:
                tries.append((abs(math.log(_met(ideas, width) / (shape * n_embd))), arm_fields(ideas, n_embd, width)))
        for _, fields in sorted(tries, key=lambda one: one[0]):
            if abs(total_bytes(make(base | fields)) / target - 1) <= tolerance:
                found[name] = fields
                break
        else:
            raise ValueError(f"no width of {list(widths)} brings {name!r} within {tolerance:.1%} of {target:,} bytes")
    return found


def make(fields: dict[str, Any]) -> GPT:
    """The model of an experiment's fields, for the vocabulary of microworld's first level."""
    return build(Experiment(**fields).model_config(VOCABULARY), seed=0)


def _met(ideas: tuple[str, ...], width: int) -> float:
    """Hidden units that a token meets, as if they were those of a SwiGLU with as many weights."""
    experts = MIXTURE["top_k"] + MIXTURE["n_shared"] if "experts" in ideas else 1
    return width * experts * (2 * (1 + GRID["grid_size"] + GRID["order"]) / 3 if "kan" in ideas else 1)


def _width(
    per_layer: float, ideas: tuple[str, ...], n_embd: int, base: dict[str, Any], size: Callable[[GPT], int]
) -> int:
    """The hidden width at which a layer's size comes nearest, or 0: sizes grow in a straight line with it."""
    near = size(make(base | arm_fields(ideas, n_embd, 4) | {"n_layer": 1}))
    if near > per_layer * 2:
        return 0
    far = size(make(base | arm_fields(ideas, n_embd, 12) | {"n_layer": 1}))
    return max(0, round(4 + (per_layer - near) * 8 / (far - near)))
