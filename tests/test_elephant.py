"""The elephant: its formula and identities, numbers that stay finite, and its place in a feed-forward."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from kancourse.elephant import (
    Elephant,
    ElephantGLU,
    GatedFeedForward,
    SwiGLU,
    XElephant,
    XElephantGLU,
    elephant,
    elephant_slope,
    naive_elephant,
    spread_bias,
)
from kancourse.gpt import GPTConfig
from kancourse.lab.meters import saved_tensor_bytes
from kancourse.lmc_path import naive_loss_path, score_points
from kancourse.zoo import FFNS, build

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
widths, steepness = st.floats(0.05, 20), st.sampled_from([1.5, 2, 3, 4, 5.3, 8, 12, 16, 31])
CONFIG = GPTConfig(n_embd=12, n_head=1, bias=False)


def far_and_near(dtype: torch.dtype) -> Tensor:
    """From −10,000 to 10,000, closely around 0, 0 itself, and numbers next to it."""
    near = torch.linspace(-6, 6, 1201)
    return torch.cat((torch.linspace(-1e4, 1e4, 801), near, 1e-3 * near, 1e-30 * near, torch.zeros(1))).to(dtype)


def gradient(fn: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = fn(x)
    return y.detach(), torch.autograd.grad(y.sum(), x)[0]


# --- the function ---


@given(widths, steepness, st.integers(0, 2**30))
def test_it_is_its_formula_and_so_is_its_gradient(a: float, d: float, seed: int) -> None:
    x = 3 * a * torch.randn(40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = gradient(lambda x: naive_elephant(x, a, d), x)
    for got, want in zip(gradient(lambda x: elephant(x, a, d), x), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(elephant_slope(x, a, d), expected[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(elephant(x, torch.tensor(a, dtype=torch.float64), d), expected[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("a", [1e-3, 0.08, 1.0, 50.0])
@pytest.mark.parametrize("d", [1.5, 4.0, 8.0, 32.0])
def test_values_and_gradients_are_finite_and_right_in_every_dtype(dtype: torch.dtype, a: float, d: float) -> None:
    x = far_and_near(dtype)
    exact = x.double()
    learned = Elephant(a=a, d=d, learnable=True)
    learned.log_width.data = torch.tensor(a, dtype=torch.promote_types(dtype, torch.float32)).log()
    for made in (lambda x: elephant(x, a, d), learned):
        y, slope = gradient(made, x)
        assert y.dtype == slope.dtype == dtype
        assert bool(torch.cat((y, slope)).isfinite().all())
        tolerance = 4 * d * torch.finfo(dtype).eps
        torch.testing.assert_close(y.double(), elephant(exact, a, d), rtol=8 * tolerance, atol=tolerance)
        steepest = float(elephant_slope(exact, a, d).abs().max())
        wanted = elephant_slope(exact, a, d).clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max)
        torch.testing.assert_close(slope.double(), wanted, rtol=tolerance, atol=tolerance * steepest)


def test_the_formula_as_it_stands_has_no_gradient_in_half_precision() -> None:
    _, slope = gradient(naive_elephant, torch.tensor([0.5, 3.6, 3.63, 4.1, 100.0], dtype=torch.float16))
    assert slope.isnan().tolist() == [False, False, True, True, True]


def test_infinities_and_nan() -> None:
    y, slope = gradient(elephant, torch.tensor([math.inf, -math.inf, 0.0, math.nan]))
    assert y[:3].tolist() == [0, 0, 1]
    assert slope[:3].tolist() == [0, 0, 0]
    assert torch.stack((y[3], slope[3])).isnan().all()


@pytest.mark.parametrize("d", [2.0, 5.3, 8.0])
def test_first_and_second_derivatives(d: float) -> None:
    x = torch.tensor([-1.7, -0.6, 0.3, 0.98, 1.4, 9.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: elephant(x, 0.8, d), x)
    assert torch.autograd.gradgradcheck(lambda x: elephant(x, 0.8, d), x)


# torch loads what it needs for forward mode by a call that it has itself declared outdated
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_it_works_under_torch_func() -> None:
    x = torch.randn(5, 4, dtype=torch.float64)
    one = torch.func.vmap(torch.func.grad(lambda row: elephant(row).sum()))(x)
    torch.testing.assert_close(one, elephant_slope(x))
    _, tangent = torch.func.jvp(elephant, (x,), (torch.full_like(x, 2.0),))
    torch.testing.assert_close(tangent, 2 * elephant_slope(x))
    second = torch.func.hessian(lambda row: elephant(row).sum())(x[0])
    torch.testing.assert_close(second, torch.autograd.functional.hessian(lambda row: naive_elephant(row).sum(), x[0]))


@given(widths, steepness)
def test_identities(a: float, d: float) -> None:
    x = torch.linspace(-4 * a, 4 * a, 801, dtype=torch.float64)
    x = x[x != 0]
    torch.testing.assert_close(elephant(x, a, d), torch.sigmoid(-d * (x / a).abs().log()), rtol=1e-9, atol=1e-12)
    at = torch.tensor([a, -a], dtype=torch.float64)
    torch.testing.assert_close(elephant(at, a, d), torch.full_like(at, 0.5))
    torch.testing.assert_close(elephant_slope(at, a, d), torch.tensor([-d / (4 * a), d / (4 * a)], dtype=torch.float64))
    steepest = a * ((d - 1) / (d + 1)) ** (1 / d)
    there = elephant_slope(torch.tensor([steepest], dtype=torch.float64), a, d).abs()
    around = elephant_slope(torch.linspace(0, 3 * a, 3001, dtype=torch.float64), a, d).abs()
    assert float(there) >= float(around.max()) - 1e-12
    if d == 8:
        assert float(there) * a == pytest.approx(2.031579, abs=1e-6)


@pytest.mark.parametrize("d", [4.0, 8.0])
def test_its_area(d: float) -> None:
    x = torch.linspace(-400, 400, 800_001, dtype=torch.float64)
    area = float(torch.trapezoid(elephant(x, 1.5, d), x))
    assert area == pytest.approx(2 * 1.5 * (math.pi / d) / math.sin(math.pi / d), abs=1e-4)


def test_x_times_the_elephant_peaks_where_it_should() -> None:
    x = torch.linspace(0, 3, 300_001, dtype=torch.float64)
    y, slope = gradient(XElephant(), x)
    assert float(slope[0]) == 1
    best = int(y.argmax())
    assert float(x[best]) == pytest.approx((1 / 7) ** (1 / 8), abs=1e-4)
    assert float(y[best]) == pytest.approx(0.686074, abs=1e-6)


def test_sparse_in_value_and_in_slope() -> None:
    x = torch.linspace(-50, 50, 100_001, dtype=torch.float64)
    assert float((elephant(x) <= 0.01).double().mean()) == pytest.approx(0.9645, abs=1e-3)
    assert float((elephant_slope(x).abs() <= 0.01).double().mean()) == pytest.approx(0.9657, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((torch.ones(2), 0.0), ValueError, "width a must be above 0 and finite, got 0.0"),
        ((torch.ones(2), -1.0), ValueError, "width a must be above 0"),
        ((torch.ones(2), math.inf), ValueError, "width a must be above 0 and finite, got inf"),
        ((torch.ones(2), 1.0, 1.0), ValueError, "steepness d must be above 1 and finite, got 1.0"),
        ((torch.ones(2), 1.0, math.nan), ValueError, "steepness d must be above 1 and finite, got nan"),
        ((torch.ones(2, dtype=torch.long),), TypeError, "floating-point numbers, got torch.int64"),
    ],
)
def test_bad_input(arguments: tuple, error: type[Exception], says: str) -> None:
    for function in (elephant, elephant_slope):
        with pytest.raises(error, match=says.replace(".", r"\.")):
            function(*arguments)


def test_spread_biases() -> None:
    bias = spread_bias(1001, 0.7)
    assert float(bias.mean()) == pytest.approx(0, abs=1e-6)
    assert float(bias.std()) == pytest.approx(0.7, abs=2e-3)
    assert float(bias.diff().std()) < 1e-6


# --- as layers ---


def test_a_learned_width_and_height_have_gradients_of_their_own() -> None:
    layer = Elephant(3, a=0.5, d=4, learnable=True).double()
    assert float(layer.log_width.detach().exp()[0]) == pytest.approx(0.5)
    x = torch.randn(7, 3, dtype=torch.float64)

    def at(log_width: Tensor, log_height: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"log_width": log_width, "log_height": log_height}, (x,))

    start = [p.detach().clone().requires_grad_() for p in (layer.log_width, layer.log_height + 0.3)]
    assert torch.autograd.gradcheck(at, start)
    assert {name: (*p.shape,) for name, p in Elephant(learnable=True).named_parameters()} == {
        "log_width": (),
        "log_height": (),
    }
    assert not list(Elephant(3).parameters())


@pytest.mark.parametrize(("name", "gate"), [("swiglu", nn.SiLU()), ("glu", nn.Sigmoid()), ("bilinear", nn.Identity())])
def test_a_gated_feed_forward_with_other_gates(name: str, gate: nn.Module) -> None:
    torch.manual_seed(0)
    made, swiglu = FFNS[name](CONFIG, nn.Linear), SwiGLU(CONFIG)
    made.load_state_dict(swiglu.state_dict())
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(made(x), swiglu.c_proj(gate(swiglu.c_gate(x)) * swiglu.c_fc(x)))
    torch.testing.assert_close(GatedFeedForward(CONFIG, gate=lambda hidden: gate).gate(x), gate(x))


@pytest.mark.parametrize(("kind", "power"), [(ElephantGLU, 0), (XElephantGLU, 1)])
@pytest.mark.parametrize("learnable", [False, True])
def test_the_elephants_gates(kind: type[GatedFeedForward], power: int, learnable: bool) -> None:
    torch.manual_seed(0)
    layer = kind(CONFIG, nn.Linear, a=0.3, d=6, learnable=learnable)
    x = 3 * torch.randn(2, 5, 12)
    z = layer.c_gate(x)
    torch.testing.assert_close(layer(x), layer.c_proj(z**power * naive_elephant(z, 0.3, 6) * layer.c_fc(x)))
    assert sum(p.numel() for p in kind(CONFIG).parameters()) == sum(p.numel() for p in SwiGLU(CONFIG).parameters())


def test_it_keeps_no_more_for_the_backward_pass_than_swiglu() -> None:
    x = torch.randn(64, 12)
    kept = [
        saved_tensor_bytes(lambda part=part: part(x).sum(), ignore=part)
        for part in (ElephantGLU(CONFIG), SwiGLU(CONFIG))
    ]
    assert kept[0] == kept[1]


def test_the_gate_is_open_at_the_start_and_a_narrow_one_is_not() -> None:
    """The trap of the source's setting: no gate to begin with, and hardly a gradient that would make one."""
    moved = {}
    for a in (1.0, 0.139):  # 0.02·√48
        model = build("llama-nano", vocab_size=64, ffn="elephant", ffn_options={"a": a}, seed=0)
        ffn, heard = model.blocks[0].ffn, []
        ffn.gate.register_forward_hook(lambda module, args, out, heard=heard: heard.append((args[0], out)))
        idx = torch.randint(64, (4, 64), generator=torch.Generator().manual_seed(0))
        model.loss(idx, idx.roll(-1, 1)).backward()
        z, gate = (tensor.detach() for tensor in heard[0])
        assert float(z.std()) == pytest.approx(0.02 * math.sqrt(48), rel=0.1)
        moved[a] = float(ffn.c_gate.weight.grad.norm() / ffn.c_fc.weight.grad.norm())
        assert (float((1 - gate).abs().max()) < 0.05) if a == 1 else (0.4 < float(gate.mean()) < 0.75)
    assert moved[1.0] < 0.01 * moved[0.139]


