"""`play`: an interactive picture that is never empty, never hides an error, and needs no front-end to be tested.

- The function is called once with the defaults, and its picture goes into the cell's output as a plain PNG: that is
  what GitHub, an HTML page and a reader without a kernel see. An exception in that call fails the cell.
- Controls are attached only when a live front-end is there (`front_end()` says which, and why).
- Later calls put their picture into an image widget, below the controls. An exception is shown there in full and
  raised again; `ipywidgets.interact` and `Output` swallow it, so neither is used.
- Only what ipywidgets 7.7 (Colab) and 8 both have: sliders, Dropdown, Checkbox, Text, Image, HTML, VBox.
"""

import contextlib
import html
import inspect
import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.display import Image, display
from matplotlib.figure import Figure

QUICK = 0.15  # seconds; a function faster than this follows the slider while it is dragged


def front_end() -> str | None:
    """The live front-end that will show widgets ("Colab", "VS Code", "Jupyter"), or None.

    `KANCOURSE_WIDGETS=0` or `1` settles it; the course's own drivers set 0. Otherwise one has to show itself: Colab's
    and VS Code's kernels by what they import, a Jupyter server by `JPY_SESSION_NAME`, which it gives to every kernel
    behind a page. nbclient, nbmake, nbconvert and papermill start kernels without any of these.
    """
    asked = os.environ.get("KANCOURSE_WIDGETS")
    if asked is not None:
        return "asked for" if asked == "1" else None
    shell = get_ipython()
    if getattr(shell, "kernel", None) is None or "PYTEST_VERSION" in os.environ:  # nbmake runs inside pytest
        return None
    if "google.colab" in sys.modules:
        return "Colab"
    if "__vsc_ipynb_file__" in shell.user_ns:
        return "VS Code"
    return "Jupyter" if "JPY_SESSION_NAME" in os.environ else None


@dataclass(frozen=True)
class Shown:
    """What one call of the function left behind."""

    picture: bytes | None  # PNG
    text: str  # what it printed, then the str it returned


class Play:
    """A function with its controls; `play` returns one, `widgets` is empty without a live front-end."""

    def __init__(self, fn: Callable[..., Any], controls: Mapping[str, Any], start: Mapping[str, Any]) -> None:
        self.fn, self.name = fn, getattr(fn, "__name__", type(fn).__name__)
        own = _own_defaults(fn, self.name, controls, start)
        self.controls = dict(controls)
        self.start = {name: first_value(self.name, name, spec, {**own, **start}) for name, spec in controls.items()}
        self.widgets: dict[str, Any] = {}
        self.image: Any = None
        self.text: Any = None

    def _ipython_display_(self) -> None:
        """Nothing: the picture and the controls have been shown already."""

    def call(self, **values: Any) -> Shown:
        """Call the function and collect its figure, what it printed and the text it returned."""
        before, printed, show = set(plt.get_fignums()), io.StringIO(), plt.show
        plt.show = lambda *_args, **_kwargs: None  # the picture is taken from the figure, wherever the call came from
        try:
            with contextlib.redirect_stdout(printed):
                result = self.fn(**values)
            figures = [plt.figure(number) for number in plt.get_fignums() if number not in before]
            if isinstance(result, Figure) and result not in figures:
                figures.append(result)
            if len(figures) > 1:
                raise ValueError(f"play({self.name}): it drew {len(figures)} figures; put the panels into one")
            text = printed.getvalue() + (result if isinstance(result, str) else "")
            return Shown(_png(figures[0]) if figures else None, text)
        finally:
            plt.show = show
            for number in set(plt.get_fignums()) - before:
                plt.close(number)

    def attach(self, *, continuous: bool) -> Any:
        """Build the controls, connect them, and return the box that holds them with the live picture."""
        import ipywidgets

        self.image, self.text = ipywidgets.Image(format="png"), ipywidgets.HTML()
        self.image.layout.display = "none"  # until the first change there is only the static picture above
        for name, spec in self.controls.items():
            widget = make_widget(name, spec, self.start[name], continuous=continuous)
            widget.observe(self._changed, names="value")
            self.widgets[name] = widget
        return ipywidgets.VBox([*self.widgets.values(), self.text, self.image])

    def _changed(self, _change: Any) -> None:
        try:
            shown = self.call(**{name: widget.value for name, widget in self.widgets.items()})
        except Exception as error:
            frames = error.__traceback__.tb_next.tb_next  # from the reader's function on
            told = "".join(traceback.format_exception(type(error), error, frames))
            self.text.value = f"<pre style='color:#B00020'>{html.escape(told)}</pre>"
            self.image.layout.display = "none"
            raise
        self.text.value = f"<pre style='white-space:pre-wrap'>{html.escape(shown.text)}</pre>" if shown.text else ""
        if shown.picture:
            self.image.value = shown.picture
        self.image.layout.display = None if shown.picture else "none"


