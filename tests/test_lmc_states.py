"""Points between models. Run: pytest tests/test_lmc_states.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lmc_models import KINDS, model

from kancourse.lmc import interpolate, soup
from kancourse.lmc_states import as_vector, mix, mix_tensors


def states(kind: str = "gpt2", n: int = 2, **overrides) -> list[dict[str, torch.Tensor]]:
    return [model(kind, seed=seed, **overrides).state_dict() for seed in range(n)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.3, 0.5])
def test_every_number_lies_on_the_line(kind, alpha):
    a, b = states(kind)
    between = interpolate(a, b, alpha)
    assert list(between) == list(a)
    for name in a:
        torch.testing.assert_close(between[name], (1 - alpha) * a[name] + alpha * b[name])


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_are_the_models_themselves(kind):
    a, b = states(kind)
    for alpha, end in ((0.0, a), (1.0, b), (0, a), (1, b)):
        point = interpolate(a, b, alpha)
        assert all(torch.equal(point[name], end[name]) for name in end)
        assert all(point[name].data_ptr() != end[name].data_ptr() for name in end)


@given(st.floats(0, 1), st.integers(0, 5))
def test_a_model_with_itself_stays_exactly_itself(alpha, seed):
    state = {"w": torch.randn(7, generator=torch.Generator().manual_seed(seed))}
    assert torch.equal(interpolate(state, {"w": state["w"].clone()}, alpha)["w"], state["w"])


def test_a_tied_head_is_averaged_once_and_stays_tied():
    a, b = states()
    point = interpolate(a, b, 0.5)
    assert point["lm_head.weight"] is point["wte.weight"]
    loaded = model(seed=9)
    loaded.load_state_dict(point)
    torch.testing.assert_close(loaded.lm_head.weight, (a["wte.weight"] + b["wte.weight"]) / 2)
    copies = interpolate({k: v.clone() for k, v in a.items()}, b, 0.5)  # as they come out of a file
    torch.testing.assert_close(copies["lm_head.weight"], copies["wte.weight"])


def test_buffers_that_have_no_middle():
    a, b = states("kan-ffn")
    masked = torch.tensor([[0.0, -torch.inf], [0.0, 1.0]])
    a["mask"], b["mask"] = masked, masked.clone()
    a["count"], b["count"] = torch.tensor(3), torch.tensor(3)
    point = interpolate(a, b, 0.5)
    assert torch.equal(point["mask"], masked)
    assert torch.equal(point["count"], torch.tensor(3))
    b["count"] = torch.tensor(4)
    with pytest.raises(ValueError, match=r"count holds torch.int64, which has no middle, and differs between A and B"):
        interpolate(a, b, 0.5)


def test_half_width_numbers_are_rounded_once():
    a = {"w": torch.randn(500, generator=torch.Generator().manual_seed(0)).bfloat16()}
    b = {"w": torch.randn(500, generator=torch.Generator().manual_seed(1)).bfloat16()}
    exact = 0.7 * a["w"].double() + 0.3 * b["w"].double()
    assert torch.equal(interpolate(a, b, 0.3)["w"], exact.to(torch.bfloat16))


@pytest.mark.parametrize("alpha", [-0.01, 1.2, float("nan")])
def test_alpha_outside_the_range_that_is_meant(alpha):
    a, b = states()
    with pytest.raises(ValueError, match=r"alpha .* lies outside \[0, 1\]; to go further, pass within=\(low, high\)"):
        interpolate(a, b, alpha)
    with pytest.raises(ValueError, match=r"alpha 0.5 lies outside \[0.6, 0.9\]"):
        interpolate(a, b, 0.5, within=(0.6, 0.9))


def test_beyond_the_models_when_asked():
    a, b = states()
    far = interpolate(a, b, 1.5, within=(-1, 2))
    torch.testing.assert_close(far["wpe.weight"], a["wpe.weight"] + 1.5 * (b["wpe.weight"] - a["wpe.weight"]))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"n_layer": 3}, "A and B are of different architectures: only B has blocks.2"),
        ({"ffn": "swiglu"}, r"different architectures: only B has blocks.0.ffn.c_gate.bias"),
        ({"vocab_size": 19}, r"A and B have different vocabularies: wte.weight is \(17, 8\) in A and \(19, 8\) in B"),
        ({"n_embd": 12}, r"A and B have different sizes: wte.weight is \(17, 8\) in A and \(17, 12\) in B"),
        ({"tie_head": False}, "lm_head.weight and wte.weight are one tensor, but B has two different ones"),
    ],
)
def test_models_that_have_nothing_between_them(other, message):
    a, b = model().state_dict(), model(seed=1, **other).state_dict()
    with pytest.raises(ValueError, match=message):
        interpolate(a, b, 0.5)


def test_other_dtypes_are_refused():
    a, b = model().state_dict(), model(seed=1).double().state_dict()
    with pytest.raises(ValueError, match=r"wte.weight is torch.float32 in A and torch.float64 in B"):
        interpolate(a, b, 0.5)


# --- soups ---


def test_a_soup_is_the_mean():
    a, b, c = states(n=3)
    mean = soup([a, b, c])
    for name in a:
        torch.testing.assert_close(mean[name], (a[name] + b[name] + c[name]) / 3)
    assert all(torch.equal(soup([a])[name], a[name]) for name in a)
    tilted = soup([a, b, c], [0.5, 0.25, 0.25])
    torch.testing.assert_close(tilted["wpe.weight"], a["wpe.weight"] / 2 + (b["wpe.weight"] + c["wpe.weight"]) / 4)


@pytest.mark.parametrize(
    ("n", "weights", "message"),
    [
        (0, None, "0 states need as many weights, at least one"),
        (2, [0.5, 0.25, 0.25], "2 states need as many weights, at least one, got 3"),
        (2, [0.5, 0.6], "sum to 1"),
        (2, [1.5, -0.5], "not negative"),
    ],
)
def test_bad_soups(n, weights, message):
    with pytest.raises(ValueError, match=message):
        soup(states(n=n), weights)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
def test_points_one_above_the_other_are_the_single_points(n_states, n_points, ndim):
    draw = torch.Generator().manual_seed(n_states * 10 + n_points)
    tensors = [torch.randn([3] * ndim, generator=draw) for _ in range(n_states)]
    weights = torch.rand(n_points, n_states, generator=draw, dtype=torch.float64)
    weights = weights / weights.sum(1, keepdim=True)
    points = mix_tensors(tensors, weights)
    assert points.shape == (n_points, *[3] * ndim)
    for point, row in zip(points, weights.tolist(), strict=True):
        assert torch.equal(point, mix([{"w": t} for t in tensors], row)["w"])
        torch.testing.assert_close(point, sum(w * t for w, t in zip(row, tensors, strict=True)))


def test_a_vector_holds_every_parameter_once():
    for kind in ("gpt2", "untied"):
        made = model(kind)
        assert len(as_vector(made.state_dict())) == sum(p.numel() for p in made.parameters())
