"""Ternary layers against their formula, bit by bit, and the traps around them. Run: pytest tests/test_bitnet.py"""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kancourse.bit_codes import LEAST
from kancourse.bitnet import (
    MAX_IN_FEATURES,
    BinaryLinear,
    BitLinear,
    absmax_quantize,
    binary_quantize,
    bit_input_codes,
    bit_product,
    is_ternary,
    naive_bit_linear,
    ordered_sum_,
    ternary_quantize,
    zero_fraction,
)
from kancourse.gpt import GPT, GPTConfig
from kancourse.lab.meters import count_flops, saved_tensor_bytes
from kancourse.lab.optim import decay_groups
from kancourse.lab.probes import PROBES

LAYERS = pytest.mark.parametrize("kind", [BitLinear, BinaryLinear])
sizes = st.tuples(st.integers(1, 70), st.integers(1, 9))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(kind: type = BitLinear, *shape: int, seed: int = 0) -> BitLinear:
    layer = kind(*shape)
    with torch.no_grad():
        layer.weight.copy_(randn(*layer.weight.shape, seed=seed))
        layer.norm_weight.copy_(1 + 0.3 * randn(shape[0], seed=seed + 1))
    return layer


# ---------------------------------------------------------------- codes


@given(n=st.integers(0, 5), size=st.integers(1, 300), seed=st.integers(0, 99))
def test_input_codes_are_the_formula(n, size, seed):
    x = 3 * randn(n, size, seed=seed)
    codes, scale = absmax_quantize(x)
    assert codes.dtype == torch.int8
    assert scale.shape == (n, 1)
    assert codes.abs().max(-1).values.tolist() == [127] * n  # the largest of each token, and nothing beyond
    assert ((codes * scale - x).abs() <= 0.5001 * scale).all()
    torch.testing.assert_close(scale, x.abs().amax(-1, keepdim=True) / 127)


@given(shape=sizes, factor=st.sampled_from([1e-3, 1.0, 50.0]), seed=st.integers(0, 99))
def test_weight_codes_are_the_formula(shape, factor, seed):
    w = factor * randn(*shape, seed=seed)
    codes, scale = ternary_quantize(w)
    mean = w.abs().double().mean()
    torch.testing.assert_close(scale.double(), mean, rtol=1e-6, atol=0)
    clear = (w.abs().double() / mean - 0.5).abs() > 1e-6  # not on the edge between 0 and 1
    expected = torch.where(w.abs() > 0.5 * mean, w.sign(), 0)
    assert codes.dtype == torch.int8
    assert torch.equal(codes[clear].float(), expected[clear])


@given(shape=sizes, seed=st.integers(0, 99))
def test_binary_codes_are_the_formula(shape, seed):
    w = randn(*shape, seed=seed) + 0.5
    codes, scale = binary_quantize(w)
    clear = (w - w.mean()).abs() > 1e-6
    assert set(codes.flatten().tolist()) <= {-1, 1}
    assert torch.equal(codes[clear].float(), (w - w.mean()).sign()[clear])
    torch.testing.assert_close(scale, w.abs().mean())


@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 400)), seed=st.integers(0, 99))
def test_the_ordered_sum_is_a_sum_in_the_order_that_is_said(shape, seed):
    x = randn(*shape, seed=seed)
    total = ordered_sum_(x.clone())
    torch.testing.assert_close(total.double(), x.double().sum(-1, keepdim=True), rtol=1e-5, atol=1e-4)
    for row, got in zip(x, total, strict=True):
        numbers = [number.item() for number in row]
        while len(numbers) > 1:
            half = math.ceil(len(numbers) / 2)
            rest = numbers[half:] + [0.0] * (2 * half - len(numbers))
            numbers = [
                torch.tensor(a + b, dtype=torch.float32).item() for a, b in zip(numbers[:half], rest, strict=True)
            ]
        assert got.item() == numbers[0]


def test_no_bit_depends_on_threads_or_on_the_other_tokens():
    x, w, gain = randn(64, 1000), randn(1200, 1000, seed=1), randn(1000, seed=2)
    before = torch.get_num_threads()
    codes, scales = zip(*(bit_input_codes(token, gain) for token in x), strict=True)
    alone = (*ternary_quantize(w), torch.stack(codes), torch.stack(scales))
    try:
        torch.set_num_threads(2)
        together = (*ternary_quantize(w), *bit_input_codes(x, gain))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


