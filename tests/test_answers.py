r"""Where a text keeps its answer, and when two answers are the same. Run: pytest tests/test_answers.py"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kancourse.lab.answers import FORMATS, formula, is_right, last_boxed, number, words


@pytest.mark.parametrize(
    ("how", "text", "answer"),
    [
        ("hashes", " She sold 48/2 = <<48/2=24>>24.\n#### 72", "72"),
        ("hashes", "#### 1,200 dollars\n#### 5", "1,200 dollars"),
        ("hashes", "72", None),
        ("hashes", "####", None),
        ("hashes", "####\n72", None),
        ("boxed", r"so $x = \boxed{7}$, no: \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", r"\boxed 7$ is it", "7"),
        ("boxed", r"\fbox{\text{A}}", r"\text{A}"),
        ("boxed", r"\boxed{\frac{1}{2}", None),
        ("boxed", "7", None),
        ("formula", "\n  x^2+1 \nand more", "x^2+1"),
        ("formula", " \n", None),
        ("short", " the Beatles\n\nQuestion: next", "the Beatles"),
    ],
)
def test_the_final_answer_is_found(how, text, answer):
    assert FORMATS[how].extract(text) == answer


@given(
    st.recursive(
        st.text("ab1+", max_size=3), lambda inner: st.lists(inner, max_size=3).map(lambda p: "{" + "".join(p) + "}")
    )
)
def test_a_box_is_closed_by_its_own_brace(inside):
    assert last_boxed(rf"first \boxed{{0}}, then \boxed{{{inside}}} and }} more") == inside.strip()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("72", "72.0"),
        ("$1,200", "1200"),
        ("1200.", "1200"),
        ("0.50", ".5"),
        ("-0", "0"),
        ("100", "1e2"),
    ],
)
def test_numbers_are_compared_as_numbers(a, b):
    assert number(a) == number(b)


@given(st.integers(-(10**12), 10**12))
def test_thousands_do_not_matter_and_numbers_stay_apart(n):
    assert number(f"{n:,}") == number(str(n)) == str(n)
    assert number(str(n)) != number(str(n + 1))


@pytest.mark.parametrize("text", ["", "NaN", "Infinity", "twelve", "1/2", "--3"])
def test_what_is_no_number_is_left_alone(text):
    assert number(text) == text


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\tfrac{1}{2} +\! \frac1{72}", r"\dfrac{1}{2} +\frac{1}{72}"),
        (r"10\text{ units}", "10 "),
        ("10", r"\$10"),
        (r"\left(x-2\right)\left(x+2\right)", "(x-2)(x+2)"),
        ("0.1", ".1"),
        (r"10\%", "10"),
        (r"10\sqrt{3} + \sqrt4", r"10\sqrt3 + \sqrt{4}"),
        (r"\frac34i", r"\frac{3}{4}i"),
        (r"\tfrac83", r"\frac{8}{3}"),
        ("x = 5", "5"),
        (r"90^\circ", "90"),
        (r"90^{\circ}", "90"),
        ("1/2", r"\frac{1}{2}"),
        ("-3/4", r"\frac{-3}{4}"),
        (r"\text{Monday}", "Monday"),
        ("7.", "7"),
    ],
)
def test_formulas_that_differ_in_typography_are_the_same(a, b):
    assert formula(a) == formula(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\frac{1}{2}", r"\frac{2}{1}"),
        ("10, 4, -2", "4, 10, -2"),
        (r"10\text{ units}", "100"),
        ("x+y", "x-y"),
        ("2x", "x+x"),  # nothing is simplified
        (r"\leftarrow", "arrow"),
        ("1,2", "12"),
    ],
)
def test_formulas_that_differ_are_not(a, b):
    assert formula(a) != formula(b)


def test_short_answers_forget_case_punctuation_and_articles():
    assert words("The  Beatles!") == words("beatles") == "beatles"
    assert words("a theatre") == "theatre"
    assert words("U.S.A.") == words("usa")
    assert words("Beatles") != words("beetles")


def test_any_of_the_right_answers_will_do():
    how = FORMATS["short"]
    assert is_right(" an Elephant\n", ["the elephant", "mammoth"], how)
    assert is_right("Mammoth.", ["the elephant", "mammoth"], how)
    assert not is_right("a mouse", ["the elephant", "mammoth"], how)
    assert not is_right("", ["the elephant"], how)
    assert not is_right("no hashes, only 72", ["72"], FORMATS["hashes"])
