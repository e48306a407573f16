"""A GPT: a residual stream that every block reads twice, once to look around and once to think.

Notable points:
- Each block has two seats: a *mixer* (moves information between positions) and an *ffn* (works at one position).
  Both, and every matrix in them, are made by factories that the caller passes: no part is chosen by a flag.
- One contract for mixers: `forward(x, state=None)` on whole sequences, `step(x, state)` to go on from a state, so that
  decoding runs through the same code whether the state is a key-value cache or something that never grows.
- `GPT.loss` never holds all the logits of a large vocabulary: it walks over the tokens in chunks and recomputes.
- All initialisation stands in `GPT.init_weights`, with its table; a test measures the table.

Papers: Vaswani et al. 2017, "Attention Is All You Need" [1]; Radford et al. 2019, "Language Models are Unsupervised
Multitask Learners" (GPT-2) [2]; Shazeer 2020, "GLU Variants Improve Transformer" [3].

Glossary (code name ↔ paper symbol): `n_embd` ↔ d_model [1]; `head_dim` ↔ d_k = d_model/h [1]; `ffn_dim` ↔ d_ff [1];
`c_fc`, `c_proj` of the feed-forward ↔ W_1, W_2 [1]; `c_gate`, `c_fc`, `c_proj` of SwiGLU ↔ W, V, W_2 [3].

Shapes: B batch, T tokens, C channels (n_embd), V vocabulary, N = B·T.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kancourse.attention import CausalSelfAttention, naive_attention, rope

__all__ = [
    "GPT",
    "MLP",
    "CausalSelfAttention",
    "GPTConfig",
    "SwiGLU",
    "naive_attention",
    "residual_projections",
    "rope",
]

POSITIONS = ("learned", "rope", "none")
IGNORE = -100  # a target that enters no loss: padding
LOGIT_BUDGET = 2**24  # 64 MiB of logits in float32

LinearFactory = Callable[..., nn.Module]  # (in_features, out_features, bias=...) -> module
NormFactory = Callable[[int], nn.Module]  # (n_embd) -> module


@dataclass(kw_only=True)
class GPTConfig:
    """The sizes of a GPT. The defaults train on a laptop in a minute."""

    vocab_size: int = 256
    block_size: int = 128  # longest sequence the model is trained on, and with attention the longest it looks back
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    ffn_dim: int | None = None  # hidden width of the feed-forward; None: the ffn's own rule (MLP 4C, SwiGLU 8C/3)
    position: str = "learned"  # "learned" (GPT-2), "rope" (rotary), "none"
    tie_head: bool = True  # the output matrix is the embedding matrix
    bias: bool = True
    dropout: float = 0.0
    embedding_std: float | None = None  # how loud words and positions start; None: as GPT-2, 0.02

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is not divisible by n_head {self.n_head}")
        if self.position not in POSITIONS:
            raise ValueError(f"unknown position {self.position!r}; known: {', '.join(POSITIONS)}")
        if self.position == "rope" and self.head_dim % 2:
            raise ValueError(f"rotary positions turn pairs: head_dim {self.head_dim} (n_embd/n_head) must be even")
        if self.ffn_dim is not None and self.ffn_dim < 1:
            raise ValueError(f"ffn_dim must be at least 1 or None, got {self.ffn_dim}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.embedding_std is not None and self.embedding_std <= 0:
            raise ValueError(f"embedding_std must be above 0 or None, got {self.embedding_std}")

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head


class MLP(nn.Module):
    """The feed-forward of GPT-2 [2]: C → 4C → C with a GELU (tanh form, as GPT-2 has it) between."""

    def __init__(self, config: GPTConfig, linear: LinearFactory = nn.Linear) -> None:
        super().__init__()
        hidden = config.ffn_dim or 4 * config.n_embd
        self.c_fc = linear(config.n_embd, hidden, bias=config.bias)
        self.c_proj = linear(hidden, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, T, C), each position by itself."""
        return self.resid_dropout(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))


