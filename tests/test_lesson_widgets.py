"""`play`: a picture always, controls where a front-end is, errors never hidden.

Run alone: python -m pytest tests/test_lesson_widgets.py
"""

import ast
import inspect
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

matplotlib.use("Agg")

from kancourse.lesson import play, widgets
from kancourse.lesson.notebooks import run_cells

# Names of ipywidgets 7.7.1, Colab's version, that this project may use; version 8 has all of them.
IN_BOTH = {"Checkbox", "Dropdown", "FloatSlider", "HTML", "Image", "IntSlider", "Text", "VBox"}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list:
    """What was displayed."""
    seen: list = []
    monkeypatch.setattr(widgets, "display", seen.append)
    return seen


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANCOURSE_WIDGETS", "1")


def draw(power: float = 2.0, kind: str = "line", grid: bool = False, title: str = "t", points: int = 5) -> None:
    _, ax = plt.subplots(figsize=(2, 1))
    ax.plot([x**power for x in range(points)])
    ax.set_title(f"{title} {kind}")
    ax.grid(grid)
    plt.show()


CONTROLS = {"power": (0.5, 3.0), "kind": ["line", "bar"], "grid": False, "title": "hello", "points": (2, 9)}


def test_static_picture_and_no_widget_without_a_front_end(shown: list, capsys: pytest.CaptureFixture[str]) -> None:
    playing = play(draw, **CONTROLS)
    assert [picture.data[:4] for picture in shown] == [b"\x89PNG"]
    assert playing.widgets == {}
    assert "(run this notebook to move: power 0.5…3.0, kind line/bar, grid on/off" in capsys.readouterr().out
    assert plt.get_fignums() == []


def test_defaults_come_from_start_then_signature_then_the_middle(shown: list) -> None:
    def fn(d, e, a: float = 0.25, b: int = 3, c: float = 0) -> None:
        pass

    playing = play(fn, start={"b": 4}, a=(0.0, 1.0), b=(0, 9), d=(1, 4), e=["x", "y"])
    assert playing.start == {"a": 0.25, "b": 4, "d": 2, "e": "x"}


def test_live_controls_drive_the_picture(shown: list, live: None) -> None:
    playing = play(draw, **CONTROLS)
    assert len(shown) == 2  # the static picture, then the controls
    assert playing.image.value == b""
    assert playing.image.layout.display == "none"
    playing.widgets["power"].value = 1.0
    first = playing.image.value
    assert first[:4] == b"\x89PNG"
    playing.widgets["points"].value = 9
    assert playing.image.value != first
    assert playing.image.layout.display is None
    for name, value in {"kind": "bar", "grid": True, "title": "bye"}.items():
        before = playing.image.value
        playing.widgets[name].value = value
        assert playing.image.value != before, name
    assert plt.get_fignums() == []


def test_text_is_shown_with_the_picture(shown: list, live: None, capsys: pytest.CaptureFixture[str]) -> None:
    def speak(n: int = 1) -> str:
        print("printed", n)
        return f"<returned {n}>"

    playing = play(speak, n=(1, 5))
    assert capsys.readouterr().out == "printed 1\n<returned 1>\n"
    playing.widgets["n"].value = 3
    assert "printed 3\n&lt;returned 3&gt;" in playing.text.value


def test_a_later_error_is_shown_and_raised(shown: list, live: None) -> None:
    def picky(n: int = 1) -> None:
        plt.figure(figsize=(1, 1))
        if n == 3:
            raise ValueError("three is <too many>")

    playing = play(picky, n=(1, 5))
    with pytest.raises(ValueError, match="three"):
        playing.widgets["n"].value = 3
    assert "ValueError: three is &lt;too many&gt;" in playing.text.value
    assert "_changed" not in playing.text.value  # only the lines of the function itself
    assert playing.image.layout.display == "none"
    playing.widgets["n"].value = 4  # and it goes on
    assert playing.text.value == ""
    assert playing.image.value[:4] == b"\x89PNG"


def test_the_first_error_is_raised_and_leaves_nothing_open(shown: list) -> None:
    def broken(n: int = 1) -> None:
        plt.figure()
        raise ValueError("broken")

    show = plt.show
    with pytest.raises(ValueError, match="broken"):
        play(broken, n=(1, 5))
    assert plt.get_fignums() == []
    assert plt.show is show
    assert shown == []


