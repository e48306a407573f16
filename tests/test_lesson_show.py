"""`source`: the package's code in a notebook, with its place and without this machine's paths.

Run alone: python -m pytest tests/test_lesson_show.py
"""

import inspect

import pytest
import torch

import kancourse.attention
from kancourse.attention import CausalSelfAttention, naive_attention
from kancourse.lesson import check, show, source


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    seen: list[dict] = []
    monkeypatch.setattr(show, "display", lambda data, raw: seen.append(data))
    return seen


def test_place_and_code(shown: list[dict]) -> None:
    source(naive_attention)
    line = inspect.getsourcelines(naive_attention)[1]
    markdown, plain = shown[0]["text/markdown"], shown[0]["text/plain"]
    assert markdown.startswith(f"`kancourse/attention.py:{line}`\n\n```python\ndef naive_attention(")
    assert markdown.endswith("\n```")
    assert plain.startswith(f"# kancourse/attention.py:{line}\ndef naive_attention(")
    assert plain.rstrip().endswith("return out")


def test_folded_solution_of_an_exercise(shown: list[dict]) -> None:
    source(check.scaled_dot_product_attention, fold=True, title="Solution")
    markdown = shown[0]["text/markdown"]
    assert markdown.startswith("<details><summary>Solution · <code>kancourse/attention.py:")
    assert "\n\n```python\ndef naive_attention(" in markdown
    assert markdown.endswith("</details>")


@pytest.mark.parametrize("obj", [CausalSelfAttention, CausalSelfAttention.step, kancourse.attention, torch.nn.Linear])
def test_everything_with_a_source(obj: object, shown: list[dict]) -> None:
    source(obj)
    heading, _, code = shown[0]["text/plain"].partition("\n")
    assert heading.startswith(("# kancourse/attention.py", "# torch/nn/modules/linear.py:"))
    assert not code.startswith(" ")  # methods are dedented


def test_a_fence_inside_the_code(shown: list[dict]) -> None:
    def fenced() -> None:
        """```python"""

    source(fenced)
    assert shown[0]["text/markdown"].startswith("`this notebook:")
    assert shown[0]["text/markdown"].endswith("\n````")


@pytest.mark.parametrize("obj", [3, len, torch.relu, "text"])
def test_no_source_is_one_sentence(obj: object) -> None:
    with pytest.raises(TypeError, match="has no Python source to show; give a function, class or module"):
        source(obj)