class SwiGLU(nn.Module):
    """The gated feed-forward [3]: c_proj(silu(c_gate x) ⊙ c_fc x); hidden 8C/3 gives it the MLP's parameters."""

    def __init__(self, config: GPTConfig, linear: LinearFactory = nn.Linear) -> None:
        super().__init__()
        hidden = config.ffn_dim or round(8 * config.n_embd / 3)
        self.c_gate = linear(config.n_embd, hidden, bias=config.bias)
        self.c_fc = linear(config.n_embd, hidden, bias=config.bias)
        self.c_proj = linear(hidden, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, T, C), each position by itself."""
        return self.resid_dropout(self.c_proj(F.silu(self.c_gate(x)) * self.c_fc(x)))


PartFactory = Callable[[GPTConfig, LinearFactory], nn.Module]


class Block(nn.Module):
    """x + mixer(norm(x)), then x + ffn(norm(x)): the pre-norm residual block of GPT-2 [2]."""

    def __init__(
        self, config: GPTConfig, *, mixer: PartFactory, ffn: PartFactory, linear: LinearFactory, norm: NormFactory
    ) -> None:
        super().__init__()
        self.ln_1, self.mixer = norm(config.n_embd), mixer(config, linear)
        self.ln_2, self.ffn = norm(config.n_embd), ffn(config, linear)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.ln_1(x))
        return x + self.ffn(self.ln_2(x))

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.mixer.step(self.ln_1(x), state)
        x = x + y
        return x + self.ffn(self.ln_2(x)), state


@dataclass
class DecodeState:
    """Where a decode stands: tokens seen so far, and each block's mixer state."""

    length: int
    blocks: list[Any]


