"""Growth: a small model that has learned becomes a larger one, and is at first exactly the function it was.

Notable points:
- `grow` makes a dense GPT deeper, wider (more heads, wider heads), longer in its feed-forward or richer in words. Old
  logits stay, up to rounding, for every combination and every order; `growth_steps` tells how, part by part.
- Nothing is born dead: whatever is new has a gradient at the first or second step.
- The optimiser goes along: old moments bit for bit, new numbers with a step count, and a learning rate, of their own.
- A grown model is an ordinary model: its config rebuilds it, a checkpoint saves it, everything else runs it.
- The ideas beside it: `GrowableLinear` (one layer, its generations apart, until `fuse`), a vocabulary that wakes up in
  steps under a fixed tokenizer, a count of what a model and all its ancestors cost, and grids that get finer.

Papers: Gesmundo & Maile 2023, "Composable Function-preserving Expansions for Transformer Architectures" [1]; Wang et
al. 2023, "LEMON: Lossless Model Expansion" [2]; Shen et al. 2022, "Staged Training for Transformer Language Models".

Glossary (code name ↔ paper symbol): `n_embd` ↔ h, `ffn_dim` ↔ p, `n_head` ↔ E, `head_dim` ↔ k = v, `n_layer` ↔ N [1].
"""

import dataclasses
from typing import Any

import torch
from torch import nn

from kancourse.attention import CausalSelfAttention
from kancourse.elephant import ElephantGLU, XElephantGLU
from kancourse.gpt import GPT, MLP, GPTConfig, SwiGLU
from kancourse.growth_adam import GenerationAdamW
from kancourse.growth_cost import Lineage, flops_per_token
from kancourse.growth_kan import refine_grids
from kancourse.growth_linear import GrowableLinear, fuse
from kancourse.growth_nursery import Nursery
from kancourse.growth_steps import (
    NEW_ROWS,
    grow_depth,
    grow_feed_forward,
    grow_heads,
    grow_stream,
    grow_vocabulary,
)
from kancourse.growth_vocabulary import CurriculumHead, activate, activation_cost

__all__ = [
    "CurriculumHead",
    "GenerationAdamW",
    "GrowableLinear",
    "Lineage",
    "activate",
    "activation_cost",
    "flops_per_token",
    "fuse",
    "grow",
    "refine_grids",
]

SEATS = {"mixer": (CausalSelfAttention,), "ffn": (MLP, SwiGLU, ElephantGLU, XElephantGLU)}
LEAVES = (nn.Linear, CurriculumHead, nn.Embedding, nn.LayerNorm, nn.RMSNorm)


