"""`setup`: what it reports, and that it seeds only when asked; the figure style.

Run alone: python -m pytest tests/test_lesson_machine.py
"""

import importlib.metadata
import random
import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

matplotlib.use("Agg")

from kancourse import __version__
from kancourse.lesson import figures, machine, set_seed, setup


@pytest.fixture(autouse=True)
def _as_before() -> object:
    """Leave matplotlib, warnings and threads as they were."""
    threads = torch.get_num_threads()
    with warnings.catch_warnings(), matplotlib.rc_context():
        yield
    torch.set_num_threads(threads)
    plt.close("all")


def test_reports_versions_device_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    here = setup(device="cpu", threads=1)
    out = capsys.readouterr().out
    assert out.startswith(f"kancourse {__version__} · Python 3.")
    assert f"torch {torch.__version__} · " in out
    assert f"cpu · {here.reason}" in out
    assert "float32" in here.reason
    assert (here.device, here.dtype, here.threads) == (torch.device("cpu"), torch.float32, 1)
    assert "1 thread · seeds are set by the lesson" in out


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "ipywidgets":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(machine.importlib.metadata, "version", version)
    assert machine.versions()["ipywidgets"] == "not installed"


def test_seeds_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    setup(seed=5, device="cpu")
    first = draws()
    set_seed(5)
    assert draws() == first
    set_seed(5)
    setup(device="cpu")
    assert draws() == first
    assert "seed 5" in capsys.readouterr().out


def test_quiets_only_what_is_listed() -> None:
    setup(device="cpu")
    warnings.warn("IProgress not found. Please update jupyter", UserWarning, stacklevel=1)
    with pytest.raises(UserWarning, match="anything else"):
        warnings.warn("anything else", UserWarning, stacklevel=1)


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour, 0 to 1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_stand_out_and_are_never_alone() -> None:
    assert all(1.05 / (luminance(colour) + 0.05) >= 2.0 for colour in figures.COLOURS)  # contrast on white paper
    assert len(set(figures.COLOURS)) == len(set(figures.DASHES)) == len(set(figures.MARKERS)) == len(figures.COLOURS)


def test_band_is_worst_to_best_around_the_mean() -> None:
    figures.style()
    fig, ax = figures.loss_axes("title", references={"ln V": 5.0, "floor": 1.0})
    figures.band(ax, [0, 1], [[1.0, 2.0], [3.0, 6.0], [2.0, 4.0]], "kan")
    line = next(one for one in ax.lines if one.get_label() == "kan (3 seeds)")
    assert line.get_ydata().tolist() == [2.0, 4.0]
    vertices = ax.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in vertices} >= {(0, 1), (0, 3), (1, 2), (1, 6)}
    assert [text.get_text() for text in ax.texts] == ["ln V 5", "floor 1"]
    assert fig.get_size_inches().tolist() == [7.0, 4.0]


def test_a_single_run_has_no_band() -> None:
    _, ax = figures.axes()
    figures.band(ax, [0, 1, 2], [1.0, 2.0, 3.0], "dense")
    assert ax.lines[0].get_label() == "dense (1 seed)"
    assert len(ax.collections) == 0


def test_band_names_both_lengths() -> None:
    _, ax = figures.axes()
    with pytest.raises(ValueError, match="band 'kan': x has 3 points but the runs have 2"):
        figures.band(ax, [0, 1, 2], [[1.0, 2.0]], "kan")


def test_grids_stay_below_eleven_inches() -> None:
    fig, grid = figures.axes(4, 2, title="many", xlabel="x")
    assert grid.shape == (2, 4)
    assert fig.get_size_inches()[0] == 11
    assert all(ax.get_xlabel() == "x" for ax in grid.flat)