def test_input_codes_follow_the_documented_order_of_operations_to_the_bit():
    """As a kernel in another language would: one float32 operation at a time, in NumPy."""
    f = np.float32
    for size in (1, 7, 64, 1000):
        x, gain = (5 * randn(3, size, seed=size)).numpy(), (1 + randn(size, seed=1)).numpy()
        total = (x * x).astype(f)
        while total.shape[-1] > 1:
            half = (total.shape[-1] + 1) // 2
            total[..., : total.shape[-1] - half] += total[..., half:]
            total = total[..., :half]
        r = f(1) / np.sqrt(total * f(1 / size) + f(1e-5))
        z = (x * r) * gain
        largest = np.maximum(np.abs(z).max(-1, keepdims=True), f(LEAST))
        expected = np.rint(z * ((f(1) / largest) * f(127)))
        codes, scale = bit_input_codes(torch.from_numpy(x), torch.from_numpy(gain))
        assert (codes.numpy() == expected).all()
        assert (scale.numpy() == largest * f(1 / 127)).all()


@pytest.mark.parametrize("quantize", [absmax_quantize, ternary_quantize, binary_quantize])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_no_code_can_say_is_refused(quantize, bad):
    x = randn(3, 4)
    x[1, 2] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantize(x)


@pytest.mark.parametrize("quantize", [absmax_quantize, ternary_quantize])
def test_zeros_stay_zeros(quantize):
    codes, scale = quantize(torch.zeros(3, 4))
    assert not codes.any()
    assert scale.isfinite().all()


# ---------------------------------------------------------------- the layer


@settings(max_examples=40)
@given(shape=sizes, lead=st.sampled_from([(), (0,), (5,), (2, 3)]), seed=st.integers(0, 99))
@LAYERS
def test_it_equals_the_straight_through_graph_in_value_and_gradients(kind, shape, lead, seed):
    layer = make(kind, *shape, seed=seed)
    x = (2 * randn(*lead, shape[0], seed=seed + 2)).requires_grad_()
    wanted = (x, layer.weight, layer.norm_weight)
    fast, slow = layer(x), naive_bit_linear(x, layer)
    direction = randn(*slow.shape, seed=seed + 3)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)
    gradients = zip(
        torch.autograd.grad(fast, wanted, direction), torch.autograd.grad(slow, wanted, direction), strict=True
    )
    for a, b in gradients:
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@given(shape=st.tuples(st.integers(1, 300), st.integers(1, 9)), n=st.integers(1, 6), seed=st.integers(0, 99))
@LAYERS
def test_it_equals_integer_arithmetic_to_the_last_bit(kind, shape, n, seed):
    layer, x = make(kind, *shape, seed=seed), 3 * randn(n, shape[0], seed=seed + 2)
    (codes, scale), (weight_codes, weight_scale) = (
        bit_input_codes(x, layer.norm_weight, layer.eps),
        layer.weight_codes(),
    )
    integers = (codes.long()[:, None] * weight_codes.long()).sum(-1)  # (N, O)
    assert torch.equal(layer(x), integers.float() * (scale * weight_scale))
    assert torch.equal(layer(x), bit_product(codes, scale, weight_codes, weight_scale))


def test_sums_are_exact_up_to_the_largest_width_and_wider_is_refused():
    assert 127 * MAX_IN_FEATURES < 2**24
    codes = torch.full((1, MAX_IN_FEATURES), 127, dtype=torch.int8)
    ones = torch.ones(1, MAX_IN_FEATURES, dtype=torch.int8)
    total = bit_product(codes, torch.ones(1, 1), ones, torch.tensor(1.0))
    assert total.item() == 127 * MAX_IN_FEATURES
    with pytest.raises(ValueError, match=f"up to in_features {MAX_IN_FEATURES}, got {MAX_IN_FEATURES + 1}"):
        BitLinear(MAX_IN_FEATURES + 1, 1)


