"""Small models and batches for the tests of mode connectivity."""

import torch

from kancourse.gpt import GPT, IGNORE
from kancourse.zoo import build

KINDS = {
    "gpt2": {},
    "llama": {"position": "rope", "ffn": "swiglu", "norm": "rms", "bias": False},
    "untied": {"tie_head": False},
    "kan-ffn": {"ffn": "kan"},
    "kan-gpt": {"ffn": "kan", "linear": "kan", "bias": False},
    "kan-matrices": {"linear": "kan"},
}


def model(kind: str = "gpt2", *, seed: int = 0, **overrides: object) -> GPT:
    """A tiny model, in eval mode, whose weights are large enough for differences to show."""
    sizes = {"vocab_size": 17, "block_size": 12, "n_layer": 2, "n_head": 2, "n_embd": 8, "seed": seed}
    made = build("gpt-nano", **(sizes | KINDS[kind] | overrides)).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return made


def batches(*sizes: tuple[int, int], seed: int = 0, vocab_size: int = 17) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random batches of the given (rows, tokens), with some padding in each."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for rows, tokens in sizes or ((3, 12), (2, 7)):
        x, y = torch.randint(vocab_size, (2, rows, tokens), generator=draw)
        y[0, tokens // 2 :] = IGNORE
        made.append((x, y))
    return made
