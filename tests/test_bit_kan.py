"""The KAN layer with ternary coefficients against its formula, bit by bit. Run: pytest tests/test_bit_kan.py"""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from kancourse.bit_kan import BitKAN, BitKANFeedForward, kan_input_codes, kan_table, naive_bit_kan
from kancourse.bit_kan_codes import N_CODES
from kancourse.gpt import GPT, GPTConfig
from kancourse.lab.meters import count_flops, saved_tensor_bytes
from kancourse.lab.optim import decay_groups
from kancourse.splines import bspline_basis, bspline_derivative
from kancourse.zoo import build

grids = st.tuples(st.integers(1, 9), st.integers(1, 4), st.sampled_from([0.7, 3.0, 4.5]))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(inputs: int, outputs: int, seed: int = 0, **options) -> BitKAN:
    """A layer as training leaves it: scales that are not one."""
    layer = BitKAN(inputs, outputs, **options)
    with torch.no_grad():
        layer.weight.copy_(randn(*layer.weight.shape, seed=seed))
        layer.norm_weight.copy_(1 + 0.3 * randn(inputs, seed=seed + 1))
        layer.row_scale.copy_(1 + 0.3 * randn(outputs, seed=seed + 2))
    return layer


# ---------------------------------------------------------------- codes and table


@given(grid=grids)
def test_the_table_holds_every_function_at_every_code_to_half_a_unit(grid):
    size, order, reach = grid
    codes, slopes, unit = kan_table(size, order, reach)
    x = torch.arange(-127, 128, dtype=torch.float64) * reach / 127
    basis = bspline_basis(x, grid_size=size, order=order, low=-reach, high=reach)
    expected = torch.cat((F.silu(x)[:, None], basis), dim=1)
    assert codes.dtype == torch.int8
    assert codes.shape == slopes.shape == (N_CODES, 1 + size + order)
    assert ((codes * unit - expected).abs() <= 0.5001 * unit).all()
    assert codes.abs().max() == 127
    inner = slice(1, -1)
    at = x[inner].clone().requires_grad_()
    (silu_slope,) = torch.autograd.grad(F.silu(at).sum(), at)
    knots = (x[inner, None] - torch.linspace(-reach, reach, size + 1, dtype=torch.float64)).abs().amin(-1) < 1e-9
    smooth = ~knots if order == 1 else torch.ones_like(knots)  # a corner has two slopes
    exact = bspline_derivative(x[inner], grid_size=size, order=order, low=-reach, high=reach)
    torch.testing.assert_close(slopes[inner, 0].double(), silu_slope, atol=1e-6, rtol=0)
    torch.testing.assert_close(slopes[inner, 1:][smooth].double(), exact[smooth], atol=1e-5, rtol=1e-5)
    assert (slopes[[0, -1]] == 0).all()


def test_codes_are_of_fixed_places_whatever_else_is_in_the_token():
    x = torch.tensor([[0.5, -1.0, 2.0, 40.0], [0.5, -1.0, 2.0, 0.1]])
    norm = (x * x).mean(-1, keepdim=True).sqrt()
    codes, finite = kan_input_codes(x / norm, torch.ones(4), 3.0, eps=0.0)
    assert finite.all()
    torch.testing.assert_close(codes.float() * 3 / 127, (x / norm).clamp(-3, 3), atol=1.5 / 127, rtol=0)
    codes, finite = kan_input_codes(torch.tensor([[1.0, math.nan], [math.inf, 1.0], [0.0, 0.0]]), torch.ones(2), 3.0)
    assert finite.flatten().tolist() == [False, False, True]
    assert codes[2].tolist() == [0, 0]


# ---------------------------------------------------------------- the layer


@given(inputs=st.integers(1, 40), outputs=st.integers(1, 9), n=st.integers(0, 7), grid=grids, seed=st.integers(0, 99))
def test_values_are_the_formula_edge_by_edge(inputs, outputs, n, grid, seed):
    size, order, reach = grid
    layer = make(inputs, outputs, seed, grid_size=size, order=order, reach=reach)
    x = 2 * randn(n, inputs, seed=seed + 5)
    expected = naive_bit_kan(x.double(), layer)
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-5, rtol=1e-5)