def play(fn: Callable[..., Any], /, *, start: Mapping[str, Any] | None = None, **controls: Any) -> Play:
    """Show `fn` once with its defaults as a static picture, and attach live controls where a front-end is there.

    Args:
        fn: draws one figure with matplotlib (or returns it), may print or return text. Pure in its arguments: give
            it a seed, not a generator that moves on.
        start: first values, by name; else the function's own defaults; else the middle, or the first choice.
        controls: one per parameter of `fn`:
            `(low, high)` or `(low, high, step)`  a slider: of whole numbers when all are ints
            `["a", "b"]`                          a choice; a tuple of strings too
            `True` / `False`                      a checkbox
            `"text"`                              a text box

    Raises:
        TypeError: a control that `fn` does not take, a parameter without control or default, an unknown control.
        ValueError: a first value outside its control, or more than one figure.
        Exception: whatever `fn` raises.
    """
    playing = Play(fn, controls, start or {})
    began = time.perf_counter()
    shown = playing.call(**playing.start)
    seconds = time.perf_counter() - began
    if shown.text:
        print(shown.text.rstrip("\n"))
    if shown.picture:
        display(Image(data=shown.picture, format="png"))
    if front_end() is None:
        parts = ", ".join(f"{name} {describe(spec)}" for name, spec in controls.items())
        print(f"(run this notebook to move: {parts})")
    else:
        display(playing.attach(continuous=seconds < QUICK))
    return playing


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_slider(spec: Any) -> bool:
    return isinstance(spec, tuple) and len(spec) in (2, 3) and all(_is_number(part) for part in spec)


def _is_choice(spec: Any) -> bool:
    return isinstance(spec, list | tuple) and len(spec) > 0 and not _is_slider(spec)


def describe(spec: Any) -> str:
    """A control in words, for the line below a static picture."""
    if _is_slider(spec):
        return f"{spec[0]}…{spec[1]}"
    if _is_choice(spec):
        return "/".join(str(choice) for choice in spec)
    return "on/off" if isinstance(spec, bool) else "(text)"


def first_value(fn_name: str, name: str, spec: Any, start: Mapping[str, Any]) -> Any:
    """A control's value at the start, checked against the control. Raises TypeError or ValueError, see `play`."""
    if not (_is_slider(spec) or _is_choice(spec) or isinstance(spec, bool | str)):
        raise TypeError(
            f"play({fn_name}): {name}={spec!r} is no control; known: (low, high[, step]), a list of choices, "
            "True/False, text"
        )
    if _is_slider(spec):
        whole = all(isinstance(part, int) for part in spec)
        value = start.get(name, (spec[0] + spec[1]) // 2 if whole else (spec[0] + spec[1]) / 2)
        if not _is_number(value) or (whole and not isinstance(value, int)) or not spec[0] <= value <= spec[1]:
            kind = "whole number" if whole else "number"
            raise ValueError(f"play({fn_name}): {name} starts at {value!r}, not a {kind} from {spec[0]} to {spec[1]}")
        return value
    if _is_choice(spec):
        value = start.get(name, spec[0])
        if value not in spec:
            choices = ", ".join(repr(choice) for choice in spec)
            raise ValueError(f"play({fn_name}): {name} starts at {value!r}, not one of {choices}")
        return value
    return start.get(name, spec)


def make_widget(name: str, spec: Any, value: Any, *, continuous: bool) -> Any:
    """The ipywidgets control for one parameter, at `value`."""
    import ipywidgets

    if isinstance(spec, bool):
        return ipywidgets.Checkbox(value=value, description=name)
    if isinstance(spec, str):
        return ipywidgets.Text(value=value, description=name, continuous_update=False)
    if _is_choice(spec):
        return ipywidgets.Dropdown(options=list(spec), value=value, description=name)
    whole = all(isinstance(part, int) for part in spec)
    step = spec[2] if len(spec) == 3 else 1 if whole else (spec[1] - spec[0]) / 100
    slider = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    wide = {"style": {"description_width": "initial"}, "layout": {"width": "420px"}}
    options = {"description": name, "continuous_update": continuous, **wide}
    if not whole:
        options["readout_format"] = ".3g"
    return slider(value=value, min=spec[0], max=spec[1], step=step, **options)


def _own_defaults(fn: Callable[..., Any], name: str, controls: Mapping[str, Any], start: Mapping[str, Any]) -> dict:
    """The defaults in fn's signature. Every control must be a parameter, every parameter controlled or defaulted."""
    parameters, empty = inspect.signature(fn).parameters, inspect.Parameter.empty
    unknown = [control for control in (*controls, *start) if control not in parameters]
    if unknown:
        raise TypeError(f"play({name}): {name} takes {', '.join(parameters) or 'nothing'}, not {', '.join(unknown)}")
    missing = [p.name for p in parameters.values() if p.default is empty and p.name not in controls]
    if missing:
        raise TypeError(f"play({name}): {', '.join(missing)} needs a control or a default")
    return {p.name: p.default for p in parameters.values() if p.default is not empty}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