def test_the_gradient_reaches_clipped_and_zeroed_weights_alike():
    layer, x = make(BitLinear, 6, 1), randn(4, 6)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.01, 1.0, -1.0, 9.0, -9.0]]))  # zeroed, kept, clipped
    layer(x).sum().backward()
    codes, scale = bit_input_codes(x, layer.norm_weight)
    torch.testing.assert_close(layer.weight.grad[0], (codes * scale).sum(0))


@LAYERS
def test_a_token_neither_sees_nor_feels_another(kind):
    layer, x = make(kind, 8, 5), randn(2, 6, 8)
    louder = x.clone()
    louder[:, 4:] *= 100
    assert torch.equal(layer(x)[:, :4], layer(louder)[:, :4])
    assert torch.equal(layer(x)[1, 3], layer(x[1, 3]))


def test_nan_and_infinity_stay_in_their_token():
    layer, x = make(BitLinear, 8, 5), randn(4, 8)
    clean = layer(x)
    x[1, 2], x[3, 0] = math.nan, -math.inf
    y = layer(x)
    assert y[[1, 3]].isnan().all()
    assert torch.equal(y[[0, 2]], clean[[0, 2]])
    with torch.no_grad():
        layer.weight[0, 0] = math.nan
    assert layer(randn(4, 8)).isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_around_it_changes_no_integer(dtype):
    layer, x = make(BitLinear, 300, 7), randn(5, 300)
    expected = layer(x)
    with torch.autocast("cpu", dtype=dtype):
        y = layer(x)
        y.sum().backward()
    assert torch.equal(y, expected)
    assert layer.weight.grad.dtype == torch.float32
    low = layer(x.to(dtype))
    assert low.dtype == dtype
    assert torch.equal(low, layer(x.to(dtype).float()).to(dtype))


def test_faster_products_of_floats_change_no_integer():
    layer, x = make(BitLinear, 300, 7), randn(5, 300)
    expected, before = layer(x), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")  # factors may be rounded to bfloat16, which has room for ±127
        assert torch.equal(layer(x), expected)
    finally:
        torch.set_float32_matmul_precision(before)


def test_it_keeps_its_input_and_its_codes_and_nothing_else_of_that_size():
    layer, x = make(BitLinear, 64, 32), randn(500, 64).requires_grad_()
    kept = saved_tensor_bytes(lambda: layer(x), ignore=layer)
    assert kept <= x.numel() * (4 + 1) + 500 * 8 + layer.weight.numel() + 100


# ---------------------------------------------------------------- traps


def test_rounding_twice_shrinks_by_the_share_that_is_not_zero():
    w = randn(40, 50)
    codes, scale = ternary_quantize(w)
    again, smaller = ternary_quantize(codes * scale)
    assert torch.equal(codes, again)
    torch.testing.assert_close(smaller / scale, (codes != 0).float().mean())


@LAYERS
def test_saving_and_loading_rounds_nothing_and_ternary_weights_are_refused(kind):
    layer, x = make(kind, 12, 7), randn(5, 12)
    fresh = kind(12, 7)
    fresh.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert torch.equal(fresh(x), layer(x))
    state = layer.state_dict()
    codes, scale = ternary_quantize(layer.weight)
    state["weight"] = codes * scale
    with pytest.raises(ValueError, match="ternary already"):
        fresh.load_state_dict(state)
    assert torch.equal(fresh(x), layer(x))


@given(shape=st.tuples(st.integers(2, 20), st.integers(2, 20)), seed=st.integers(0, 99))
def test_ternary_matrices_are_told_from_latent_ones(shape, seed):
    w = randn(*shape, seed=seed)
    codes, scale = ternary_quantize(w)
    assert not is_ternary(w)
    assert is_ternary(codes * scale) == bool((codes == 0).any())
    assert not is_ternary(torch.zeros(*shape))


def test_fused_matrices_share_their_scale():
    quiet, loud = randn(8, 16), 10 * randn(8, 16, seed=1)
    fused, _ = ternary_quantize(torch.cat((quiet, loud)))
    assert (fused[:8] == 0).float().mean() > 0.9  # the quiet one has all but disappeared
    assert (ternary_quantize(quiet)[0] == 0).float().mean() < 0.5


