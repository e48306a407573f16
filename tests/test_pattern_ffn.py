"""Attention over learned patterns: its formula, its budget, its memory. Run: pytest tests/test_pattern_ffn.py"""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kancourse.gpt import MLP, GPTConfig, SwiGLU
from kancourse.lab.meters import saved_tensor_bytes
from kancourse.pattern_ffn import (
    PatternAttention,
    TokenParameterAttention,
    naive_pattern_attention,
    pattern_attention,
)
from kancourse.zoo import build, configure


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@settings(max_examples=30)
@given(
    n_part=st.integers(1, 4),
    dim=st.integers(1, 5),
    n_pattern=st.integers(1, 7),
    shared=st.booleans(),
    lead=st.lists(st.integers(1, 3), max_size=2),
    seed=st.integers(0, 99),
)
def test_fused_equals_naive_in_value_and_gradients(n_part, dim, n_pattern, shared, lead, seed):
    q = randn(*lead, n_part, dim, seed=seed).requires_grad_()
    keys, values = (randn(1 if shared else n_part, n_pattern, dim, seed=seed + n).requires_grad_() for n in (1, 2))
    fused, naive = pattern_attention(q, keys, values), naive_pattern_attention(q, keys, values)
    torch.testing.assert_close(fused, naive)
    up = randn(*fused.shape, seed=seed + 3)
    for a, b in zip(*(torch.autograd.grad(y, (q, keys, values), up) for y in (fused, naive)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("width", "ffn_dim"), [(48, 128), (96, 256), (48, None)])
def test_every_form_has_the_parameters_of_the_swiglu(width, ffn_dim):
    config = GPTConfig(n_embd=width, n_head=4, ffn_dim=ffn_dim, bias=False)
    budget = size(SwiGLU(config))
    for made in (PatternAttention(config), PatternAttention(config, shared=True), TokenParameterAttention(config)):
        assert size(made) == budget
    assert PatternAttention(config, shared=True).keys.size(1) == 4 * PatternAttention(config).keys.size(1)


def test_what_softmax_reads_is_an_average_of_values():
    config = GPTConfig(n_embd=8, n_head=2, bias=False)
    layer = PatternAttention(config).double()
    found = pattern_attention(100 * randn(5, 2, 4), layer.keys, layer.values)  # (5, H, D)
    low, high = layer.values.amin(1), layer.values.amax(1)  # (H, D)
    assert ((found >= low - 1e-12) & (found <= high + 1e-12)).all()


def test_without_the_norm_it_is_the_feed_forward_of_gpt2():
    """Scores whose mean square is 1 already go through GELU as they are."""
    config = GPTConfig(n_embd=6, n_head=1, bias=False, ffn_dim=8)
    layer, x = TokenParameterAttention(config).double(), randn(4, 6)
    assert layer.n_pattern == 12
    scores = layer.c_fc(x)
    by_hand = layer.c_proj(F.gelu(scores / scores.square().mean(-1, keepdim=True).sqrt()))
    torch.testing.assert_close(layer(x), by_hand)
    plain = MLP(GPTConfig(n_embd=6, n_head=1, bias=False, ffn_dim=12)).double()
    plain.load_state_dict(layer.state_dict())
    rms = scores.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(layer(x), plain(x / rms), atol=2e-3, rtol=0)  # GELU's tanh form is that near


def test_the_fused_form_keeps_no_weights():
    """Naive: (tokens, parts, patterns) numbers, several times. Fused: a few per token and channel."""
    config = GPTConfig(n_embd=32, n_head=4, bias=False)
    layer, x = PatternAttention(config, shared=True), torch.randn(1, 128, 32)
    q = layer.c_query(x).unflatten(-1, (4, -1)).detach().requires_grad_()
    n_weights = 128 * 4 * layer.keys.size(1)
    naive = saved_tensor_bytes(lambda: naive_pattern_attention(q, layer.keys, layer.values), ignore=layer)
    fused = saved_tensor_bytes(lambda: pattern_attention(q, layer.keys, layer.values), ignore=layer)
    assert naive >= 4 * n_weights
    assert fused <= 4 * 128 * (4 * 32 + 4)  # queries, output and copies of them, and one number per part


@pytest.mark.parametrize(("ffn", "options"), [("pattern", {}), ("pattern", {"shared": True}), ("token_parameters", {})])
def test_in_its_seat_it_learns_and_decodes(ffn, options):
    model = build("llama-nano", vocab_size=11, block_size=8, n_layer=1, ffn=ffn, ffn_options=options, seed=0)
    idx = torch.arange(8)[None] % 11
    first = model.loss(idx, idx + 1).item()
    assert first == pytest.approx(math.log(11), abs=0.2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(15):
        optimizer.zero_grad()
        model.loss(idx, idx + 1).backward()
        optimizer.step()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())
    assert model.loss(idx, idx + 1).item() < 0.7 * first
    model.eval()
    _, state = model.step(idx[:, :5])
    torch.testing.assert_close(model.step(idx[:, 5:], state)[0], model(idx)[:, 5:], atol=1e-5, rtol=1e-5)


def test_what_cannot_be_is_one_clear_error():
    with pytest.raises(ValueError, match="n_embd 8 is not divisible by n_part 3"):
        PatternAttention(GPTConfig(n_embd=8, n_head=2), n_part=3)
    with pytest.raises(ValueError, match=r"n_pattern must be at least 1, got -1 \(n_embd 8, ffn_dim 5\)"):
        PatternAttention(GPTConfig(n_embd=8, n_head=2, ffn_dim=5))
    with pytest.raises(ValueError, match="ffn 'pattern' has no option 'n_patterns'; known: n_pattern, n_part, shared"):
        configure("llama-nano", ffn="pattern", ffn_options={"n_patterns": 3})