@given(inputs=st.integers(2, 40), outputs=st.integers(1, 9), grid=grids, seed=st.integers(0, 99))
def test_gradients_are_those_of_the_formula(inputs, outputs, grid, seed):
    size, order, reach = grid
    layer = make(inputs, outputs, seed, grid_size=size, order=max(2, order), reach=reach)
    x, into = 2 * randn(5, inputs, seed=seed + 5), randn(5, outputs, seed=seed + 6)
    wide = x.double().requires_grad_()
    x.requires_grad_()
    found = torch.autograd.grad(layer(x), [x, *layer.parameters()], into)
    expected = torch.autograd.grad(naive_bit_kan(wide, layer), [wide, *layer.parameters()], into.double())
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b.float(), atol=2e-4 * max(1.0, float(b.abs().max())), rtol=1e-3)


def test_many_tokens_have_the_gradients_of_few():
    layer, x, into = make(6, 4), randn(700, 6), randn(700, 4, seed=1)
    whole = torch.autograd.grad(layer(x), layer.parameters(), into)
    pieces = [
        torch.autograd.grad(layer(a), layer.parameters(), b) for a, b in zip(x.split(90), into.split(90), strict=True)
    ]
    for a, b in zip(whole, zip(*pieces, strict=True), strict=True):
        torch.testing.assert_close(a, sum(b), atol=1e-3, rtol=1e-4)


def test_the_product_is_one_of_integers_and_one_factor_per_output():
    layer, x = make(50, 7), randn(33, 50)
    codes, _ = kan_input_codes(x, layer.norm_weight, layer.reach, layer.eps)
    features = layer.table().codes[codes.long() + 127].flatten(1).long()  # (33, 50·6)
    weight, scale = layer.weight_codes()
    assert set(weight.unique().tolist()) == {-1, 0, 1}
    sums = features @ weight.flatten(1).long().T
    assert torch.equal(layer(x), sums.float() * layer.output_scale())
    assert torch.equal(layer.output_scale(), scale * layer.table().unit * layer.row_scale)


def test_a_token_says_the_same_alone_and_in_a_crowd_and_poison_stays_with_its_token():
    layer, x = make(31, 5), randn(3, 20, 31)
    y = layer(x)
    assert all(torch.equal(layer(x[b, t]), y[b, t]) for b in range(3) for t in range(20))
    for bad in (math.nan, math.inf, -math.inf):
        poisoned = x.clone()
        poisoned[1, 4, 7] = bad
        found = layer(poisoned)
        assert found[1, 4].isnan().all()
        found[1, 4] = y[1, 4]
        assert torch.equal(found, y)


def test_a_coefficient_matters_only_where_its_function_does():
    layer = make(1, 1, grid_size=6, order=2, reach=3.0)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.norm_weight.fill_(1.0)
        other = copy.deepcopy(layer)
        other.weight[
            0, 0, 3
        ] = -1.0  # the second B-spline lives on [-3, -1), the third on [-3, 0): intervals are one wide
    x = torch.linspace(-2.9, 2.9, 59)
    # One input is always normalised to ±1, so the layer is asked through its gain.
    changed = []
    for value in x.tolist():
        for twin in (layer, other):
            twin.norm_weight.data.fill_(value)
        changed.append(not torch.equal(layer(torch.ones(1, 1)), other(torch.ones(1, 1))))
    where = x[torch.tensor(changed)]
    assert where.min() < -2.8
    assert -0.35 < where.max() < 0.0


def test_first_weights_keep_what_their_table_says():
    torch.manual_seed(0)
    layer = BitKAN(300, 64)
    x = randn(500, 300)
    features = layer.table().codes[kan_input_codes(x, layer.norm_weight, 3.0)[0].long() + 127] * layer.table().unit
    power = 300 * features.square().sum(-1).mean()
    assert layer.weight.std().item() == pytest.approx(float(power) ** -0.5, rel=0.02)
    assert layer(x).square().mean().item() == pytest.approx(0.44, rel=0.15)
    assert (layer.row_scale == 1).all()
    assert (layer.norm_weight == 1).all()


def test_gpt_makes_what_writes_to_the_stream_small():
    sizes = {"n_layer": 8, "n_embd": 16, "n_head": 2, "ffn_dim": 12, "vocab_size": 20, "bias": False}
    torch.manual_seed(0)
    model = GPT(GPTConfig(**sizes), ffn=BitKANFeedForward)
    ffn, x = model.blocks[0].ffn, randn(400, 16)
    alone = BitKAN(12, 16)
    ratio = ffn.c_proj.weight.std() / alone.weight.std()
    assert ratio.item() == pytest.approx(0.25, rel=0.1)
    before = ffn.c_fc(x)
    ffn.c_fc.scale_output_(3.0)
    torch.testing.assert_close(ffn.c_fc(x), 3 * before)


