"""The mini-mixture against its units, and what "upcast" may mean. Run: pytest tests/test_mini_mixture.py"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kancourse.gpt import GPTConfig, SwiGLU
from kancourse.mini_mixture import FlatMixture, MiniMixture, naive_mini_mixture
from kancourse.zoo import build


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(kind: type[nn.Module], config: GPTConfig, *, seed: int = 0, **options) -> nn.Module:
    """A layer in float64 with weights large enough to matter."""
    layer = kind(config, **options).double()
    for n, parameter in enumerate(layer.parameters()):
        parameter.data.copy_(randn(*parameter.shape, seed=seed + n))
    return layer


@settings(max_examples=25)
@given(
    width=st.integers(1, 6),
    n_unit=st.integers(1, 5),
    unit=st.integers(1, 4),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_one_product_equals_the_sum_over_units(width, n_unit, unit, bias, seed):
    config = GPTConfig(n_embd=width, n_head=1, ffn_dim=n_unit * unit, bias=bias)
    layer, x = make(MiniMixture, config, seed=seed, n_unit=n_unit), randn(2, 3, width, seed=seed).requires_grad_()
    fast, slow = layer(x), naive_mini_mixture(x, layer)
    torch.testing.assert_close(fast, slow)
    wanted, up = [x, *layer.parameters()], randn(*fast.shape, seed=1)
    for a, b in zip(*(torch.autograd.grad(y, wanted, up) for y in (fast, slow)), strict=True):
        torch.testing.assert_close(a, b)


def test_with_gates_at_one_half_it_is_a_swiglu():
    config = GPTConfig(n_embd=6, n_head=1, ffn_dim=12, bias=False)
    mixture, swiglu = make(MiniMixture, config), SwiGLU(config).double()
    mixture.gates.weight.data.zero_()
    swiglu.load_state_dict({name: value for name, value in mixture.state_dict().items() if name != "gates.weight"})
    swiglu.c_proj.weight.data.mul_(0.5)
    x = randn(5, 6, seed=9)
    torch.testing.assert_close(mixture(x), swiglu(x))


def test_flat_units_are_a_swiglu_whose_way_back_is_fixed():
    config = GPTConfig(n_embd=4, n_head=1, ffn_dim=16, bias=False)  # 3·4·16 = 6 units of 2·4·4
    flat, swiglu = make(FlatMixture, config), SwiGLU(GPTConfig(n_embd=4, n_head=1, ffn_dim=24, bias=False)).double()
    assert flat.n_unit == 6
    flat.gates.weight.data.zero_()
    swiglu.c_gate.weight.data.copy_(flat.c_gate.weight)
    swiglu.c_fc.weight.data.copy_(flat.c_fc.weight)
    swiglu.c_proj.weight.data.copy_(0.5 * torch.eye(4).repeat(1, 6))
    x = randn(5, 4, seed=9)
    torch.testing.assert_close(flat(x), swiglu(x))


def test_budgets():
    config = GPTConfig(n_embd=48, n_head=4, ffn_dim=128, bias=False)
    swiglu = sum(p.numel() for p in SwiGLU(config).parameters())
    for made in (MiniMixture(config), FlatMixture(config)):
        assert sum(p.numel() for p in made.parameters()) == swiglu + made.n_unit * 48  # the gates come on top
    default = MiniMixture(GPTConfig(n_embd=48, n_head=4, bias=False), n_unit=5)
    assert default.c_fc.out_features == 125


def test_gates_in_bfloat16_differ_by_what_bfloat16_rounds():
    config = GPTConfig(n_embd=16, n_head=1, ffn_dim=16, bias=False)
    exact, rounded = MiniMixture(config), MiniMixture(config, gate_dtype="bfloat16")
    exact.gates.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    rounded.load_state_dict(exact.state_dict())
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(1))
    gap = (exact.gates(x) - rounded.gates(x)).abs()
    assert 1e-4 < gap.max() < 0.03
    with torch.autocast("cpu", dtype=torch.bfloat16):  # asks for bfloat16 everywhere; the gates keep their own type
        torch.testing.assert_close(exact.gates(x), (x @ exact.gates.weight.T).float().sigmoid(), atol=0.02, rtol=0)
        assert exact.gates(x).dtype == torch.float32
    torch.testing.assert_close(exact.gates(x), torch.sigmoid(x @ exact.gates.weight.T))


@pytest.mark.parametrize(
    ("ffn", "options"), [("mini_mixture", {}), ("mini_mixture", {"gate_dtype": "bfloat16"}), ("flat_mixture", {})]
)
def test_in_its_seat_everything_gets_a_gradient(ffn, options):
    model = build("llama-nano", vocab_size=11, block_size=8, n_layer=1, ffn=ffn, ffn_options=options, seed=0)
    idx = torch.arange(8)[None]
    model.loss(idx, idx + 1).backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_what_cannot_be_is_one_clear_error():
    config = GPTConfig(n_embd=6, n_head=1, ffn_dim=10)
    with pytest.raises(ValueError, match="4 units cannot share a width of 10 evenly"):
        MiniMixture(config)
    with pytest.raises(ValueError, match="unknown gate_dtype 'float16'; known: float32, bfloat16"):
        MiniMixture(config, n_unit=5, gate_dtype="float16")
