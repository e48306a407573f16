"""One look for every figure: readable in print, in grey, and by the colour-blind.

- Colours are Okabe and Ito's eight; line styles and markers change with them, so colour is never the only difference.
- Runs over several seeds are drawn as a band from the worst to the best seed around their mean.
- Reference lines (floor, unigram entropy, ln V) carry their name on the line, so no legend has to be looked up.
- About 7×4 inches at 100 dots per inch: a picture is 20 to 60 kB, a notebook stays below 1 MB.

[1] Okabe and Ito (2008), Color Universal Design: how to make figures that are friendly to colour-blind people.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#000000",
)  # [1], yellow left out: too pale
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#666666"
SIZE = (7.0, 4.0)  # inches


def style() -> None:
    """Apply the course's matplotlib style to every figure made from now on."""
    matplotlib.rcParams.update(
        {
            "figure.figsize": SIZE,
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": plt.cycler(color=COLOURS, linestyle=DASHES),
            "axes.grid": True,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.6,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 12,
            "axes.titlelocation": "left",
            "axes.labelsize": 11,
            "lines.linewidth": 1.8,
            "lines.markersize": 5,
            "legend.frameon": False,
            "legend.fontsize": 10,
            "image.cmap": "cividis",  # even steps in lightness, the same to colour-blind readers
        }
    )


def axes(
    columns: int = 1, rows: int = 1, *, title: str = "", xlabel: str = "", ylabel: str = "", height: float = SIZE[1]
) -> tuple[Figure, Axes | np.ndarray]:
    """A new figure with `rows` × `columns` axes: one Axes when there is one, else a numpy array of them.

    Args:
        title: of the whole figure; the labels go to every axes.
        height: inches per row. The width grows with the columns, up to 11 inches.
    """
    width = min(SIZE[0] if columns == 1 else 4.0 * columns, 11.0)
    fig, grid = plt.subplots(rows, columns, figsize=(width, height * rows))
    for ax in np.atleast_1d(grid).flat:
        ax.set(xlabel=xlabel, ylabel=ylabel)
    if title and rows * columns == 1:
        grid.set_title(title)
    elif title:
        fig.suptitle(title, x=0.01, ha="left")
    return fig, grid


def band(ax: Axes, x: Sequence[float], runs: Sequence[Sequence[float]], label: str, **line: object) -> None:
    """Draw the mean of several runs and the band from their lowest to their highest value.

    Args:
        x: (N,) the common horizontal axis.
        runs: (seeds, N), one row per seed; a single run (N,) draws a line without a band.
        label: for the legend; the number of seeds is added to it.
        line: passed to `ax.plot` (color, linestyle, marker …).

    Raises:
        ValueError: the rows and x differ in length.
    """
    values = np.atleast_2d(np.asarray(runs, dtype=float))  # (S, N)
    if values.shape[1] != len(x):
        raise ValueError(f"band {label!r}: x has {len(x)} points but the runs have {values.shape[1]}")
    seeds = values.shape[0]
    (drawn,) = ax.plot(x, values.mean(0), label=f"{label} ({seeds} seed{'s' if seeds > 1 else ''})", **line)
    if seeds > 1:
        ax.fill_between(x, values.min(0), values.max(0), color=drawn.get_color(), alpha=0.2, linewidth=0)


def reference(ax: Axes, y: float, label: str, *, color: str = GREY, at: float = 0.99, below: bool = False) -> None:
    """Draw a thin horizontal line at `y` with its name and value written on it.

    Args:
        y: in the units of the axes.
        at: where along the axes the name ends, 0 (left) to 1 (right).
        below: write it below the line, for two lines that lie close together.
    """
    ax.axhline(y, color=color, linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
    ax.annotate(
        f"{label} {y:.3g}",
        xy=(at, y),
        xycoords=ax.get_yaxis_transform(),
        xytext=(0, -3 if below else 3),
        textcoords="offset points",
        ha="right",
        va="top" if below else "bottom",
        fontsize=9,
        color=color,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        zorder=1.5,  # over the grid, under the curves: a label never hides a measurement
    )


def loss_axes(
    title: str = "", *, references: Mapping[str, float] | None = None, unit: str = "nats per token", steps: str = "step"
) -> tuple[Figure, Axes]:
    """A figure for loss curves: steps to the right, loss up, and named reference lines.

    Args:
        references: name -> loss, e.g. `{"ln V": 5.2, "unigram entropy": 4.1, "floor": 1.3}`.
        unit: what the loss is counted in.
    """
    fig, ax = axes(title=title, xlabel=steps, ylabel=f"loss ({unit})")
    ax.margins(y=0.09)  # room for the lowest line's name
    for name, value in (references or {}).items():
        reference(ax, value, name, below=value == min(references.values()))  # curves come down to the lowest from above
    return fig, ax


def study_axes(record: Mapping[str, Any], title: str = "", *, arms: Sequence[str] | None = None) -> tuple[Figure, Axes]:
    """A study's arms as points with their bands, the best on top, beside the references of their corpus.

    Args:
        record: of `kancourse.lab.study`.
        arms: only these; None: all.
    """
    chosen = {name: arm for name, arm in record["arms"].items() if arms is None or name in arms}
    names = sorted(chosen, key=lambda name: -chosen[name]["val_loss"]["mean"])
    fig, ax = axes(title=title, xlabel="validation loss (nats per token)", height=1.2 + 0.45 * len(names))
    for y, name in enumerate(names):
        loss = chosen[name]["val_loss"]
        ax.plot([loss["min"], loss["max"]], [y, y], color=COLOURS[0], linestyle="-", linewidth=5, alpha=0.35)
        ax.plot([run["best_val_loss"] for run in chosen[name]["runs"]], [y] * loss["n"], "|", color=COLOURS[0], ms=12)
        ax.plot(loss["mean"], y, "o", color=COLOURS[0])
    ax.set_yticks(range(len(names)), names)
    ax.margins(y=0.15)
    floor = (record["corpus"] or {}).get("val_floor")
    if floor is not None:
        ax.axvline(floor, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
        name, place = f" floor {floor:.3g}", ("data", "axes fraction")
        ax.annotate(name, (floor, 0.01), xycoords=place, fontsize=9, color=GREY)
    return fig, ax