def test_slow_functions_do_not_follow_the_drag(shown: list, live: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fn(a: float = 0.5, b: str = "") -> None:
        pass

    assert play(fn, a=(0.0, 1.0)).widgets["a"].continuous_update is True
    monkeypatch.setattr(widgets, "QUICK", 0.0)
    playing = play(fn, a=(0.0, 1.0), b="x")
    assert playing.widgets["a"].continuous_update is False
    assert playing.widgets["b"].continuous_update is False


@pytest.mark.parametrize(
    ("controls", "error", "said"),
    [
        ({"speed": (0, 1)}, TypeError, r"play\(fn\): fn takes a, b, not speed"),
        ({"b": (0, 1)}, TypeError, r"play\(fn\): a needs a control or a default"),
        ({"a": 3}, TypeError, r"a=3 is no control; known: \(low, high"),
        ({"a": []}, TypeError, r"a=\[\] is no control"),
        ({"a": (0, 1), "b": (0, 9)}, ValueError, r"b starts at 11, not a whole number from 0 to 9"),
        ({"a": (0, 1), "b": ["x"]}, ValueError, r"b starts at 11, not one of 'x'"),
    ],
)
def test_bad_controls(controls: dict, error: type[Exception], said: str, shown: list) -> None:
    def fn(a, b=11) -> None:
        pass

    with pytest.raises(error, match=said):
        play(fn, **controls)


def test_two_figures_are_refused(shown: list) -> None:
    def two(n: int = 1) -> None:
        plt.figure()
        plt.figure()

    with pytest.raises(ValueError, match=r"play\(two\): it drew 2 figures; put the panels into one"):
        play(two, n=(1, 2))


def test_only_what_both_ipywidgets_have() -> None:
    tree = ast.parse(inspect.getsource(widgets))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ipywidgets"
    }
    assert used == IN_BOTH


@pytest.mark.parametrize(
    ("modules", "names", "environment", "expected"),
    [
        ({}, {}, {}, None),  # nbclient, papermill, nbconvert
        ({}, {}, {"PYTEST_VERSION": "9", "JPY_SESSION_NAME": "x"}, None),  # nbmake, started from a terminal of Lab
        ({"google.colab": None}, {}, {}, "Colab"),
        ({}, {"__vsc_ipynb_file__": "x.ipynb"}, {}, "VS Code"),
        ({}, {}, {"JPY_SESSION_NAME": "notebooks/03_gpt.ipynb"}, "Jupyter"),
        ({"google.colab": None}, {}, {"KANCOURSE_WIDGETS": "0"}, None),  # papermill's child kernel in Colab
        ({}, {}, {"KANCOURSE_WIDGETS": "1"}, "asked for"),
    ],
)
def test_front_end(
    modules: dict, names: dict, environment: dict, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTEST_VERSION", "JPY_SESSION_NAME", "KANCOURSE_WIDGETS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name, value in modules.items():
        monkeypatch.setitem(sys.modules, name, value)
    monkeypatch.setattr(widgets, "get_ipython", lambda: SimpleNamespace(kernel=object(), user_ns=names))
    assert widgets.front_end() == expected


def test_no_front_end_in_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_VERSION")
    monkeypatch.setenv("JPY_SESSION_NAME", "x")
    assert widgets.front_end() is None


def notebook(body: str) -> NotebookNode:
    lines = (
        "from kancourse.lesson import play\nimport matplotlib.pyplot as plt\n\n"
        f"def f(n: int = 1):\n    {body}\n\nplay(f, n=(1, 3))"
    )
    return new_notebook(cells=[new_code_cell(lines), new_code_cell("after = 1")])


def test_in_a_real_kernel(tmp_path: Path) -> None:
    """The picture is in the output, no widget is, and a raising callback stops the notebook."""
    good = notebook("plt.plot([n, 2])")
    run_cells(good, tmp_path / "x.ipynb", timeout=120)
    assert [sorted(output.get("data", {})) for output in good.cells[0].outputs] == [["image/png", "text/plain"], []]
    assert "widgets" not in good.metadata
    bad = notebook("raise ValueError('no such n')")
    with pytest.raises(RuntimeError, match=r"x.ipynb: a cell raised ValueError: no such n"):
        run_cells(bad, tmp_path / "x.ipynb", timeout=120)
    assert bad.cells[1].execution_count is None