def test_it_learns_functions_that_no_matrix_holds():
    """y = x² and the like of normalised inputs: a ternary matrix can do nothing with them, a ternary KAN much."""
    x = randn(400, 8)
    z = F.rms_norm(x, (8,))
    target = torch.stack(((z[:, :4] ** 2).sum(1), torch.cos(2 * z).sum(1)), dim=1)
    target = (target - target.mean(0)) / target.std(0)
    losses = {}
    for name, last in (("kan", partial(BitKAN, grid_size=6)), ("line", torch.nn.Linear)):
        torch.manual_seed(0)
        model = torch.nn.Sequential(last(8, 2)) if name == "line" else torch.nn.Sequential(last(8, 32), last(32, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(120):
            optimizer.zero_grad()
            loss = F.mse_loss(model(z), target)
            loss.backward()
            optimizer.step()
        losses[name] = loss.item()
    assert losses["line"] > 0.95
    assert losses["kan"] < 0.4


# ---------------------------------------------------------------- around it


def test_autocast_and_casts_do_not_touch_the_codes():
    layer, x = make(24, 5), randn(9, 24)
    y = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), y)
    half = copy.deepcopy(layer).to(torch.bfloat16)
    assert half(x.bfloat16()).dtype == torch.bfloat16
    assert half.values.dtype == half.slopes.dtype == torch.float32
    assert torch.equal(half.to(torch.float32).values, layer.values)


def test_a_checkpoint_holds_latent_weights_and_nothing_that_the_config_says():
    layer = make(5, 3)
    assert set(layer.state_dict()) == {"weight", "row_scale", "norm_weight"}
    rounded = layer.state_dict() | {"weight": torch.stack([layer.weight_codes()[0].float() * 0.3] * 1)[0]}
    with pytest.raises(ValueError, match="ternary already"):
        layer.load_state_dict(rounded)
    with torch.device("meta"):
        ghost = BitKAN(5, 3, grid_size=7)
    assert ghost.weight.is_meta
    assert kan_table(7, 2, 3.0).codes.device.type == "cpu"  # what was made beside a ghost is none


def test_coefficients_decay_and_scales_do_not():
    decay, no_decay = decay_groups(torch.nn.Sequential(make(5, 3)), 0.1)
    assert [p.shape for p in decay["params"]] == [(3, 5, 6)]
    assert sorted(len(p) for p in no_decay["params"]) == [3, 5]


def test_work_and_memory_are_counted():
    model = build("mixkabrn-tiny", n_layer=1, vocab_size=20)
    assert count_flops(model, 1, 16) > 2 * 16 * 3 * model.blocks[0].ffn.experts[0].c_fc.weight.numel()
    layer, x = make(64, 64), randn(100, 64).requires_grad_()
    kept = saved_tensor_bytes(lambda: layer(x), ignore=layer)
    assert kept < 100 * 64 * 4 * 4 + layer.weight.numel() + 4 * 255 * 2 * 6 + 10_000  # no features among it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bias": True}, "BitKAN has no bias"),
        ({"in_features": 0}, "BitKAN needs sizes of at least 1, got 0 → 3"),
        ({"grid_size": 0}, "grid_size must be at least 1"),
        ({"order": 0}, "order must be at least 1"),
        ({"reach": -1.0}, "the grid must run from a low to a higher finite number"),
        ({"in_features": 22018}, "BitKAN on this grid sums exactly up to in_features 22017, got 22018"),
    ],
)
def test_what_cannot_be_is_one_clear_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        BitKAN(**{"in_features": 4, "out_features": 3} | arguments)


def test_inputs_that_do_not_fit_are_named():
    layer = make(4, 3)
    with pytest.raises(ValueError, match=r"BitKAN takes 4 features on the last axis, got shape \(2, 5\)"):
        layer(randn(2, 5))
    with pytest.raises(TypeError, match=r"BitKAN takes floating-point numbers, got torch.int64"):
        layer(torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="BitKAN has no bias"):
        build("gpt-nano", ffn="bit_kan")


def test_the_feed_forward_has_an_mlps_weights():
    config = GPTConfig(n_embd=60, bias=False)
    ffn = BitKANFeedForward(config)
    assert ffn.c_fc.weight.numel() == ffn.c_proj.weight.numel() == 60 * 4 * 60
    assert BitKANFeedForward(config, grid_size=6, order=3).c_fc.out_features == 24
    assert ffn(randn(2, 3, 60)).shape == (2, 3, 60)
