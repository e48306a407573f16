"""The loops of `bit_kernel`, bound to the parts of a packed model: one mixer or feed-forward, one token, one call.

A loop takes and gives what the part's own `step` or `forward` does, for one token of one text. Where a state is not
what the loop was made for, the part itself is asked, which says what is wrong.

Shapes: C channels, H heads, D head dim; x and y are (1, 1, C).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kancourse import bit_kernel as loops
from kancourse.attention import CausalSelfAttention, KVCache
from kancourse.bit_kan import BitKANFeedForward
from kancourse.bit_kernel import How, Turn, compiled, float32_numbers
from kancourse.bit_pack import PackedBitLinear, scratch
from kancourse.gpt import MLP, SwiGLU
from kancourse.moe import MoE, mixtral_gate, sigmoid_gate, softmax_gate
from kancourse.packed_kan import PackedBitKAN
from kancourse.retention import EPS, FixedDecay, MultiScaleRetention, RetentionState

MixerLoop = Callable[[Tensor, Any, Turn], tuple[Tensor, Any]]  # (x, state, turn) -> (y, state)
FeedForwardLoop = Callable[[Tensor], Tensor]  # x -> y


def mixer_loop(mixer: nn.Module) -> MixerLoop | None:
    """A mixer's `step` as a loop, or None where there is none for its kind or its matrices are not packed."""
    make = MIXERS.get(type(mixer))
    return make(mixer) if make else None


def feed_forward_loop(ffn: nn.Module) -> FeedForwardLoop | None:
    """A feed-forward as a loop, or None where there is none for its kind or its matrices are not packed."""
    make = FEED_FORWARDS.get(type(ffn))
    return make(ffn) if make else None


def _packed(*layers: nn.Module, kind: type = PackedBitLinear) -> bool:
    return all(type(layer) is kind for layer in layers)


def _size(*layers: PackedBitLinear, least: int = 1) -> int:
    """How large a scratch these layers need."""
    return max(least, *(max(4 * len(layer.packed), layer.out_features) for layer in layers), 1)


def _how(mixer: nn.Module, head_dim: int, *, gate: bool = False, norm: bool = False) -> How:
    return How(mixer.rotary, gate, norm, *float32_numbers(head_dim**-0.5, 1 / head_dim, EPS))


def _retention(mixer: MultiScaleRetention) -> MixerLoop | None:
    into, out_of, shape = mixer.c_qkvg, mixer.c_proj, (1, mixer.n_head, mixer.head_dim, mixer.head_dim)
    if not _packed(into, out_of):
        return None
    how, size = _how(mixer, mixer.head_dim, gate=mixer.gate, norm=mixer.norm), _size(into, out_of)
    always = mixer.decay.log_decay.expm1() if isinstance(mixer.decay, FixedDecay) else None

    def step(x: Tensor, state: Any, turn: Turn) -> tuple[Tensor, Any]:
        if not isinstance(state, RetentionState) or state.memory.shape != shape or state.memory.dtype != x.dtype:
            return mixer.step(x, state)  # which says what is wrong
        loss = always if always is not None else mixer.decay(x).flatten().expm1()  # (H,)
        memory, y = state.memory.contiguous(), torch.empty_like(x)
        written = torch.empty_like(memory)
        compiled(loops.retention)(
            x.numpy()[0, 0],
            into.weights(),
            out_of.weights(),
            turn,
            loss.numpy(),
            memory.numpy()[0],
            written.numpy()[0],
            how,
            scratch(size),
            y.numpy()[0, 0],
        )
        return y, RetentionState(written, state.length + 1)

    return step


