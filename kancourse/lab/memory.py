"""What one training step of a KAN-GPT takes in memory: two laws, and the model that the first one is about.

- `naive_swap_memory`: every matrix of a minGPT, the head too, replaced by a KAN layer of the usual kind (autograd
  through Cox–de Boor), all logits in memory at once. `naive_swap` builds that model, so the law can be tested on it.
- `lean_memory`: this package's KAN-GPT. Its layers keep their input, its loss walks over the tokens in chunks.
- Both count float32 and AdamW, and add up parts whose largest moments do not quite coincide: they lie a little high.
- What a law leaves out: the tokens themselves, and whatever an allocator reserves and does not use.

Shapes: B batch, T block_size, N = B·T tokens, C n_embd, H heads, D head dim, L layers, V vocabulary, I in_features,
O out_features, G grid intervals, K order, M = G+K.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kancourse.attention import CausalSelfAttention
from kancourse.gpt import GPT, LOGIT_BUDGET, GPTConfig, LinearFactory
from kancourse.kan_kernel import Filler
from kancourse.lab.meters import peak_memory
from kancourse.lab.optim import make_adamw
from kancourse.lab.usual_kan import UsualKANLinear
from kancourse.zoo import ModelConfig, build, configure

FLOAT = 4  # bytes
USUAL_WEIGHTS = 10  # per edge of a KAN layer of the usual kind: G+K coefficients, one base weight, one scale
USUAL_KEPT = 300  # bytes that autograd keeps per token and input of such a layer; 296 are measured, with G=5, K=3
LOGIT_COPIES = 3  # of logits at the worst moment: themselves, their log-softmax, its gradient
SOURCE_COPIES = 5  # the same, fitted to what the source reports of its GPUs, whose allocators hold more than is used
SCRATCH_PLANES = 34  # of a chunk of tokens in our layer: features, masks, their gradients, with the eager kernel


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one training step, by what they are for."""

    parameters: int  # weights, their gradients, and AdamW's two averages
    activations: int  # kept by the blocks for the backward pass, without the two that follow
    attention: int  # T×T matrices
    logits: int  # and their gradients, or the layers' scratch where that is larger

    @property
    def total(self) -> int:
        return self.parameters + self.activations + self.attention + self.logits

    @property
    def gigabytes(self) -> float:
        """The total in units of 10⁹ bytes."""
        return self.total / 1e9


def naive_swap_memory(config: GPTConfig, batch_size: int, *, logit_copies: int = LOGIT_COPIES) -> Memory:
    """The law of the naive swap: 16·P + 300·N·Σ_in + 4·copies·N·V + 12·B·H·T²·L bytes.

    Args:
        config: sizes; the head is a KAN layer of its own, whatever `tie_head` says.
        batch_size: B.
        logit_copies: how many times all logits are in memory at once.
    """
    n_tokens, c, layers = batch_size * config.block_size, config.n_embd, config.n_layer
    inputs = layers * 7 * c + c  # of c_attn, c_proj, c_fc: C each; of the feed-forward's c_proj: 4C; of the head: C
    squares = batch_size * config.n_head * config.block_size**2 * layers
    return Memory(
        parameters=4 * FLOAT * naive_swap_parameters(config)["total"],
        activations=USUAL_KEPT * n_tokens * inputs,
        attention=3 * FLOAT * squares,
        logits=logit_copies * FLOAT * n_tokens * config.vocab_size,
    )


def naive_swap_parameters(config: GPTConfig) -> dict[str, int]:
    """Parameters of the naive swap: `blocks` (with their norms), `embeddings`, `head`, and `total`; by arithmetic."""
    c, v, layers = config.n_embd, config.vocab_size, config.n_layer
    blocks = layers * (USUAL_WEIGHTS * 12 * c * c + 4 * c) + 2 * c  # 3C², C², 4C², 4C² edges; norms with gain and bias
    embeddings, head = (v + config.block_size) * c, USUAL_WEIGHTS * c * v
    return {"blocks": blocks, "embeddings": embeddings, "head": head, "total": blocks + embeddings + head}


