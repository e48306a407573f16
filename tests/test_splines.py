"""Splines against the recursion, scipy, and their laws. Run: pytest tests/test_splines.py"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from kancourse.splines import (
    bspline_basis,
    bspline_derivative,
    evaluate_spline,
    fit_spline,
    naive_bspline_basis,
    refine_coefficients,
    uniform_knots,
)

grids = st.fixed_dictionaries(
    {
        "grid_size": st.integers(1, 12),
        "order": st.integers(1, 7),
        "low": st.floats(-5, 0),
        "high": st.floats(0.1, 5),
    }
)


def points(n: int, low: float, high: float, *, reach: float = 0.0, seed: int = 0) -> torch.Tensor:
    width = high - low
    generator = torch.Generator().manual_seed(seed)
    return low - reach * width + (1 + 2 * reach) * width * torch.rand(n, generator=generator, dtype=torch.float64)


def knots_of(grid: dict) -> torch.Tensor:
    return uniform_knots(**grid, dtype=torch.float64)


@given(grid=grids, seed=st.integers(0, 99))
def test_closed_form_equals_the_recursion_and_scipy(grid, seed):
    knots, order = knots_of(grid), grid["order"]
    x = points(40, grid["low"], grid["high"], reach=0.3, seed=seed)
    inside = x.clamp(float(knots[0]), float(knots[-1]))
    design = BSpline(knots.numpy(), np.eye(grid["grid_size"] + order), order, extrapolate=False)
    for pts in (inside, torch.tensor([grid["low"], grid["high"]], dtype=torch.float64)):
        fast = bspline_basis(pts, **grid)
        torch.testing.assert_close(fast, naive_bspline_basis(pts, knots, order), atol=1e-12, rtol=0)
        # scipy's basis functions are polynomial pieces on [t_k, t_-k-1]; outside it answers NaN
        here = (pts >= knots[order]) & (pts <= knots[-order - 1])
        torch.testing.assert_close(fast[here], torch.from_numpy(design(pts[here].numpy())), atol=1e-12, rtol=0)
    assert fast.shape == (2, grid["grid_size"] + order)


@given(grid=grids, m=st.integers(0, 100))
def test_each_bump_equals_scipys_basis_element_over_its_whole_support(grid, m):
    knots, order = knots_of(grid), grid["order"]
    m %= grid["grid_size"] + order
    element = BSpline.basis_element(knots[m : m + order + 2].numpy(), extrapolate=False)
    x = points(50, float(knots[m]), float(knots[m + order + 1]), seed=m)
    value, slope = bspline_basis(x, **grid)[:, m], bspline_derivative(x, **grid)[:, m]
    h = (grid["high"] - grid["low"]) / grid["grid_size"]
    torch.testing.assert_close(value, torch.from_numpy(element(x.numpy())), atol=1e-12, rtol=0)
    torch.testing.assert_close(slope * h, torch.from_numpy(element.derivative()(x.numpy())) * h, atol=1e-12, rtol=0)


@given(grid=grids, seed=st.integers(0, 99))
def test_the_bumps_sum_to_one_on_the_grid_ends_included_and_vanish_outside_their_support(grid, seed):
    knots, order = knots_of(grid), grid["order"]
    low, high = grid["low"], grid["high"]
    ends = torch.tensor([low, high], dtype=torch.float64)
    inside = torch.cat((ends, points(30, low, high, seed=seed)))
    torch.testing.assert_close(bspline_basis(inside, **grid).sum(-1), torch.ones(32, dtype=torch.float64))
    basis = bspline_basis(inside, **grid)
    assert (basis >= -1e-15).all()
    away = 1e-9 * (high - low)
    outside = (inside[:, None] < knots[: -order - 1] - away) | (inside[:, None] > knots[order + 1 :] + away)
    assert (basis[outside] == 0).all()  # exactly
    far = torch.tensor(
        [float(knots[0]) - away, float(knots[-1]) + away, 1e30, -math.inf, math.inf], dtype=torch.float64
    )
    assert (bspline_basis(far, **grid) == 0).all()


@given(grid=grids, seed=st.integers(0, 99))
def test_autograd_agrees_with_the_derivative(grid, seed):
    x = points(20, grid["low"], grid["high"], reach=0.5, seed=seed).requires_grad_()
    direction = torch.randn(
        20, grid["grid_size"] + grid["order"], generator=torch.Generator().manual_seed(seed)
    ).double()
    (by_autograd,) = torch.autograd.grad((bspline_basis(x, **grid) * direction).sum(), x)
    torch.testing.assert_close(by_autograd, (bspline_derivative(x.detach(), **grid) * direction).sum(-1))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_gradcheck(order):
    x = points(7, -1, 1, reach=0.8, seed=order).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: bspline_basis(x, grid_size=4, order=order), x)
    if order >= 3:  # below, the second derivative jumps
        assert torch.autograd.gradgradcheck(lambda x: bspline_basis(x, grid_size=4, order=order), x)


def test_any_leading_shape_contiguous_or_not_and_empty():
    x = points(24, -1, 1)
    flat = bspline_basis(x)
    assert torch.equal(bspline_basis(x.view(2, 3, 4)), flat.view(2, 3, 4, 8))
    assert torch.equal(bspline_basis(x.view(4, 6).T), flat.view(4, 6, 8).transpose(0, 1))
    assert bspline_basis(x[0]).shape == (8,)
    assert bspline_basis(x[:0]).shape == (0, 8)
    assert torch.equal(bspline_basis(x), flat)  # the same bits twice


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_float32_answer_rounded_once(dtype):
    x = torch.linspace(-4, 4, 201).to(dtype)
    basis = bspline_basis(x, low=-3, high=3)
    assert basis.dtype == dtype
    assert torch.equal(basis, bspline_basis(x.float(), low=-3, high=3).to(dtype))
    exact = bspline_basis(x.double(), low=-3, high=3)
    torch.testing.assert_close(basis.double(), exact, atol=torch.finfo(dtype).eps, rtol=0)


def test_nan_touches_its_own_element_only():
    x = torch.tensor([0.3, math.nan, -0.2])
    for answer in (
        bspline_basis(x),
        bspline_derivative(x),
        bspline_derivative(x, order=1),
        naive_bspline_basis(x, uniform_knots(), 3),
    ):
        assert answer.isnan().all(-1).tolist() == [False, True, False]
        assert answer[[0, 2]].isfinite().all()


def test_one_graph_under_torch_compile():
    fast = torch.compile(bspline_basis, fullgraph=True, backend="aot_eager")
    x = torch.linspace(-2, 2, 33, requires_grad=True)
    torch.testing.assert_close(fast(x), bspline_basis(x))
    fast(x).square().sum().backward()
    by_compiled, x.grad = x.grad, None
    bspline_basis(x).square().sum().backward()
    torch.testing.assert_close(by_compiled, x.grad)


def test_repeated_knots_interpolate_the_ends():
    knots = torch.tensor([0, 0, 0, 0, 1, 2, 2, 2, 2], dtype=torch.float64)
    x = torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    basis = naive_bspline_basis(x, knots, 3)
    assert torch.equal(basis[0], torch.eye(5, dtype=torch.float64)[0])
    assert torch.equal(basis[3], torch.eye(5, dtype=torch.float64)[4])  # the last interval contains its right end
    torch.testing.assert_close(basis, torch.from_numpy(BSpline.design_matrix(x.numpy(), knots.numpy(), 3).toarray()))


def test_the_recursion_takes_a_grid_per_feature():
    knots = torch.stack((uniform_knots(), uniform_knots(low=-3, high=1)))  # (2, n_knots)
    x = torch.tensor([[0.1, 0.2], [-0.5, -2.0], [0.9, 0.9]])  # (3, 2)
    basis = naive_bspline_basis(x, knots, 3)
    torch.testing.assert_close(basis[:, 0], bspline_basis(x[:, 0]))
    torch.testing.assert_close(basis[:, 1], bspline_basis(x[:, 1], low=-3, high=1))


@given(grid=grids, seed=st.integers(0, 99))
def test_a_fit_recovers_a_spline_and_is_the_nearest_one_to_anything_else(grid, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(grid["low"], grid["high"], 200, dtype=torch.float64)
    options = {"order": grid["order"], "low": grid["low"], "high": grid["high"]}
    truth = torch.randn(2, 3, grid["grid_size"] + grid["order"], generator=generator, dtype=torch.float64)
    fitted = fit_spline(x, evaluate_spline(x, truth, **options), **grid)
    torch.testing.assert_close(fitted, truth, atol=1e-6, rtol=0)
    noise = torch.randn(200, generator=generator, dtype=torch.float64)
    residual = noise - evaluate_spline(x, fit_spline(x, noise, **grid), **options)
    torch.testing.assert_close(
        residual @ bspline_basis(x, **grid), torch.zeros(fitted.size(-1)).double(), atol=1e-8, rtol=0
    )


def test_a_fit_to_too_little_data_is_finite_small_and_still_goes_through_it():
    x, y = torch.tensor([0.1, 0.1, 0.2]), torch.tensor([1.0, 1.0, 2.0])
    coefficients = fit_spline(x, y)
    torch.testing.assert_close(evaluate_spline(x, coefficients), y, atol=1e-5, rtol=0)
    assert coefficients.abs().max() < 20
    assert torch.equal(fit_spline(x + 100, y), torch.zeros(8))


def test_the_error_of_a_fit_falls_with_the_power_order_plus_one():
    x = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    y = torch.sin(4 * x)
    for order in (1, 2, 3, 4):
        errors = [
            (evaluate_spline(x, fit_spline(x, y, grid_size=G, order=order), order=order) - y).square().mean().sqrt()
            for G in (16, 32)
        ]
        assert math.log2(errors[0] / errors[1]) == pytest.approx(order + 1, abs=0.25)


@given(grid=grids, factor=st.integers(1, 6), seed=st.integers(0, 99))
def test_refinement_is_exact(grid, factor, seed):
    grid_size, order = grid["grid_size"], grid["order"]
    options = {"order": order, "low": grid["low"], "high": grid["high"]}
    coefficients = torch.randn(2, 3, grid_size + order, generator=torch.Generator().manual_seed(seed)).double()
    fine = refine_coefficients(coefficients, grid_size=grid_size, new_grid_size=factor * grid_size, order=order)
    assert fine.shape == (2, 3, factor * grid_size + order)
    x = torch.linspace(grid["low"], grid["high"], 101, dtype=torch.float64)
    torch.testing.assert_close(
        evaluate_spline(x, fine, **options), evaluate_spline(x, coefficients, **options), atol=1e-12, rtol=0
    )


def test_the_cubic_halving_rule():
    row = refine_coefficients(torch.eye(8)[3], grid_size=5, new_grid_size=10)
    assert row.tolist() == [0, 0, 0, 0.125, 0.5, 0.75, 0.5, 0.125, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bspline_basis(torch.zeros(1), grid_size=0), "grid_size must be at least 1, got 0"),
        (lambda: bspline_basis(torch.zeros(1), order=0), "order must be at least 1, got 0"),
        (lambda: bspline_basis(torch.zeros(1), low=1, high=-1), "from a low to a higher finite number, got low=1"),
        (lambda: bspline_basis(torch.zeros(1), low=math.nan), "higher finite number, got low=nan, high=1.0"),
        (lambda: bspline_derivative(torch.zeros(1), high=-1.0), "got low=-1.0, high=-1.0"),
        (lambda: uniform_knots(order=0), "order must be at least 1, got 0"),
        (lambda: naive_bspline_basis(torch.zeros(1), torch.arange(4.0), 3), "order 3 with 4 knots"),
        (lambda: fit_spline(torch.zeros(3), torch.zeros(4)), r"shapes \(3,\) and \(4,\)"),
        (lambda: fit_spline(torch.full((9,), math.nan), torch.zeros(9)), "NaN or infinity; drop"),
        (
            lambda: refine_coefficients(torch.zeros(8), grid_size=5, new_grid_size=12),
            "12 intervals cannot hold a spline on 5 exactly; multiples can: 10, 15, 20",
        ),
        (
            lambda: refine_coefficients(torch.zeros(9), grid_size=5, new_grid_size=10),
            "9 coefficients are not those of 5",
        ),
    ],
)
def test_each_mistake_gets_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"floating-point numbers, got torch.int64; call .float\(\) first"):
        bspline_basis(torch.arange(3))