def grow(
    model: GPT,
    *,
    n_layer: int | None = None,
    n_head: int | None = None,
    head_dim: int | None = None,
    ffn_dim: int | None = None,
    vocab_size: int | None = None,
    optimizer: GenerationAdamW | None = None,
    new_rows: str = "mean",
    generator: torch.Generator | None = None,
) -> GPT:
    """A larger model that computes the same function. The given one is left as it is.

    The width of the residual stream is always n_head · head_dim, so it grows with either. A feed-forward whose width
    the config leaves to its own rule (`ffn_dim=None`: 4C, or 8C/3) follows the stream.

    Args:
        model: attention and an MLP, SwiGLU or elephant, every matrix dense; any norm, any positions, tied or not.
        n_layer, n_head, head_dim, ffn_dim, vocab_size: the new sizes; None: as it is.
        optimizer: of `model`; from now on it trains the grown one, with one generation more.
        new_rows: where the vectors of new words start: "mean" (of the old ones), "zero" or "random".
        generator: draws the new weights, on the CPU; None: the global one.

    Returns:
        The grown model: same mode, device and dtype, and a `config` that rebuilds it.

    Raises:
        ValueError: a size below the present one, rotary heads that do not become wider by a whole factor, unknown
            `new_rows`, or an optimiser of another model.
        TypeError: a part that is not dense, a LayerNorm beside other norms, an optimiser that is no `GenerationAdamW`.
    """
    _check_parts(model)
    config, hidden = model.config, model.blocks[0].ffn.c_proj.in_features
    now = {name: getattr(config, name) for name in ("n_layer", "n_head", "head_dim", "vocab_size")}
    now |= {"ffn_dim": hidden}
    asked = {"n_layer": n_layer, "n_head": n_head, "head_dim": head_dim, "vocab_size": vocab_size, "ffn_dim": ffn_dim}
    sizes = {name: now[name] if size is None else size for name, size in asked.items()}
    for name, size in sizes.items():
        if size < now[name]:
            raise ValueError(f"a model can only grow: its {name} is {now[name]}, got {size}")
    head_dim = sizes["head_dim"]
    if config.position == "rope" and head_dim % config.head_dim:
        raise ValueError(
            f"rotary frequencies nest only when heads become wider by a whole factor: head_dim is {config.head_dim}, "
            f"so {2 * config.head_dim} or {3 * config.head_dim} would do, {head_dim} does not"
        )
    if new_rows not in NEW_ROWS:
        raise ValueError(f"unknown new_rows {new_rows!r}; known: {', '.join(NEW_ROWS)}")
    grown = _grown_config(model, sizes, ffn_dim)
    with torch.device("meta"):  # asks the feed-forward for its rule, and takes no memory
        wanted = type(model.blocks[0].ffn)(grown).c_proj.in_features

    nursery = Nursery(model, optimizer, generator)
    if grown.vocab_size > config.vocab_size:
        grow_vocabulary(nursery, grown.vocab_size, new_rows)
    if grown.n_embd > config.n_embd:
        grow_stream(nursery, grown.n_embd)
        grow_heads(nursery, grown.n_head, head_dim)
    if wanted > hidden:
        grow_feed_forward(nursery, wanted)
    if grown.n_layer > config.n_layer:
        grow_depth(nursery, grown.n_layer)
    nursery.model.config = grown
    return nursery.release()


def _grown_config(model: GPT, sizes: dict[str, int], ffn_dim: int | None) -> GPTConfig:
    """The config that builds the grown model: sizes, the norms' epsilon (see `grow_stream`), the words awake."""
    config, eps, head = model.config, getattr(model.ln_f, "eps", None), model.lm_head
    n_embd = sizes["n_head"] * sizes["head_dim"]
    changes: dict[str, Any] = {name: sizes[name] for name in ("n_layer", "n_head", "vocab_size")}
    changes |= {"n_embd": n_embd, "ffn_dim": ffn_dim or config.ffn_dim}
    if hasattr(config, "norm_options") and eps is not None and n_embd > config.n_embd:
        changes["norm_options"] = config.norm_options | {"eps": eps * (config.n_embd / n_embd)}
    if hasattr(config, "head_options") and isinstance(head, CurriculumHead):
        changes["head_options"] = config.head_options | {"n_active": head.n_active}
    return dataclasses.replace(config, **changes)


def _check_parts(model: GPT) -> None:
    """Raise TypeError unless all parts are ones that `grow` knows."""
    if not isinstance(model, GPT):
        raise TypeError(f"grow takes a kancourse GPT, got a {type(model).__name__}")
    for i, block in enumerate(model.blocks):
        for seat, known in SEATS.items():
            part = getattr(block, seat)
            if type(part) not in known:
                names = ", ".join(kind.__name__ for kind in known)
                raise TypeError(f"grow knows {names} as {seat}; blocks.{i}.{seat} is a {type(part).__name__}")
    for name, module in model.named_modules():
        if list(module.parameters(recurse=False)) and type(module) not in LEAVES:
            raise TypeError(f"grow knows dense matrices and norms; {name} is a {type(module).__name__}")
    norms = [norm for block in model.blocks for norm in (block.ln_1, block.ln_2)] + [model.ln_f]
    kinds = sorted({type(norm).__name__ for norm in norms})
    if len(kinds) > 1 and "LayerNorm" in kinds:
        raise TypeError(f"a stream under a LayerNorm grows only when every norm is one, got {' and '.join(kinds)}")
    if any(norm.weight is None or norm.eps is None for norm in norms if type(norm) is not nn.Identity):
        raise TypeError("grow corrects gain and epsilon of every norm, and one of this model's lacks them")