def test_a_third_of_a_gaussian_matrix_is_zeros():
    layer = make(BitLinear, 500, 400)
    expected = math.erf(0.5 * math.sqrt(2 / math.pi) / math.sqrt(2))  # P(|w| < E|w|/2) = 0.310
    assert abs(zero_fraction(nn.Sequential(layer)) - expected) < 0.005
    with pytest.raises(ValueError, match="no BitLinear layers"):
        zero_fraction(nn.Linear(2, 2))


def test_new_layers_answer_with_the_variance_that_is_said():
    for size in (16, 400):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = BitLinear(size, 500)
        variance = layer(randn(200, size, seed=1)).var().item()
        assert abs(variance - 0.69 * 2 / math.pi) < 0.05


def test_scaling_the_output_moves_the_scale_and_no_code():
    layer, x = make(BitLinear, 12, 7), randn(5, 12)
    before, codes = layer(x), layer.weight_codes()[0]
    layer.scale_output_(0.25)
    assert torch.equal(layer.weight_codes()[0], codes)
    torch.testing.assert_close(layer(x), 0.25 * before)
    layer.scale_output_(0.0)
    assert not layer(x).any()


# ---------------------------------------------------------------- in a model


def test_it_makes_every_matrix_of_a_gpt_and_decodes_like_it_trains():
    config = GPTConfig(vocab_size=11, block_size=16, n_layer=2, n_head=2, n_embd=12, bias=False)
    model = GPT(config, linear=BitLinear).eval()
    layers = [module for module in model.modules() if isinstance(module, BitLinear)]
    assert len(layers) == 2 * 4
    scales = {name: m.weight_codes()[1].item() for name, m in model.named_modules() if isinstance(m, BitLinear)}
    assert scales["blocks.0.mixer.c_proj"] < 0.75 * scales["blocks.0.mixer.c_attn"]  # quieter where it is added up
    idx = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(0))
    logits, state = model.step(idx[:, :5])
    pieces = [logits]
    for t in range(5, 9):
        logits, state = model.step(idx[:, t : t + 1], state)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(idx), atol=1e-4, rtol=1e-4)
    dense = GPT(config)
    assert count_flops(model, 1, 16) == count_flops(dense, 1, 16)


def test_latent_weights_decay_and_gains_do_not():
    layer = BitLinear(4, 3)
    decay, rest = (group["params"] for group in decay_groups(layer, 0.1))
    assert [p is layer.weight for p in decay] == [True]
    assert [p is layer.norm_weight for p in rest] == [True]


def test_it_learns_a_ternary_matrix():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randint(-1, 2, (4, 16), generator=generator).float()
    x = torch.randn(512, 16, generator=generator)
    target = F.rms_norm(x, (16,)) @ hidden.T
    layer = BitLinear(16, 4)
    with torch.no_grad():
        layer.weight.copy_(0.02 * randn(4, 16))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 300)
        optimizer.zero_grad()
        F.mse_loss(layer(x), target).backward()
        optimizer.step()
    assert torch.equal(layer.weight_codes()[0].float(), hidden)
    assert F.mse_loss(layer(x), target) < 1e-3 * target.square().mean()


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BitLinear(3, 2, bias=True), "BitLinear has no bias.*bias=False"),
        (lambda: BinaryLinear(3, 2, True), "BinaryLinear has no bias"),
        (lambda: BitLinear(0, 2), "sizes of at least 1, got 0 → 2"),
        (lambda: BitLinear(3, 2)(torch.zeros(4, 5)), r"takes 3 features on the last axis, got shape \(4, 5\)"),
        (lambda: BitLinear(3, 2)(torch.tensor(1.0)), r"takes 3 features on the last axis, got shape \(\)"),
    ],
)
def test_wrong_input_ends_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"floating-point numbers, got torch\.int64"):
        BitLinear(3, 2)(torch.zeros(4, 3, dtype=torch.long))


def test_the_probe_counts_zeros_layer_by_layer():
    model = nn.Sequential(make(BitLinear, 8, 6), make(BinaryLinear, 6, 8), nn.Linear(8, 2))
    told = PROBES["ternary_zeros"](model, None, 0)
    assert told["by_layer"].keys() == {"0", "1"}
    assert told["by_layer"]["0"] == (model[0].weight_codes()[0] == 0).double().mean()
    assert told["by_layer"]["1"] == 0
    assert told["zeros"] == told["by_layer"]["0"] / 2