def _attention(mixer: CausalSelfAttention) -> MixerLoop | None:
    into, out_of = mixer.c_attn, mixer.c_proj
    if not _packed(into, out_of):
        return None
    head_dim = out_of.in_features // mixer.n_head
    how, size, shape = _how(mixer, head_dim), _size(into, out_of), (1, mixer.n_head, mixer.block_size, head_dim)

    def step(x: Tensor, state: Any, turn: Turn) -> tuple[Tensor, Any]:
        if state.k.shape != shape or state.k.dtype != x.dtype or state.length >= mixer.block_size:
            return mixer.step(x, state)  # which says what is wrong
        y, scores = torch.empty_like(x), x.new_empty(state.length + 1)
        compiled(loops.attention)(
            x.numpy()[0, 0],
            into.weights(),
            out_of.weights(),
            turn,
            state.k.numpy()[0],
            state.v.numpy()[0],
            state.length,
            scores.numpy(),
            how,
            scratch(size),
            y.numpy()[0, 0],
        )
        return y, KVCache(state.k, state.v, state.length + 1)

    return step


def _swiglu(ffn: SwiGLU) -> FeedForwardLoop | None:
    gate, into, out_of = ffn.c_gate, ffn.c_fc, ffn.c_proj
    if not _packed(gate, into, out_of):
        return None
    size = _size(gate, into, out_of)

    def run(x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        weights = gate.weights(), into.weights(), out_of.weights()
        compiled(loops.swiglu)(x.numpy()[0, 0], *weights, scratch(size), y.numpy()[0, 0])
        return y

    return run


def _mlp(ffn: MLP) -> FeedForwardLoop | None:
    into, out_of = ffn.c_fc, ffn.c_proj
    if not _packed(into, out_of):
        return None
    size = _size(into, out_of)

    def run(x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        compiled(loops.mlp)(x.numpy()[0, 0], into.weights(), out_of.weights(), scratch(size), y.numpy()[0, 0])
        return y

    return run


def _bit_kan(ffn: BitKANFeedForward) -> FeedForwardLoop | None:
    into, out_of = ffn.c_fc, ffn.c_proj
    if not _packed(into, out_of, kind=PackedBitKAN):
        return None
    size = _size(into, out_of)

    def run(x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        weights = into.weights(), out_of.weights()
        compiled(loops.kan_feed_forward)(x.numpy()[0, 0], *weights, scratch(size), y.numpy()[0, 0])
        return y

    return run


def _moe(ffn: MoE) -> FeedForwardLoop | None:
    experts, shared = ([feed_forward_loop(expert) for expert in group] for group in (ffn.experts, ffn.shared))
    if not all(experts + shared):
        return None
    kans = [expert for expert in (*ffn.experts, *ffn.shared) if type(expert) is BitKANFeedForward]
    size = _size(*(layer for expert in kans for layer in (expert.c_fc, expert.c_proj)), least=ffn.n_expert)

    def run(x: Tensor) -> Tensor:
        kind, router = GATES.get(ffn.gate), ffn.router
        if kind is None:
            return ffn(x)  # a gate that was put there to look into the mixture
        token, arrays = x.numpy()[0, 0], (router.weight.detach().numpy(), router.bias.numpy())
        chosen, factors, work = torch.empty(ffn.top_k, dtype=torch.long), torch.empty(ffn.top_k), scratch(size)
        picks = chosen.numpy(), factors.numpy()
        if not compiled(loops.route)(token, *arrays, kind, work.floats, work.others, *picks):
            return ffn(x)  # which says what is wrong
        y = torch.empty_like(x)
        if len(kans) == len(experts) + len(shared):
            met = [ffn.experts[number] for number in chosen.tolist()] + list(ffn.shared)
            weights = tuple((expert.c_fc.weights(), expert.c_proj.weights()) for expert in met)
            compiled(loops.kan_mixture)(token, weights, picks[1], work, y.numpy()[0, 0])
            return y
        y.zero_()
        for weight, number in zip(factors.tolist(), chosen.tolist(), strict=True):
            y.add_(experts[number](x), alpha=weight)
        for expert in shared:
            y += expert(x)
        return y

    return run


GATES = {softmax_gate: loops.SOFTMAX, mixtral_gate: loops.MIXTRAL, sigmoid_gate: loops.SIGMOID}
MIXERS = {MultiScaleRetention: _retention, CausalSelfAttention: _attention}
FEED_FORWARDS = {SwiGLU: _swiglu, MLP: _mlp, BitKANFeedForward: _bit_kan, MoE: _moe}