def lean_memory(config: ModelConfig, batch_size: int, *, logit_budget: int = LOGIT_BUDGET) -> Memory:
    """The law of this package's KAN-GPT, with learned positions, its head a matrix, and no dropout.

    Per token and block autograd keeps 12 C floats (the stream, twice, and its norms, twice; queries, keys, values; what
    attention returns; the hidden 4C), and H + 4 numbers of softmax and norms.

    Args:
        config: sizes, of a preset `kan-gpt-…`.
        batch_size: B.
        logit_budget: as for `GPT.loss`.
    """
    with torch.device("meta"):
        n_parameters = sum(p.numel() for p in build(config).parameters())
    n_tokens, c = batch_size * config.block_size, config.n_embd
    floats = config.n_layer * (12 * c + config.n_head + 4) + 3 * c + 2  # and the stream, its last norm, its gradient
    chunk = min(logit_budget, n_tokens * config.vocab_size)
    elements = min(n_tokens * 4 * c, max(Filler.elements["eager"], Filler.least_rows * 4 * c))
    return Memory(
        parameters=4 * FLOAT * n_parameters,
        activations=FLOAT * n_tokens * floats,
        attention=0,
        logits=FLOAT * max(LOGIT_COPIES * chunk, SCRATCH_PLANES * elements),
    )


def measure_step(model: GPT, batch_size: int, loss: Callable[[Tensor], Tensor]) -> int:
    """Bytes that training takes, measured: the weights, AdamW's averages, and the peak of one step beyond them.

    Args:
        model: on any device that `peak_memory` knows.
        batch_size: B, rows of block_size random tokens.
        loss: from ids (B, T), which are also the targets.
    """
    device = next(model.parameters()).device
    idx = torch.randint(model.config.vocab_size, (batch_size, model.config.block_size), device=device)
    optimizer = make_adamw(model.train(), lr=1e-4, beta1=0.9, beta2=0.95, weight_decay=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes the averages
    optimizer.zero_grad(set_to_none=True)

    def step() -> None:
        loss(idx).backward()
        optimizer.step()

    kept = 3 * sum(p.numel() * p.element_size() for p in model.parameters())
    return kept + peak_memory(step, device)


def measure_lean(config: ModelConfig, batch_size: int, *, logit_budget: int = LOGIT_BUDGET) -> int:
    """Bytes of one training step of this package's model, measured."""
    model = build(config, seed=0)
    return measure_step(model, batch_size, lambda idx: model.loss(idx, idx, logit_budget=logit_budget))


def measure_naive_swap(config: GPTConfig, batch_size: int) -> int:
    """Bytes of one training step of the naive swap, measured. Large: mind the sizes."""
    model = naive_swap(config)

    def loss(idx: Tensor) -> Tensor:
        logits = model(idx)  # (B, T, V): all of them, kept as minGPT keeps them
        return F.cross_entropy(logits.view(-1, config.vocab_size), idx.view(-1))

    return measure_step(model, batch_size, loss)


class _SquareAttention(CausalSelfAttention):
    """Attention that stores its T×T matrices, as minGPT does."""

    def forward(self, x: Tensor, state: None = None) -> Tensor:
        q, k, v = self._qkv(x, start=0)  # (B, H, T, D) each
        mask = torch.ones(q.size(2), q.size(2), dtype=torch.bool, device=x.device).tril()
        score = (q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).masked_fill(~mask, -math.inf)  # (B, H, T, T)
        weight = F.dropout(score.softmax(-1), self.dropout, self.training)
        return self._out(weight @ v)


class _TwoLayers(nn.Module):
    """C → 4C → C, with no activation between."""

    def __init__(self, config: GPTConfig, linear: LinearFactory) -> None:
        super().__init__()
        self.c_fc, self.c_proj = linear(config.n_embd, 4 * config.n_embd), linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.c_fc(x))


def naive_swap(config: GPTConfig) -> GPT:
    """minGPT with every matrix, the head too, a KAN layer of the usual kind."""
    linear = partial(UsualKANLinear, grid_range=(-1.0, 1.0))
    return GPT(
        replace(config, tie_head=False),
        mixer=_SquareAttention,
        ffn=_TwoLayers,
        linear=linear,
        head=linear,
    )


def _source(preset: str, block_size: int, **sizes: int) -> ModelConfig:
    return configure(f"kan-gpt-{preset}", vocab_size=50_257, block_size=block_size, **sizes)


# The source's six checkpoints and the GB it reports (None: it reports none); batches of 64 rows.
SOURCE_BATCH = 64
SOURCE: dict[str, tuple[ModelConfig, float | None]] = {
    "2-2-128": (_source("micro", 128, n_layer=2, n_head=2), None),
    "micro 128": (_source("micro", 128), 18),
    "micro 256": (_source("micro", 256), 37),
    "nano 128": (_source("nano", 128), 11),
    "nano 256": (_source("nano", 256), 25),
    "mini 128": (_source("mini", 128), 30),
}