class GPT(nn.Module):
    """A decoder-only language model.

    Args:
        config: the sizes.
        mixer: `mixer(config, linear)` makes the part that moves information between positions.
        ffn: `ffn(config, linear)` makes the part that works at one position.
        linear: `linear(in_features, out_features, bias=...)` makes every matrix of the blocks (not embedding and head).
        norm: `norm(n_embd)` makes the normalisations.
        block_norm: makes those inside the blocks, if they are to be others than the last one.
        head: `head(n_embd, vocab_size, bias=False)` makes the output layer.

    Raises:
        ValueError: `config.tie_head`, and the head has no weight of the embedding's shape to share.
    """

    def __init__(
        self,
        config: GPTConfig,
        *,
        mixer: PartFactory = CausalSelfAttention,
        ffn: PartFactory = MLP,
        linear: LinearFactory = nn.Linear,
        norm: NormFactory = nn.LayerNorm,
        block_norm: NormFactory | None = None,
        head: LinearFactory = nn.Linear,
    ) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd) if config.position == "learned" else None
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config, mixer=mixer, ffn=ffn, linear=linear, norm=block_norm or norm) for _ in range(config.n_layer)
        )
        self.ln_f = norm(config.n_embd)
        self.lm_head = head(config.n_embd, config.vocab_size, bias=False)
        if config.tie_head:
            if not isinstance(self.lm_head, nn.Linear):
                raise ValueError(f"a {type(self.lm_head).__name__} head cannot share the embedding: tie_head=False")
            self.lm_head.weight = self.wte.weight
        self.init_weights()

    def init_weights(self) -> None:
        """Draw all weights afresh, as GPT-2 [2] does (L layers):

        | parameters | mean | standard deviation |
        |---|---|---|
        | embeddings `wte`, `wpe` | 0 | `embedding_std`, else 0.02 |
        | matrices of `nn.Linear` (`lm_head` too, unless tied) | 0 | 0.02 |
        | matrices that write to the residual stream (`c_proj`) | 0 | 0.02/√(2L) |
        | biases | 0 | 0 |
        | gains of norms | 1 | 0 |

        Matrices of another kind (made by another `linear` factory) have drawn their own weights; if they write to the
        residual stream, their `scale_output_(1/√(2L))` is called. A head of another kind gets `scale_output_(0.02√C)`:
        if it keeps the variance of its inputs, its first logits are then as large as a matrix's.

        Raises:
            TypeError: such a matrix or head has no `scale_output_`.
        """
        residual_scale = 1 / math.sqrt(2 * self.config.n_layer)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                is_embedding = isinstance(module, nn.Embedding) or module.weight is self.wte.weight  # a tied head's
                nn.init.normal_(module.weight, std=(is_embedding and self.config.embedding_std) or 0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        scales = dict.fromkeys(residual_projections(self), residual_scale)
        scales |= {} if isinstance(self.lm_head, nn.Linear) else {"lm_head": 0.02 * math.sqrt(self.config.n_embd)}
        for name, scale in scales.items():
            module = self.get_submodule(name)
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02 * scale)
            elif hasattr(module, "scale_output_"):
                module.scale_output_(scale)
            else:
                raise TypeError(f"{name} is a {type(module).__name__}, which has no scale_output_(factor) method")

    @property
    def context_limit(self) -> int | None:
        """How many tokens `step` can go: block_size, or None when positions and mixers have no end."""
        if self.config.position == "learned" or not all(block.mixer.unbounded for block in self.blocks):
            return self.config.block_size
        return None

    def hidden(self, idx: Tensor) -> Tensor:
        """The residual stream after the last norm: token ids (B, T) → (B, T, C).

        Raises:
            ValueError: T is longer than block_size.
        """
        if idx.size(1) > self.config.block_size:
            raise ValueError(f"sequence of {idx.size(1)} tokens is longer than block_size {self.config.block_size}")
        x = self._embed(idx, start=0)
        for block in self.blocks:
            x = block(x)
        return self.ln_f(x)

    def forward(self, idx: Tensor) -> Tensor:
        """Logits of the next token at every position: ids (B, T) → (B, T, V)."""
        return self.lm_head(self.hidden(idx))

    def loss(self, idx: Tensor, targets: Tensor, *, logit_budget: int = LOGIT_BUDGET) -> Tensor:
        """Mean cross-entropy in nats over the targets that are not IGNORE (-100).

        Args:
            idx: token ids, (B, T).
            targets: the ids that follow them, (B, T); -100 where nothing is to be predicted (padding).
            logit_budget: at most so many logits exist at a time; beyond that the tokens go through the head in
                chunks, whose logits are computed again in the backward pass.

        Returns:
            A scalar; nan when no target counts.
        """
        hidden, flat = self.hidden(idx).flatten(0, 1), targets.flatten()  # (N, C), (N,)
        rows = max(1, logit_budget // self.config.vocab_size)
        if len(flat) <= rows:
            return F.cross_entropy(self.lm_head(hidden), flat, ignore_index=IGNORE)
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(flat), rows):
            piece = slice(start, start + rows)
            total = total + checkpoint(self._summed_loss, hidden[piece], flat[piece], use_reentrant=False)
        return total / (flat != IGNORE).sum()

    def _summed_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.lm_head(hidden), targets, ignore_index=IGNORE, reduction="sum")

    def empty_state(self, batch_size: int = 1) -> DecodeState:
        """The state of a decode that has seen nothing."""
        weight = self.wte.weight
        return DecodeState(
            0, [block.mixer.empty_state(batch_size, weight.device, weight.dtype) for block in self.blocks]
        )

    def step(self, idx: Tensor, state: DecodeState | None = None) -> tuple[Tensor, DecodeState]:
        """Go on by T tokens: ids (B, T) → logits (B, T, V), and the state after them.

        A prompt goes in as one step of many tokens; decoding is steps of one. Equal to `forward` on all tokens so far.

        Raises:
            ValueError: the tokens do not fit `context_limit`.
        """
        state = self.empty_state(idx.size(0)) if state is None else state
        limit, total = self.context_limit, state.length + idx.size(1)
        if limit is not None and total > limit:
            raise ValueError(f"{state.length} tokens seen and {idx.size(1)} new do not fit the context of {limit}")
        x = self._embed(idx, start=state.length)
        states = []
        for block, block_state in zip(self.blocks, state.blocks, strict=True):
            x, block_state = block.step(x, block_state)
            states.append(block_state)
        return self.lm_head(self.ln_f(x)), DecodeState(total, states)

    def _embed(self, idx: Tensor, start: int) -> Tensor:
        x = self.wte(idx)  # (B, T, C)
        if self.wpe is not None:
            x = x + self.wpe(torch.arange(start, start + idx.size(1), device=idx.device))
        return self.drop(x)


def residual_projections(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that write to the residual stream, by name: in every mixer and ffn the one called `c_proj`."""
    return {name: module for name, module in model.named_modules() if name.rpartition(".")[2] == "c_proj"}
