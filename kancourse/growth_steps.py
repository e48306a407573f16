"""The four ways in which a GPT grows, each of them leaving its function as it is.

Notable points:
- Of every product that is new, exactly one factor starts at zero. With none, the function would change; with both,
  neither could ever receive a gradient, because each one's is a multiple of the other.
- A wider residual stream. Under RMSNorm the new coordinates start at 0: the mean square shrinks by C/Ĉ, so gains are
  multiplied by √(C/Ĉ) **and epsilon by C/Ĉ**. Under LayerNorm zeros would move the mean, so the new coordinates start
  as the mean of the old ones [2]: everything that writes gets rows that are the mean of its rows. Then mean and sum of
  squares stay, the same two corrections hold, and the new coordinates come out of the norm as 0.
- Wider heads. Scores are divided by √D, so keys are multiplied by √(D̂/D). Rotary pair j of D turns as pair j·D̂/D of
  D̂ does: old pairs move there, new ones lie between.
- Old heads, coordinates, neurons, words and blocks come first; new ones follow.

Papers: Gesmundo & Maile 2023, "Composable Function-preserving Expansions for Transformer Architectures" [1]; Wang et
al. 2023, "LEMON: Lossless Model Expansion" (the mean, for LayerNorm) [2].

Shapes: C, D, H, V before, Ĉ, D̂, Ĥ, V̂ after: width of the stream, of a head, heads, vocabulary.
"""

import copy
import math

import torch
from torch import Tensor, nn

from kancourse.gpt import GPT, residual_projections
from kancourse.growth_nursery import INIT_STD, Nursery
from kancourse.growth_place import Axis

NEW_ROWS = ("mean", "zero", "random")


def grow_vocabulary(nursery: Nursery, vocab_size: int, new_rows: str) -> None:
    """V → V̂: more rows of the embedding, and of the head if it is another matrix. Old logits stay."""
    model: GPT = nursery.model
    for table in dict.fromkeys((model.wte.weight, model.lm_head.weight)):  # once if tied
        old_size, width = table.shape
        fill = torch.zeros(vocab_size, width).to(table)
        if new_rows == "mean":
            fill += table.detach().mean(0)
        elif new_rows == "random":
            fill = nursery.normal((vocab_size, width), table)
        nursery.stretch(table, 0, Axis.longer(old_size, vocab_size), fill)


def grow_stream(nursery: Nursery, n_embd: int) -> None:
    """C → Ĉ: longer vectors between the blocks."""
    model: GPT = nursery.model
    old_size = model.wte.weight.size(1)
    stream, share = Axis.longer(old_size, n_embd), old_size / n_embd
    is_mean = any(isinstance(module, nn.LayerNorm) for module in model.modules())

    def write(parameter: nn.Parameter, dim: int) -> None:
        shape = list(parameter.shape)
        shape[dim] = n_embd
        start = parameter.detach().mean(dim, keepdim=True) if is_mean else parameter.new_zeros(())
        nursery.stretch(parameter, dim, stream, start.expand(shape).clone())

    def read(weight: nn.Parameter) -> None:  # what comes in there is 0 at first, so the weights must not be
        nursery.stretch(weight, 1, stream, nursery.normal((weight.size(0), n_embd), weight))

    written = list(residual_projections(model).values())
    for module in list(model.modules()):
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            module.eps *= share
            nursery.stretch(module.weight, 0, stream, module.weight.new_ones(n_embd), scale=math.sqrt(share))
            if getattr(module, "bias", None) is not None:
                nursery.stretch(module.bias, 0, stream, module.bias.new_zeros(n_embd))
        elif module in written:
            write(module.weight, 0)
            if module.bias is not None:
                write(module.bias, 0)
        elif isinstance(module, nn.Linear) and module.weight is not model.wte.weight:
            read(module.weight)
    write(model.wte.weight, 1)
    if model.wpe is not None:
        write(model.wpe.weight, 1)


def grow_heads(nursery: Nursery, n_head: int, head_dim: int) -> None:
    """H → Ĥ and D → D̂ inside attention; what the new parts say enters the stream through zeros."""
    for block in nursery.model.blocks:
        mixer = block.mixer
        old_heads, old_dim = mixer.n_head, mixer.c_proj.weight.size(1) // mixer.n_head
        head = torch.arange(old_heads)[:, None] * head_dim  # where each head begins
        plain, pairs = torch.arange(old_dim), torch.arange(old_dim)
        if mixer.rotary:
            half, factor = old_dim // 2, head_dim // old_dim
            pairs = torch.cat((torch.arange(half) * factor, head_dim // 2 + torch.arange(half) * factor))
        q, k, v = ((head + within).flatten() for within in (pairs, pairs, plain))
        size = n_head * head_dim
        rows = Axis(3 * size, torch.cat((q, size + k, 2 * size + v)))

        new_keys = torch.ones(3, n_head, head_dim, dtype=torch.bool)  # False: a new number in the key of an old head
        new_keys[1, :old_heads] = False
        scale = torch.ones(3, old_heads * old_dim, dtype=torch.float64)
        scale[1] = math.sqrt(head_dim / old_dim)
        weight, bias = mixer.c_attn.weight, mixer.c_attn.bias
        fill = nursery.normal((3 * size, weight.size(1)), weight) * new_keys.reshape(-1, 1).to(weight.device)
        nursery.stretch(weight, 0, rows, fill, scale=scale.reshape(-1, 1).to(weight))
        if bias is not None:
            nursery.stretch(bias, 0, rows, bias.new_zeros(3 * size), scale=scale.flatten().to(bias))
        out = mixer.c_proj.weight
        nursery.stretch(out, 1, Axis(size, v), out.new_zeros(out.size(0), size))
        mixer.n_head = n_head


def grow_feed_forward(nursery: Nursery, ffn_dim: int) -> None:
    """More hidden neurons: what goes in is drawn, what comes out is 0."""
    for block in nursery.model.blocks:
        hidden = Axis.longer(block.ffn.c_proj.weight.size(1), ffn_dim)
        for name, matrix in list(block.ffn.named_children()):
            if not isinstance(matrix, nn.Linear):
                continue
            weight = matrix.weight
            if name == "c_proj":
                nursery.stretch(weight, 1, hidden, weight.new_zeros(weight.size(0), ffn_dim))
            else:
                nursery.stretch(weight, 0, hidden, nursery.normal((ffn_dim, weight.size(1)), weight))
                if matrix.bias is not None:
                    nursery.stretch(matrix.bias, 0, hidden, matrix.bias.new_zeros(ffn_dim))


def grow_depth(nursery: Nursery, n_layer: int) -> None:
    """More blocks at the end, drawn as new ones are, but that they write zeros: each of them is x + 0 + 0."""
    model: GPT = nursery.model
    twin = model.blocks[-1]
    for _ in range(n_layer - len(model.blocks)):
        block = copy.deepcopy(twin)
        written = residual_projections(block).values()
        for module in block.modules():
            if isinstance(module, nn.Linear):
                std = 0.0 if module in written else INIT_STD
                _fill_(module.weight, std * torch.randn(module.weight.shape, generator=nursery.generator))
            elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
                _fill_(module.weight, torch.ones(()))
            if getattr(module, "bias", None) is not None:
                _fill_(module.bias, torch.zeros(()))
        nursery.welcome(block, twin)
        model.blocks.append(block)


def _fill_(parameter: nn.Parameter, values: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(values)
