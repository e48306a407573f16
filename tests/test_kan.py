"""KAN layers against their formula, and the promises around them. Run: pytest tests/test_kan.py"""

import copy
import itertools
import math
import shutil
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from kancourse import kan_kernel, kan_shared, kan_sparse, kernel_choice
from kancourse.gpt import GPT, GPTConfig
from kancourse.kan import (
    KANFeedForward,
    KANLinear,
    SharedKANLinear,
    edge_curves,
    edge_importance,
    kernel,
    naive_kan_linear,
    naive_shared_kan_linear,
    sparsity_penalty,
    suggest_formulas,
    use_kernel,
)
from kancourse.lab.meters import count_flops, saved_tensor_bytes
from kancourse.lab.microworld import stream
from kancourse.lab.optim import decay_groups
from kancourse.lab.usual_kan import UsualKANLinear
from kancourse.splines import bspline_basis

NAIVE = {KANLinear: naive_kan_linear, SharedKANLinear: naive_shared_kan_linear}
LAYERS = pytest.mark.parametrize("kind", [KANLinear, SharedKANLinear])


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def make(kind: type, *args, seed: int = 0, **options) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = kind(*args, **options)
        for parameter in layer.parameters():  # no zeros that could hide a mistake
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return layer


@pytest.fixture(autouse=True)
def _kernel_as_it_was():
    before = kernel_choice._chosen
    yield
    kernel_choice._chosen = before


# ---------------------------------------------------------------- the formula


def assert_equal_to_naive(layer: nn.Module, x: torch.Tensor, *, atol: float = 1e-10) -> None:
    """Value, and gradients of everything."""
    wanted = (x, *layer.parameters())
    fast, slow = layer(x), NAIVE[type(layer)](x, layer)
    direction = randn(*slow.shape, seed=1, dtype=slow.dtype)
    torch.testing.assert_close(fast, slow, atol=atol, rtol=atol)
    fast_grads = torch.autograd.grad(fast, wanted, direction)
    for a, b in zip(fast_grads, torch.autograd.grad(slow, wanted, direction), strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=atol)


sizes = st.fixed_dictionaries({"grid_size": st.integers(1, 9), "order": st.integers(1, 5), "bias": st.booleans()})


