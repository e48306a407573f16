"""The plane through three models. Run: pytest tests/test_lmc_plane.py"""

import pytest
import torch
from lmc_models import batches, model

from kancourse.lmc import interpolate, loss_path, loss_plane
from kancourse.lmc_states import as_vector

STATES = [model(seed=seed).state_dict() for seed in range(3)]


def test_distances_are_those_between_the_models():
    plane = loss_plane(model(), STATES, batches(), n=3)
    a, b, c = (as_vector(state) for state in STATES)
    for i, j, distance in ((0, 1, a - b), (0, 2, a - c), (1, 2, b - c)):
        torch.testing.assert_close((plane.models[i] - plane.models[j]).norm(), distance.norm(), atol=1e-6, rtol=0)
    assert plane.models[0].tolist() == [0.0, 0.0]
    assert plane.models[1, 1] == 0.0
    assert plane.models[2, 1] > 0


def test_the_grid_passes_through_the_models_and_scores_what_lies_there():
    n, probe = 5, model("untied")
    a, b, c = (model("untied", seed=seed).state_dict() for seed in range(3))
    # C is moved above the middle of A and B: then all three are points of the grid.
    foot = (as_vector(c) - as_vector(a)) @ (as_vector(b) - as_vector(a)) / (as_vector(b) - as_vector(a)).norm() ** 2
    c = {name: c[name] + (0.5 - float(foot)) * (b[name] - a[name]) for name in c}
    plane = loss_plane(probe, [a, b, c], batches(), n=n, margin=0.0)
    lower_edge = loss_path(probe, a, b, torch.linspace(0, 1, n), batches())
    torch.testing.assert_close(plane.loss[0], lower_edge, atol=5e-6, rtol=0)
    torch.testing.assert_close(plane.loss[-1, n // 2], loss_path(probe, c, c, [0], batches())[0], atol=5e-6, rtol=0)
    assert plane.loss.shape == plane.error.shape == (n, n)
    assert bool(((plane.error >= 0) & (plane.error <= 1)).all())


def test_the_margin_surrounds_them():
    plane = loss_plane(model(), STATES, batches(), n=4, margin=0.5)
    low, high = plane.models.amin(0), plane.models.amax(0)
    for axis, coordinates in enumerate((plane.x, plane.y)):
        extent = high[axis] - low[axis]
        assert coordinates[0] == pytest.approx(float(low[axis] - 0.5 * extent))
        assert coordinates[-1] == pytest.approx(float(high[axis] + 0.5 * extent))


@pytest.mark.parametrize(
    ("states", "options", "message"),
    [
        (STATES[:2], {}, "a plane wants three models"),
        (STATES, {"n": 1}, "n of at least 2"),
        (STATES, {"margin": -0.1}, "margin >= 0"),
        ([STATES[0], STATES[1], interpolate(STATES[0], STATES[1], 0.3)], {}, "lie on one line, which spans no plane"),
        ([STATES[0], STATES[0], STATES[1]], {}, "lie on one line"),
    ],
)
def test_three_models_that_span_no_plane(states, options, message):
    with pytest.raises(ValueError, match=message):
        loss_plane(model(), states, batches(), **options)
