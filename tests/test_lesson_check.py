"""Checks: every exercise accepts the package's answer and rejects the stub and planted mistakes.

Run alone: python -m pytest tests/test_lesson_check.py
"""

import math
import re
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from kancourse.attention import CausalSelfAttention
from kancourse.gpt import GPTConfig
from kancourse.lab.sample import entropy_slope
from kancourse.lesson import answers, check
from kancourse.lesson.exercises import REGISTRY, TODO, all_exercises, compare, exercise

EXERCISES = all_exercises()
OWED = {"unigram_entropy", "perplexity", "causal_mask", "scaled_dot_product_attention", "temperature_entropy_slope"}
OWED |= {"initial_loss", "kv_cache_step"}


def test_the_owed_exercises_are_there() -> None:
    assert set(EXERCISES) >= OWED


@pytest.mark.parametrize("name", EXERCISES)
def test_accepts_the_package(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    exercise = getattr(check, name)
    assert exercise(exercise.solution) is exercise.solution
    out = capsys.readouterr().out
    assert out.startswith(f"✔ {name}: got ")
    assert f"Your {name} is used from here on." in out


@pytest.mark.parametrize("name", EXERCISES)
def test_rejects_the_stub_and_goes_on_with_the_package(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    exercise = EXERCISES[name]
    assert exercise(exercise.stub) is exercise.solution
    out = capsys.readouterr().out
    assert out.startswith(f"✘ {name}: not done yet, expected ")
    assert f"goes on with {exercise.reference}" in out


@pytest.mark.parametrize(
    ("name", "index"), [(name, index) for name in EXERCISES for index in range(len(EXERCISES[name].mutants))]
)
def test_rejects_planted_mistakes(name: str, index: int, capsys: pytest.CaptureFixture[str]) -> None:
    exercise = EXERCISES[name]
    assert exercise(exercise.mutants[index]) is exercise.solution
    assert re.match(rf"✘ {name}: .*got \S.* expected ", capsys.readouterr().out)


@pytest.mark.parametrize("name", EXERCISES)
def test_has_enough_mistakes(name: str) -> None:
    assert len(EXERCISES[name].mutants) >= 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda n: None, "is a `return` missing?"),
        (lambda n: "abc", "got 'abc'"),
        (lambda n: 1 / 0, "raised ZeroDivisionError"),
        (lambda n, m: n, "raised TypeError"),
        (lambda n: torch.zeros(3), "got shape (3,), expected ()"),
        (lambda n: (1.0, 2.0), "got shape (2,), expected ()"),
        (lambda n: float("nan"), "got nan"),
        (3.0, "expected a function"),
    ],
)
def test_never_raises(wrong: object, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.initial_loss(wrong) is answers.initial_loss
    assert said in capsys.readouterr().out


def test_an_answer_may_not_change_the_question() -> None:
    def spoils(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return v.zero_()

    assert not check.scaled_dot_product_attention.verdict(spoils)[0]


def test_a_mask_of_numbers_is_not_a_mask() -> None:
    assert not check.causal_mask.verdict(lambda n: torch.ones(n, n).tril())[0]


@pytest.mark.parametrize(("kind", "made"), [("ndarray", np.asarray), ("list", torch.Tensor.tolist)])
def test_where_a_tensor_is_needed_nothing_else_will_do(kind: str, made: Callable[[torch.Tensor], object]) -> None:
    right, line = check.knot_vector.verdict(lambda *given: made(answers.knot_vector(*given)))
    assert not right
    assert f"got a {kind}, expected a torch.Tensor: tensor(7)" in line


def test_a_number_may_be_of_any_kind() -> None:
    assert check.temperature_entropy_slope.verdict(lambda *given: float(entropy_slope(*given)))[0]
    assert check.perplexity.verdict(np.exp)[0]


def test_unknown_check_lists_the_known() -> None:
    with pytest.raises(AttributeError, match=r"no check named 'casual_mask'; known: .*causal_mask, .*initial_loss"):
        check.casual_mask  # noqa: B018


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'perplexity' is registered twice"):

        @exercise(reference="kancourse.lesson.answers.perplexity", cases=list, mutants=())
        def perplexity(loss: float) -> object:
            return TODO

    assert REGISTRY["perplexity"].mutants


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_compare_is_reflexive_and_sees_a_difference(values: list[float]) -> None:
    same = torch.tensor(values)
    assert compare(same, same.clone(), 1e-5)[0] == ""
    other = same.clone()
    other[-1] += 1 + 0.1 * other[-1].abs()
    assert "got" in compare(other, same, 1e-5)[0]


def test_close_prints_both_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    check.close("loss", 4.174, math.log(65), tol=1e-3)
    check.close("rows", torch.full((2, 3), 1.0), 1)
    check.close("ends", torch.tensor([math.inf, math.nan]), torch.tensor([math.inf, math.nan]))
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "✔ loss: got 4.174, expected 4.17439"
    assert out[1].startswith("✔ rows: 6 values, largest difference 0 ")


@pytest.mark.parametrize(
    ("got", "want", "said"),
    [
        (1.0, 1.1, r"✘ x: got 1, expected 1.1, more than 1e-06 apart"),
        (torch.tensor([1.0, math.nan]), torch.tensor([1.0, 2.0]), r"largest difference inf \(got nan, expected 2\)"),
        (torch.zeros(2), torch.zeros(3), r"got shape \(2,\), expected \(3,\)"),
        (torch.zeros(0), torch.zeros(0), r"nothing to compare"),
    ],
)
def test_close_raises(got: object, want: object, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check.close("x", got, want)


def test_true(capsys: pytest.CaptureFixture[str]) -> None:
    check.true("causal", torch.ones(3, dtype=torch.bool), "3 of 3")
    assert capsys.readouterr().out == "✔ causal: 3 of 3\n"
    with pytest.raises(AssertionError, match="✘ causal: 2 of 3"):
        check.true("causal", torch.tensor([True, False, True]), "2 of 3")


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any))
def test_unigram_entropy_laws(counts: list[int]) -> None:
    entropy = answers.unigram_entropy(torch.tensor(counts))
    kinds = sum(count > 0 for count in counts)
    assert -1e-12 <= entropy <= math.log(kinds) + 1e-9
    assert answers.unigram_entropy(torch.tensor(counts) * 7) == pytest.approx(entropy, abs=1e-12)
    assert 1 - 1e-9 <= answers.perplexity(entropy) <= kinds + 1e-6


def test_cache_answer_is_the_package_attention_step() -> None:
    """The exercise's answer, step by step, equals the module's own attention over the whole sequence."""
    config = GPTConfig(vocab_size=7, block_size=6, n_layer=1, n_head=2, n_embd=8, position="learned")
    torch.manual_seed(0)
    module = CausalSelfAttention(config).eval()
    x = torch.randn(1, 6, 8)
    q, k, v = module._qkv(x, start=0)
    past_k = past_v = torch.zeros(1, 2, 0, 4)
    steps = []
    for t in range(6):
        now = slice(t, t + 1)
        out, past_k, past_v = answers.kv_cache_step(q[:, :, now], k[:, :, now], v[:, :, now], past_k, past_v)
        steps.append(out)
    y = torch.cat(steps, dim=2).transpose(1, 2).reshape(1, 6, 8)
    torch.testing.assert_close(module.c_proj(y), module(x), rtol=1e-5, atol=1e-6)