def test_models_with_elephants_build_step_and_say_what_is_wrong() -> None:
    for name in ("elephant", "x_elephant", "bilinear", "glu"):
        model = build("llama-nano", vocab_size=20, ffn=name, seed=0).eval()
        idx = torch.randint(20, (2, 9))
        whole = model(idx)
        first, state = model.step(idx[:, :4])
        rest, _ = model.step(idx[:, 4:], state)
        torch.testing.assert_close(torch.cat((first, rest), 1), whole, rtol=1e-4, atol=1e-5)
    learned = build("llama-nano", vocab_size=20, ffn="elephant", ffn_options={"learnable": True})
    assert learned.blocks[0].ffn.gate.log_width.shape == (128,)
    with pytest.raises(ValueError, match="ffn 'elephant' has no option 'width'; known: a, d, learnable"):
        build("llama-nano", ffn="elephant", ffn_options={"width": 2})
    with pytest.raises(ValueError, match="steepness d must be above 1"):
        build("llama-nano", ffn="elephant", ffn_options={"d": 0.5})


@pytest.mark.parametrize("learnable", [False, True])
def test_models_on_a_path_are_scored_at_once(learnable: bool) -> None:
    options = {"a": 0.2, "learnable": learnable}
    models = [build("llama-nano", vocab_size=20, ffn="elephant", ffn_options=options, seed=seed) for seed in (0, 1)]
    a, b = (model.state_dict() for model in models)
    idx = torch.randint(20, (2, 9), generator=torch.Generator().manual_seed(0))
    alphas = [0.0, 0.3, 1.0]
    weights = torch.tensor([[1 - alpha, alpha] for alpha in alphas])
    together = score_points(models[0], [a, b], weights, [(idx, idx)], chunk_size=3)
    torch.testing.assert_close(together.loss.float(), naive_loss_path(models[0], a, b, alphas, [(idx, idx)]).float())