@settings(max_examples=40)
@given(
    options=sizes,
    n=st.integers(0, 70),
    features=st.tuples(st.integers(1, 7), st.integers(1, 6)),
    rows=st.integers(1, 40),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("path", ["in place", "to be compiled"])
@LAYERS
def test_lean_equals_naive_in_value_and_gradients_at_awkward_sizes(kind, path, options, n, features, rows, seed):
    if kind is SharedKANLinear:
        options = options | {"rank": 1 + seed % 3}
    layer = make(kind, *features, **options, seed=seed).double()
    x = (3 * randn(n, features[0], seed=seed, dtype=torch.float64)).requires_grad_()  # a third of it outside the grid
    kernel_choice._chosen = kernel_choice.Kernel("eager" if path == "in place" else "compiled", "a test")
    with (
        mock.patch.object(kan_kernel.Filler, "least_rows", rows),
        mock.patch.object(kan_kernel.Filler, "elements", {"eager": 0, "compiled": 0}),
        mock.patch.object(kan_shared._Bender, "elements", {"eager": 0, "compiled": 0}),
        mock.patch.object(kan_kernel, "compiled", lambda fn: fn),
        mock.patch.object(kan_shared, "compiled", lambda fn: fn),
    ):
        assert_equal_to_naive(layer, x)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # from importing torch's own compiler
@pytest.mark.skipif(kernel_choice.missing_compiler() != "", reason="no compiler on this machine")
def test_the_compiled_kernel_equals_naive():
    assert use_kernel("compiled").name == kernel().name == "compiled"
    layer = make(KANLinear, 5, 4, grid_size=2, order=2, bias=True).double()
    with torch._inductor.config.patch(compile_threads=1):
        for n in (300, 77):  # compiled once for both
            assert_equal_to_naive(layer, (3 * randn(n, 5, dtype=torch.float64)).requires_grad_())


@pytest.fixture
def _sparse(monkeypatch):
    if kan_sparse.sparse_library()[0] is None:
        pytest.skip(kan_sparse.sparse_library()[1])
    monkeypatch.setattr(kan_sparse, "LEAST_TOKENS", 33)
    monkeypatch.setattr(kernel_choice, "_chosen", kernel_choice.Kernel("compiled", "a test"))
    monkeypatch.setattr(kan_kernel.Filler, "planes", lambda *_: pytest.fail("that was the dense product"))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    options=sizes,
    n=st.integers(33, 700),
    features=st.tuples(st.integers(1, 40), st.sampled_from([16, 48, 128, 176, 272])),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@pytest.mark.usefixtures("_sparse")
def test_sparse_loops_equal_naive_in_value_and_gradients_whatever_the_threads(options, n, features, threads, seed):
    layer = make(KANLinear, *features, **options, seed=seed)
    layer.grid_high += torch.linspace(0, 2, features[0])  # a grid per feature
    x = (3 * randn(n, features[0], seed=seed)).requires_grad_()
    with mock.patch.object(torch, "get_num_threads", return_value=threads):
        fast = layer(x)
        grads = torch.autograd.grad(fast.square().sum(), (x, *layer.parameters()))
    double, x = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
    slow = naive_kan_linear(x, double)
    for a, b in zip(
        (fast, *grads), (slow, *torch.autograd.grad(slow.square().sum(), (x, *double.parameters()))), strict=True
    ):
        torch.testing.assert_close(a.double(), b, atol=2e-5 * float(b.detach().abs().max()), rtol=0)


@pytest.mark.usefixtures("_sparse")
def test_sparse_loops_keep_nan_in_its_token_and_give_the_same_bits_with_any_number_of_threads():
    layer, x = make(KANLinear, 20, 32, bias=True), randn(600, 20)
    x[5, 3] = math.nan
    x.requires_grad_()
    results = []
    for threads in (1, 2, 5):
        with mock.patch.object(torch, "get_num_threads", return_value=threads):
            y = layer(x)
            assert y.isnan().any(1).nonzero().flatten().tolist() == [5]
            results.append((y.nan_to_num(0), torch.autograd.grad(y[6:].sum(), x)[0].nan_to_num(0)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_without_a_compiler_for_sparse_loops_the_products_are_dense_and_it_is_said(monkeypatch, tmp_path, caplog):
    fresh = kan_sparse.sparse_library.__wrapped__
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert fresh() == (None, "sparse loops need g++ on the PATH")
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    (tmp_path / "broken").write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    (tmp_path / "broken").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "broken"))
    assert fresh() == (None, f"{tmp_path / 'broken'} cannot build the sparse loops: no such flag")
    monkeypatch.setattr(kan_sparse, "sparse_library", fresh)
    for _ in range(2):
        assert not kan_sparse.fits(torch.zeros(999, 3), torch.zeros(16, 3), 3, torch.float32)
    assert [record.message.partition(": ")[0] for record in caplog.records] == [
        "the compiled KAN kernel multiplies densely"
    ]


def test_inside_the_grid_it_is_the_formula_with_the_literal_basis():
    layer = make(KANLinear, 3, 2, grid_size=4, order=2, grid_range=(-2, 1))
    x = 3 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 2
    basis = bspline_basis(x, grid_size=4, order=2, low=-2, high=1)  # (50, 3, 6)
    formula = F.silu(x) @ layer.base_weight.T + torch.einsum("nig,oig->no", basis, layer.spline_weight)
    torch.testing.assert_close(layer(x), formula)


@pytest.mark.parametrize("order", [1, 2, 3])
@LAYERS
def test_outside_the_grid_splines_go_on_along_their_tangents(kind, order):
    layer = make(kind, 1, 1, order=order, grid_range=(-1, 2)).double()
    layer.base_weight.data.zero_()
    eps = 1e-4
    for end, out in ((-1.0, -1), (2.0, 1)):
        x = end + out * torch.tensor([[-2 * eps], [-eps], [0.0], [1.0], [2.0], [7.0]], dtype=torch.float64)
        further_in, just_in, at, one, two, seven = layer(x)[:, 0].tolist()
        slope = (3 * at - 4 * just_in + further_in) / (2 * eps)  # from the inside, of second order
        assert one - at == pytest.approx(slope, abs=1e-5)
        assert (two - at, seven - at) == pytest.approx((2 * (one - at), 7 * (one - at)), abs=1e-9)


@LAYERS
def test_gradcheck_and_a_clear_refusal_of_second_derivatives(kind):
    layer = make(kind, 3, 2, bias=True).double()
    x = (2 * randn(40, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(layer, x)
    (slope,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once; naive_kan_linear"):
        slope.sum().backward()


@LAYERS
def test_any_leading_shape_and_layout_and_the_same_bits_twice(kind):
    layer = make(kind, 4, 3)
    x = randn(2, 5, 4, 6).transpose(2, 3)  # (2, 5, 6, 4), not contiguous
    y = layer(x)
    assert y.shape == (2, 5, 6, 3)
    assert torch.equal(y, layer(x.contiguous()))
    assert torch.equal(y, layer(x))
    torch.testing.assert_close(y.flatten(0, 2), layer(x.reshape(-1, 4)))
    torch.testing.assert_close(y[0, 0, 0], layer(x[0, 0, 0]))
    assert layer(x[:0]).shape == (0, 5, 6, 3)


@pytest.mark.parametrize("n", [3, 50])
@LAYERS
def test_nan_in_a_token_stays_in_that_token(kind, n):
    layer = make(kind, 4, 3)
    x = randn(n, 4)
    x[1, 2] = math.nan
    y = layer(x)
    assert y.isnan().all(-1).nonzero().flatten().tolist() == [1]
    assert y[[0, *range(2, n)]].isfinite().all()


@LAYERS
def test_autocast_computes_in_bfloat16_and_keeps_the_gradients_precise(kind):
    layer, x = make(kind, 32, 16, bias=True), randn(300, 32).requires_grad_()
    y, direction = layer(x), randn(300, 16, seed=1)
    exact = torch.autograd.grad(y, (x, *layer.parameters()), direction)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.bfloat16
    assert (low - y).norm() / y.norm() < 1e-2
    for a, b in zip(torch.autograd.grad(low, (x, *layer.parameters()), direction.bfloat16()), exact, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() / b.norm() < 1e-2
    assert layer.bfloat16()(x.bfloat16()).isfinite().all()


@LAYERS
def test_one_graph_under_torch_compile(kind):
    layer, x = make(kind, 4, 3, bias=True), randn(50, 4).requires_grad_()
    fast = torch.compile(layer, fullgraph=True, backend="aot_eager")
    direction = randn(50, 3, seed=1)
    torch.testing.assert_close(fast(x), layer(x))
    for a, b in zip(
        torch.autograd.grad(fast(x), x, direction), torch.autograd.grad(layer(x), x, direction), strict=True
    ):
        torch.testing.assert_close(a, b)


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize(("in_features", "out_features"), [(128, 512), (512, 128), (384, 1536)])
def test_kept_bytes_are_a_fiftieth_of_the_usual(in_features, out_features):
    x = randn(256, in_features).requires_grad_()
    usual = UsualKANLinear(in_features, out_features)
    kept = saved_tensor_bytes(lambda: usual(x), ignore=usual)
    for layer in (KANLinear(in_features, out_features), SharedKANLinear(in_features, out_features)):
        assert 50 * saved_tensor_bytes(lambda layer=layer: layer(x), ignore=layer) <= kept


def test_flops_are_those_of_the_products():
    config = GPTConfig(vocab_size=11, block_size=64, n_layer=1, n_head=1, n_embd=8)
    kinds = (nn.Linear, KANLinear, SharedKANLinear)
    dense, kan, shared = (count_flops(GPT(config, linear=kind), 1, 64) for kind in kinds)
    matrices = 2 * 64 * 12 * 8 * 8
    assert kan - dense == 7 * matrices  # 8 products instead of 1: the ninth follows from the others
    assert shared == dense


# ---------------------------------------------------------------- how it starts


@LAYERS
def test_inputs_from_a_normal_distribution_keep_their_variance(kind):
    x = randn(500, 600)
    for options in ({}, {"grid_size": 12, "order": 2, "grid_range": (-1, 1)}):
        torch.manual_seed(0)
        y = kind(600, 300, **options)(x).detach()
        assert float(y.var()) == pytest.approx(1, rel=0.1)


@LAYERS
def test_a_larger_scale_is_a_larger_scale_and_splines_are_visible(kind):
    x, base, spline = randn(1000, 64), [], []
    for scale in (0.1, 0.5, 1.0, 3.0):
        for path, stds in (("base_scale", base), ("spline_scale", spline)):
            torch.manual_seed(0)
            other = "spline_scale" if path == "base_scale" else "base_scale"
            stds.append(float(kind(64, 256, **{path: scale, other: 0.0})(x).detach().std()))
    for stds in (base, spline):
        assert stds == pytest.approx([0.1, 0.5, 1.0, 3.0], rel=0.15)


def test_drawn_again_it_differs_and_the_bias_starts_at_zero():
    layer = KANLinear(3, 2, bias=True)
    before = layer.spline_weight.clone()
    layer.reset_parameters()
    assert not torch.equal(before, layer.spline_weight)
    assert torch.equal(layer.bias, torch.zeros(2))


@LAYERS
def test_scale_output_scales_the_output(kind):
    layer, x = make(kind, 4, 3, bias=True), randn(50, 4)
    before = layer(x)
    layer.scale_output_(0.25)
    torch.testing.assert_close(layer(x), before / 4)


@pytest.mark.parametrize("options", [{}, {"order": 1}, {"order": 2, "grid_size": 1, "grid_range": (0, 5)}])
@LAYERS
def test_from_linear_computes_what_the_matrix_does_everywhere(kind, options):
    linear = nn.Linear(6, 4).double()
    layer = kind.from_linear(linear, **options)
    x = 20 * randn(50, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), linear(x))
    assert kind.from_linear(nn.Linear(6, 4, bias=False)).bias is None


@pytest.mark.parametrize("rank", [1, 3])
@LAYERS
def test_a_layer_of_any_past_becomes_a_matrix_and_everything_in_it_learns(kind, rank):
    layer = make(kind, 6, 4, bias=True, **({"rank": rank} if kind is SharedKANLinear else {}))
    layer.update_grid(randn(100, 6) * torch.arange(1, 7))  # a grid per feature
    weight, bias, x = randn(4, 6), randn(4), 9 * randn(50, 6)
    layer.load_linear_(weight, bias)
    torch.testing.assert_close(layer(x), x @ weight.T + bias, atol=1e-4, rtol=0)
    layer.load_linear_(weight, None)
    torch.testing.assert_close(layer(x), x @ weight.T, atol=1e-4, rtol=0)
    before = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-4)
    for _ in range(2):  # behind a zero in the first step, further functions move in the second
        optimizer.zero_grad()
        (layer(x) - x.abs().sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    moved = {name: parameter != before[name] for name, parameter in layer.named_parameters()}
    for name, changed in moved.items():
        assert changed.any(-1).all(), name  # in every row: every function, every output


def test_a_pruned_layer_takes_a_matrix_only_if_that_has_zeros_where_edges_are_gone():
    layer, weight, keep = make(KANLinear, 3, 2), randn(2, 3), torch.tensor([[True, False, True], [True, True, True]])
    layer.prune(keep)
    before = layer.spline_weight.clone()
    with pytest.raises(ValueError, match=r"1 of 6 edges are pruned for good, but the weight is not 0 on all of them"):
        layer.load_linear_(weight, None)
    assert torch.equal(layer.spline_weight, before)
    layer.load_linear_(weight * keep, None)
    x = randn(20, 3)
    torch.testing.assert_close(layer(x), x @ (weight * keep).T)


@LAYERS
def test_a_matrix_that_does_not_fit_is_refused(kind):
    layer, name = kind(3, 2, bias=True), kind.__name__
    before = [parameter.clone() for parameter in layer.parameters()]
    with pytest.raises(ValueError, match=rf"a weight of shape \(3, 2\) does not fit a {name} of shape \(2, 3\)"):
        layer.load_linear_(torch.ones(3, 2), None)
    with pytest.raises(ValueError, match=rf"a bias of shape \(3,\) does not fit a {name} of shape \(2, 3\)"):
        layer.load_linear_(torch.ones(2, 3), torch.ones(3))
    with pytest.raises(ValueError, match=f"the old layer has a bias and the new {name} has none to take it over"):
        kind(3, 2).load_linear_(torch.ones(2, 3), torch.ones(2))
    assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))


# ---------------------------------------------------------------- changing the grid


def trained(kind: type, dim: int = 3, width: int = 16) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A layer trained a little inside a net, and the activations it sees."""
    torch.manual_seed(0)
    first, second = kind(dim, width), kind(width, 1)
    x = randn(512, dim, seed=3)
    y = torch.sin(2 * x[:, :1]) * x[:, 1:2]
    optimizer = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=1e-2)
    for _ in range(120):
        loss = (second(first(x)) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return second, first(x).detach(), loss.detach()


@LAYERS
def test_refinement_keeps_a_trained_layers_function_everywhere(kind):
    layer, hidden, loss = trained(kind)
    assert loss < 0.2
    assert (hidden.abs() > 3).any()
    before = layer(hidden)
    layer.refine(20)
    assert (layer.grid_size, layer.spline_weight.size(-1)) == (20, 23)
    assert (layer(hidden) - before).norm() / before.norm() < 1e-5
    far = torch.linspace(-50, 50, 16)[None].repeat(2, 1)
    again = copy.deepcopy(layer)
    again.refine(40)
    torch.testing.assert_close(again(far), layer(far), atol=1e-3, rtol=1e-5)
    with pytest.raises(ValueError, match="30 intervals cannot hold a spline on 20 exactly; multiples can: 40, 60, 80"):
        layer.refine(30)


@LAYERS
def test_update_grid_moves_to_the_data_and_keeps_a_trained_layers_function(kind):
    layer, hidden, _ = trained(kind)
    hidden = hidden.view(4, 128, 16)
    before = layer(hidden)
    change = layer.update_grid(hidden)
    assert float(((layer(hidden) - before).norm() / before.norm()).detach()) == pytest.approx(change, rel=1e-4)
    assert 0 < change < 5e-2
    inside = ((hidden >= layer.grid_low) & (hidden <= layer.grid_high)).flatten(0, 1)
    assert (inside.float().mean(0) > 0.97).all()
    assert (layer.grid_high <= hidden.flatten(0, 1).amax(0) * 1.2).all()
    assert_equal_to_naive(layer.double(), hidden.double().flatten(0, 1).requires_grad_())  # with a grid per feature
    before = layer(hidden.double())
    layer.refine(10)
    torch.testing.assert_close(layer(hidden.double()), before)


def test_update_grid_goes_no_further_than_the_change_allows():
    layer, x = make(KANLinear, 3, 2), 6 * randn(300, 3)
    before = copy.deepcopy(layer.state_dict())
    assert 0 < layer.update_grid(x) <= 0.05
    assert 3 < layer.grid_range[1] < 12  # on its way
    layer.load_state_dict(before)
    assert layer.update_grid(x, max_change=0) == 0
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    assert layer.update_grid(x, max_change=math.inf) > 0.05
    assert layer.grid_range[1] > 12


def test_update_grid_survives_constant_features_and_single_tokens():
    layer = make(KANLinear, 3, 2)
    x = randn(200, 3)
    x[:, 1] = 0.7
    assert layer.update_grid(x) < 5e-2
    width = layer.grid_high - layer.grid_low
    assert width[1] == pytest.approx(0.05 * 6, rel=1e-4)
    assert layer.grid_low[1] < 0.7 < layer.grid_high[1]
    assert layer.update_grid(x[:1]) < 5e-2
    assert layer.spline_weight.isfinite().all()


@LAYERS
def test_a_checkpoint_brings_its_own_grid(kind):
    layer, x = make(kind, 3, 2), randn(64, 3)
    layer.refine(10)
    layer.update_grid(0.5 * x)
    fresh = make(kind, 3, 2, seed=1)
    fresh.load_state_dict(layer.state_dict())
    assert fresh.grid_size == 10
    assert torch.equal(fresh(x), layer(x))
    with pytest.raises(RuntimeError, match="size mismatch for spline_weight"):
        make(kind, 4, 2).load_state_dict(layer.state_dict())


# ---------------------------------------------------------------- looking into it


def test_edge_curves_are_the_layer_edge_by_edge():
    layer = make(KANLinear, 3, 2)
    layer.update_grid(randn(100, 3) * torch.tensor([1.0, 2.0, 0.5]))
    x, y = edge_curves(layer, 41)
    assert (x.shape, y.shape) == ((3, 41), (2, 3, 41))
    assert (x[:, 0] < layer.grid_low).all()
    assert (x[:, -1] > layer.grid_high).all()
    torch.testing.assert_close(y.sum(1), layer(x.T).T)
    for i in range(3):
        torch.testing.assert_close(only(layer, slice(None), i)(x.T).T, y[:, i])


def only(layer: KANLinear, o: int | slice, i: int | slice) -> KANLinear:
    """A copy with these edges alone."""
    layer, keep = copy.deepcopy(layer), torch.zeros(layer.out_features, layer.in_features, dtype=torch.bool)
    keep[o, i] = True
    layer.prune(keep)
    return layer


def test_importance_is_the_standard_deviation_of_the_edges_output():
    layer, x = make(KANLinear, 3, 2), randn(2, 50, 3)
    importance = edge_importance(layer, x)
    for o in range(2):
        for i in range(3):
            alone = only(layer, o, i)(x)[..., o].detach()
            assert float(alone.std(correction=0)) == pytest.approx(float(importance[o, i]), rel=1e-4)


def test_pruned_edges_are_silent_stay_so_in_training_and_survive_a_checkpoint():
    layer, x = make(KANLinear, 4, 3), randn(64, 4)
    importance = edge_importance(layer, x)
    keep = importance > importance.median()
    layer.prune(keep)
    assert_equal_to_naive(layer, x.requires_grad_(), atol=1e-4)
    x.requires_grad_(False)
    assert ((edge_importance(layer, x) > 0) == keep).all()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    for _ in range(3):
        layer(x).square().mean().backward()
        optimizer.step()
    assert (edge_importance(layer, x)[~keep] == 0).all()
    fresh = make(KANLinear, 4, 3, seed=1)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(x), layer(x))
    layer.prune(torch.zeros(3, 4, dtype=torch.bool))
    assert torch.equal(layer(x), torch.zeros(64, 3))


def test_the_sparsity_penalty_is_finite_at_zero_and_prefers_few_edges():
    layer = make(KANLinear, 4, 3)
    layer.base_weight.data[0, 0], layer.spline_weight.data[0, 0] = 0, 0
    for _ in range(2):
        penalty = sparsity_penalty(layer)
        grads = torch.autograd.grad(penalty, list(layer.parameters()))
        assert penalty.isfinite()
        assert all(grad.isfinite().all() for grad in grads)
        for parameter in layer.parameters():
            parameter.data.zero_()
    assert sparsity_penalty(layer) == 0
    layer.base_weight.data[:2, 0] = 1.0
    assert float(sparsity_penalty(layer).detach()) == pytest.approx(2 + math.log(2))
    layer.base_weight.data[:2, 0] = torch.tensor([2.0, 0.0])
    assert float(sparsity_penalty(layer, entropy=5.0).detach()) == pytest.approx(2)


FORMULAS = {
    "x": (lambda x: 3 * x - 1, 1, 0),
    "x²": (lambda x: 2 * (x - 1.3) ** 2 + 1, 1, -1.3),
    "|x|": (lambda x: 2 * (x - 1).abs() + 1, 1, -1),
    "x³": (lambda x: (x - 1) ** 3, 1, -1),
    "sqrt": (lambda x: torch.sqrt(x) - 2, 1, 0),
    "exp": (lambda x: 0.3 * torch.exp(-1.2 * x) + 2, -1.2, 0),
    "log": (lambda x: 3 * torch.log(x + 0.5), 1, 0.5),
    "1/x": (lambda x: 2 / x, 1, 0),
    "sin": (lambda x: 2 * torch.sin(3 * x + 1) - 0.5, 3, 1),
    "tanh": (lambda x: torch.tanh(2 * x - 3), 2, -3),
    "arctan": (lambda x: torch.arctan(3 * x - 4), 3, -4),
    "gauss": (lambda x: torch.exp(-((2 * x - 3) ** 2)), 2, -3),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_known_formula_is_recovered_with_its_constants(name):
    fn, b, c = FORMULAS[name]
    x = torch.linspace(0.3, 3, 61, dtype=torch.float64)
    best = suggest_formulas(x, fn(x), top=1)[0]
    assert best.name == name
    assert best.r2 > 1 - 1e-9
    assert (best.b, best.c) == pytest.approx((b, c), abs=1e-3)
    torch.testing.assert_close(best(x), fn(x), atol=1e-4, rtol=1e-4)


def test_a_formula_is_recovered_from_a_trained_layers_edge():
    torch.manual_seed(0)
    layer, x = KANLinear(2, 1), 2.5 * (2 * torch.rand(512, 2, generator=torch.Generator().manual_seed(0)) - 1)
    y = torch.sin(2 * x[:, :1]) + 0.5 * x[:, 1:] ** 2
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (layer(x) - y).square().mean().backward()
        optimizer.step()
    points, curves = edge_curves(layer, margin=-0.1)  # where there was data
    wave, bowl = (suggest_formulas(points[i], curves[0, i])[0] for i in (0, 1))
    assert (wave.name, bowl.name) == ("sin", "x²")
    assert wave.b == pytest.approx(2, rel=0.05)
    assert str(bowl).startswith(f"{bowl.a:.4g}·(1·x")
    assert suggest_formulas(points[0], 0 * points[0] + 3)[0](torch.zeros(1)) == 3


# ---------------------------------------------------------------- its place in a GPT


@pytest.mark.parametrize("linear", [KANLinear, SharedKANLinear])
def test_a_gpt_of_kan_layers_trains_and_decodes(linear):
    config = GPTConfig(vocab_size=13, block_size=12, n_layer=2, n_head=2, n_embd=16, ffn_dim=24)
    torch.manual_seed(0)
    model = GPT(config, linear=linear, ffn=KANFeedForward)
    assert (model.blocks[0].ffn.c_fc.out_features, model.blocks[0].ffn.c_proj.in_features) == (24, 24)
    idx = torch.randint(13, (4, 12), generator=torch.Generator().manual_seed(0))
    first, state = model.step(idx[:, :5])
    rest, _ = model.step(idx[:, 5:], state)
    torch.testing.assert_close(torch.cat((first, rest), 1), model(idx), atol=1e-4, rtol=1e-4)
    before, optimizer = model.loss(idx, idx).detach(), torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        loss = model.loss(idx, idx)
        loss.backward()
        optimizer.step()
    assert loss < 0.7 * before


def test_the_feed_forward_has_the_mlps_shape_and_residual_projections_start_small():
    config = GPTConfig(n_layer=8, n_embd=64, n_head=2)
    torch.manual_seed(0)
    ffn = GPT(config, ffn=KANFeedForward).blocks[0].ffn
    assert ffn.c_fc.out_features == 4 * 64
    y = ffn.c_proj(randn(500, 256)).detach()
    assert float(y.std()) == pytest.approx(1 / math.sqrt(2 * 8), rel=0.1)
    assert KANFeedForward(config, nn.Linear, grid_size=7).c_fc.grid_size == 7


def test_every_number_decays_once():
    full, shared = KANLinear(3, 2, bias=True), SharedKANLinear(3, 2, rank=2, bias=True)
    names = {id(p): name for layer in (full, shared) for name, p in layer.named_parameters()}
    groups = [[names[id(p)] for p in group["params"]] for layer in (full, shared) for group in decay_groups(layer, 0.1)]
    assert groups == [["base_weight", "spline_weight"], ["bias"], ["weight"], ["base_weight", "spline_weight", "bias"]]


def test_parameters_are_counted():
    assert sum(p.numel() for p in KANLinear(7, 5, bias=True).parameters()) == 7 * 5 * 9 + 5
    assert sum(p.numel() for p in SharedKANLinear(128, 512).parameters()) == 128 * 512 + 128 * 9  # 2% more


# ---------------------------------------------------------------- the kernel, and mistakes


def test_the_kernel_is_chosen_once_said_and_set(monkeypatch):
    kernel_choice._chosen = None
    monkeypatch.delenv("KANCOURSE_KERNEL", raising=False)
    assert kernel().name == "eager"
    assert "default" in kernel().reason
    kernel_choice._chosen = None
    monkeypatch.setenv("KANCOURSE_KERNEL", "auto")
    monkeypatch.setattr(kernel_choice, "missing_compiler", lambda: "none of g++ is on the PATH")
    assert (kernel().name, kernel().reason) == ("eager", "none of g++ is on the PATH")
    with pytest.raises(RuntimeError, match=r"needs a compiler, but none of g\+\+ is on the PATH"):
        use_kernel("compiled")
    monkeypatch.setattr(kernel_choice, "missing_compiler", lambda: "")
    assert kernel().name == "eager"  # once
    assert use_kernel("auto").name == kernel().name == "compiled"
    assert use_kernel("eager").reason == "asked for"
    with pytest.raises(ValueError, match="unknown kernel 'fast'; known: eager, compiled, auto"):
        use_kernel("fast")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: KANLinear(0, 3), "in_features must be at least 1, got 0"),
        (lambda: KANLinear(3, 0), "out_features must be at least 1, got 0"),
        (lambda: KANLinear(3, 3, grid_size=0), "grid_size must be at least 1, got 0"),
        (lambda: KANLinear(3, 3, order=0), "order must be at least 1, got 0"),
        (lambda: KANLinear(3, 3, grid_range=(1, -1)), "from a low to a higher finite number, got low=1, high=-1"),
        (lambda: KANLinear(3, 3, grid_range=(math.nan, 1)), "got low=nan, high=1"),
        (lambda: KANLinear(3, 3, spline_scale=-1.0), "scales cannot be negative, got .*spline_scale=-1.0"),
        (lambda: SharedKANLinear(3, 3, rank=0), "out_features and rank must be at least 1, got 3 and 0"),
        (
            lambda: KANLinear(3, 2)(torch.zeros(5, 4)),
            r"KANLinear takes 3 features on the last axis, got shape \(5, 4\)",
        ),
        (lambda: SharedKANLinear(3, 2)(torch.zeros(4)), r"takes 3 features on the last axis, got shape \(4,\)"),
        (lambda: KANLinear(3, 2).update_grid(torch.full((5, 3), math.nan)), "finite numbers, got nan or infinity"),
        (lambda: KANLinear(3, 2).update_grid(torch.zeros(0, 3)), r"at least one token, got shape \(0, 3\)"),
        (lambda: KANLinear(3, 2).prune(torch.ones(3, 2, dtype=torch.bool)), r"boolean mask of shape \(2, 3\), got"),
        (lambda: KANLinear(3, 2).prune(torch.ones(2, 3)), r"boolean mask of shape \(2, 3\), got torch.float32"),
        (lambda: edge_curves(KANLinear(3, 2), 1), "at least 2 points, got n_points=1"),
        (lambda: suggest_formulas(torch.zeros(9), torch.zeros(9)), "5 points or more"),
        (lambda: suggest_formulas(torch.arange(9.0), torch.full((9,), math.nan)), "NaN or infinity; leave"),
    ],
)
def test_each_mistake_gets_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_another_dtype_is_refused():
    with pytest.raises(TypeError, match=r"KANLinear has weights of torch.float32, got an input of torch.float64"):
        KANLinear(3, 2)(torch.zeros(5, 3, dtype=torch.float64))


# ---------------------------------------------------------------- on a language model that has learned


@pytest.fixture(scope="module")
def language_model() -> tuple[GPT, torch.Tensor]:
    """A small KAN-GPT trained for a few seconds on microworld's text, and text it has not seen."""
    text = "\n".join(document.text for document in itertools.islice(stream(0), 400))
    letters = sorted(set(text))
    data = torch.tensor([letters.index(letter) for letter in text])
    windows = data[: len(data) // 32 * 32].view(-1, 32)
    held_out, windows = windows[-64:], windows[:-64]
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=len(letters), block_size=32, n_layer=2, n_head=2, n_embd=16), linear=KANLinear)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for batch in windows.split(16)[:100]:
        optimizer.zero_grad()
        model.loss(batch[:, :-1], batch[:, 1:]).backward()
        optimizer.step()
    shares = held_out.flatten().bincount() / held_out.numel()
    with torch.no_grad():  # it knows more than how often each letter comes
        assert model.eval().loss(held_out[:, :-1], held_out[:, 1:]) < torch.special.entr(shares).sum() - 0.2
    return model, held_out


@pytest.mark.parametrize(("change", "tolerance"), [("refine", 1e-5), ("update_grid", 5e-2)])
def test_in_a_trained_language_model_a_new_grid_keeps_every_layers_function(language_model, change, tolerance):
    model, held_out = copy.deepcopy(language_model[0]), language_model[1]
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, KANLinear)}
    arrived: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, args, name=name: arrived.__setitem__(name, args[0]))
    with torch.no_grad():
        loss = model.loss(held_out[:, :-1], held_out[:, 1:])
        inputs = dict(arrived)
        for name, layer in layers.items():
            before = layer(inputs[name])
            layer.refine(10) if change == "refine" else layer.update_grid(inputs[name])
            assert (layer(inputs[name]) - before).norm() <= tolerance * before.norm(), name
        after = model.loss(held_out[:, :-1], held_out[:, 1:])
    assert abs(after - loss) <= tolerance * loss
    assert len(layers) == 8
    if change == "update_grid":
        assert sum(layer.grid_range != (-3.0, 3.0) for layer in layers.values()) >= 6  # they did move
