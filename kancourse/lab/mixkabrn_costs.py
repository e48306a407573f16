"""What a model costs apart from its loss: parameters a token meets, bytes to store it, tokens per second.

Notable points:
- *Active* parameters are those a token is multiplied with, or looked up in: of the routed experts, only as many as it
  visits. All experts are stored all the same.
- *Stored bytes* are of a file as one would make it: ternary weights at 2 bits, everything else at 16. What is not a
  parameter (a scale per matrix, the file's header) is left out.
- *Tokens per second* are of decoding on one thread: packed if there is anything ternary, else by PyTorch's operators.
  They do not depend on what the weights say, and compare only within one machine.
- A 2⁴ design names each of its models by which of the four ideas it has (`ideas_of`).
"""

from typing import Any

import torch
from torch import nn

from kancourse.bit_kan import BitKAN
from kancourse.bitnet import BitLinear
from kancourse.gpt import GPT
from kancourse.lab.bench_bitnet import tokens_per_second
from kancourse.lab.corpus import Corpus
from kancourse.lab.meters import count_parameters
from kancourse.moe import MoE
from kancourse.packed import PackedGPT
from kancourse.zoo import ModelConfig

__all__ = ["IDEAS", "active_parameters", "costs", "grid_cells", "ideas_of", "stored_bytes", "ternary_weights"]

IDEAS = ("bit", "retention", "experts", "KAN")


def ideas_of(config: ModelConfig) -> tuple[bool, bool, bool, bool]:
    """Which of the four ideas a model has, in the order of `IDEAS`."""
    kinds = (config.linear, config.ffn, config.ffn_options.get("expert", ""))
    return (
        any(kind in ("bit", "bit_kan") for kind in kinds),
        config.mixer == "retention",
        config.ffn == "moe",
        any("kan" in kind for kind in kinds),
    )


def ternary_weights(model: nn.Module) -> int:
    """How many of its parameters are rounded to −1, 0 and 1."""
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, BitLinear | BitKAN))


def active_parameters(model: nn.Module) -> int:
    """All parameters less those of the routed experts that a token does not visit; an embedding counts whole."""
    idle = 0
    for layer in model.modules():
        if isinstance(layer, MoE):
            routed = sum(p.numel() for p in layer.experts.parameters())
            idle += routed * (layer.n_expert - layer.top_k) // layer.n_expert
    return count_parameters(model)["total"] - idle


def stored_bytes(model: nn.Module) -> int:
    """Bytes of its file: 2 bits for a ternary weight, 16 for any other parameter."""
    ternary = ternary_weights(model)
    return -(-ternary // 4) + 2 * (count_parameters(model)["total"] - ternary)


def costs(model: GPT, corpus: Corpus | None = None, seed: int = 0) -> dict[str, Any]:
    """The probe of that name: `active_parameters`, `stored_bytes`, `tokens_per_second`, and how it was decoded.

    Args:
        model: not packed.
        corpus, seed: not used.
    """
    was_training, threads = model.training, torch.get_num_threads()
    model.eval()
    torch.set_num_threads(1)
    try:
        faster = PackedGPT(model) if ternary_weights(model) else None
        told = {
            "active_parameters": active_parameters(model),
            "stored_bytes": stored_bytes(model),
            "tokens_per_second": tokens_per_second(faster or model),
            "decoded": faster.describe() if faster else "by PyTorch's operators",
        }
    finally:
        torch.set_num_threads(threads)
        model.train(was_training)
    return told


def grid_cells(values: dict[tuple[bool, ...], list[float]]) -> torch.Tensor:
    """Values by ideas, each with a number per seed, as the cells of `kancourse.lab.factorial`: (2, …, 2, seeds).

    Raises:
        ValueError: a combination is missing, or has another number of seeds.
    """
    n = len(next(iter(values)))
    seeds = {len(runs) for runs in values.values()}
    if len(values) != 2**n or len(seeds) != 1:
        raise ValueError(
            f"a full design of {n} ideas has {2**n} combinations of as many seeds each, got {len(values)} of {seeds}"
        )
    cells = torch.empty(*[2] * n, seeds.pop(), dtype=torch.float64)
    for ideas, runs in values.items():
        cells[tuple(map(int, ideas))] = torch.tensor(runs, dtype=torch.float64)
    return cells
