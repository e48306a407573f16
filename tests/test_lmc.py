"""Barriers, and the bands around them. Run: pytest tests/test_lmc.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lmc_models import batches, model

from kancourse.lmc import PathScores, bootstrap_barrier, error_barrier, score_path

LOSSES = st.lists(st.floats(-5, 20), min_size=2, max_size=12)


def test_both_definitions_by_hand():
    barrier = error_barrier([0.0, 0.25, 0.5, 0.75, 1.0], [1.0, 2.0, 4.0, 4.5, 3.0])
    assert barrier.frankle == pytest.approx(4.5 - 2.0)  # over the mean of the ends
    assert barrier.frankle_alpha == 0.75
    assert barrier.linear == pytest.approx(2.0)  # 4.0 over the line's 2.0, 4.5 over its 2.5
    assert barrier.linear_alpha == 0.5
    assert barrier.dip == 0.0
    assert (barrier.start, barrier.end) == (1.0, 3.0)


def test_a_path_that_dips_has_no_barrier_over_the_line():
    barrier = error_barrier([0.0, 0.5, 1.0], [1.0, 0.5, 2.0])
    assert barrier.linear == 0.0
    assert barrier.frankle == 0.5  # half the difference of the ends, which is none of the path's doing
    assert barrier.dip == pytest.approx(-1.0)


@given(LOSSES)
def test_laws_of_barriers(losses):
    alphas = torch.linspace(0, 1, len(losses), dtype=torch.float64)
    barrier = error_barrier(alphas, losses)
    back = error_barrier(alphas, losses[::-1])
    assert barrier.linear >= 0
    assert barrier.frankle >= abs(losses[0] - losses[-1]) / 2 - 1e-9
    assert abs(barrier.frankle - barrier.linear) <= abs(losses[0] - losses[-1]) / 2 + 1e-9
    assert back.frankle == pytest.approx(barrier.frankle)
    assert back.linear == pytest.approx(barrier.linear)
    up = error_barrier(alphas, [loss + 1 for loss in losses])
    assert up.linear == pytest.approx(barrier.linear, abs=1e-9)


@given(st.floats(-20, 20), st.integers(2, 33))
def test_a_flat_path_has_exactly_none(level, n):
    barrier = error_barrier(torch.linspace(0, 1, n, dtype=torch.float64), [level] * n)
    assert barrier.frankle == barrier.linear == barrier.dip == 0.0


@pytest.mark.parametrize(
    ("alphas", "losses", "message"),
    [
        ([0.0, 1.0], [1.0], "every alpha needs a loss: got 2 alphas and losses of shape"),
        ([0.0, 0.5], [1.0, 1.0], "measured from alpha 0 to 1, both included"),
        ([-0.5, 0.0, 1.0], [1.0, 1.0, 1.0], "none beyond"),
        ([], [], "both included"),
        ([0.0, 0.5, 1.0], [1.0, float("nan"), 1.0], "not finite"),
    ],
)
def test_paths_without_a_barrier_to_tell(alphas, losses, message):
    with pytest.raises(ValueError, match=message):
        error_barrier(alphas, losses)


# --- bands ---


def noisy_scores(height: float, n_rows: int = 400) -> PathScores:
    """A path whose barrier is `height`, with rows that scatter around it."""
    draw = torch.Generator().manual_seed(1)
    alphas = torch.linspace(0, 1, 5, dtype=torch.float64)
    curve = 2.0 + 4 * height * alphas * (1 - alphas)
    per_row = curve[:, None] + 0.3 * torch.randn(5, n_rows, generator=draw, dtype=torch.float64)
    targets = torch.randint(5, 20, (n_rows,), generator=draw).double()
    return PathScores(
        weights=torch.stack((1 - alphas, alphas), 1),
        row_loss=per_row * targets,
        row_wrong=(per_row > 2.2).double() * targets,
        row_targets=targets,
    )


def test_the_band_holds_the_barrier():
    for height in (0.2, 1.0):
        scores = noisy_scores(height)
        band = bootstrap_barrier(scores)
        measured = error_barrier(scores.alphas, scores.loss)
        for name in ("frankle", "linear"):
            low, high = getattr(band, name)
            assert low <= getattr(measured, name) <= high
            assert low < height < high
            assert high - low < 0.15


def test_wider_levels_and_fewer_rows_make_wider_bands():
    def width(scores: PathScores, level: float) -> float:
        low, high = bootstrap_barrier(scores, level=level).linear
        return high - low

    many, few = noisy_scores(1.0), noisy_scores(1.0, n_rows=40)
    assert width(many, 0.5) < width(many, 0.95) < width(few, 0.95)


def test_a_band_is_the_same_every_time_and_can_be_of_errors():
    scores = noisy_scores(0.5)
    assert bootstrap_barrier(scores) == bootstrap_barrier(scores)
    other = bootstrap_barrier(scores, generator=torch.Generator().manual_seed(5))
    assert other != bootstrap_barrier(scores)
    low, high = bootstrap_barrier(scores, measure="error").linear
    assert low <= error_barrier(scores.alphas, scores.error).linear <= high


def test_of_one_model_with_itself_the_band_is_exactly_nothing():
    state = model().state_dict()
    scores = score_path(model(seed=3), state, state, [0, 0.3, 0.5, 0.9, 1], batches())
    for measure, path in (("loss", scores.loss), ("error", scores.error)):
        assert error_barrier(scores.alphas, path).frankle == 0.0
        band = bootstrap_barrier(scores, measure=measure, n=50)
        assert band.frankle == band.linear == (0.0, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "accuracy"}, "unknown measure 'accuracy'; known: loss, error"),
        ({"n": 0}, "n of at least 1"),
        ({"level": 1.0}, "level between 0 and 1"),
    ],
)
def test_bad_bands(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_barrier(noisy_scores(0.1, n_rows=5), **options)
