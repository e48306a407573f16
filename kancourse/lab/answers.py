r"""Answers: where a text keeps its final answer, and when two answers are the same.

- A format names both: `hashes` (GSM8K: the number after `####`), `boxed` (MATH: the last `\boxed{…}`), `formula`
  (AMPS: the whole text is the answer), `short` (OpenQA: a few words; any one of several may be right).
- Exact match compares normalised answers: numbers as numbers, formulas after removing what is only typography, words
  without case, punctuation and articles. Formulas are not simplified: 2x and x+x differ.

Papers: Cobbe et al. 2021 (GSM8K); Hendrycks et al. 2021 (MATH and AMPS); Rajpurkar et al. 2016 (SQuAD, whose rule for
short answers open question answering uses ever since).
"""

import re
import string
from collections.abc import Callable, Iterable
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

__all__ = ["FORMATS", "AnswerFormat", "is_right"]


class AnswerFormat(NamedTuple):
    """How answers are written.

    Attributes:
        extract: the final answer in a text, or None where the text has none.
        normalise: an answer as it is compared.
    """

    extract: Callable[[str], str | None]
    normalise: Callable[[str], str]


def after_hashes(text: str) -> str | None:
    """What stands behind the first `####`, to the end of its line: `… #### 72` gives `72`."""
    found = re.search(r"####[ \t]*(\S[^\n]*)", text)
    return found[1].strip() if found else None


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` or `\fbox{…}`, braces balanced; `\boxed 7` gives `7`."""
    found = list(re.finditer(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*", text))
    if not found:
        return None
    rest = text[found[-1].end() :]
    if not rest.startswith("{"):
        return rest.split("$")[0].strip() or None
    depth = 0
    for position, sign in enumerate(rest):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return rest[1:position].strip()
    return None  # cut short: no closing brace


def whole(text: str) -> str | None:
    """The first line that is not blank."""
    return next((line.strip() for line in text.splitlines() if line.strip()), None)


def number(answer: str) -> str:
    """A number without thousands commas, currency sign, closing full stop or needless zeros; other text as it is."""
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", answer.strip().strip("$").rstrip(".")).strip()
    try:
        value = Decimal(plain)
    except InvalidOperation:
        return answer.strip()
    if not value.is_finite():
        return answer.strip()
    return f"{value.normalize():f}" if value else "0"


_TYPOGRAPHY = [  # pattern, replacement; in this order
    (r"\\[!,;: ]", ""),  # thin and thick spaces
    (r"\\(?:left|right)(?![a-zA-Z])", ""),
    (r"\\[dt]frac", r"\\frac"),
    (r"\\text\s*\{\s+[^{}]*\}\s*$", ""),  # units at the end, as in 10\text{ cm}
    (r"\\(?:text|mbox|textbf|mathrm)\s*\{([^{}]*)\}", r"\1"),
    (r"\^\{?\\circ\}?", ""),  # degrees
    (r"\\?[$%]", ""),
    (r"^\s*[a-zA-Z]\s*=\s*(?!.*=)", ""),  # x = 5
    (r"\s+", ""),
    (r"(?<!\d)\.(?=\d)", "0."),
    (r"\\sqrt(\w)", r"\\sqrt{\1}"),
    (r"\\frac(\w)(\w)", r"\\frac{\1}{\2}"),
    (r"\\frac(\w)\{", r"\\frac{\1}{"),
    (r"\\frac(\{[^{}]*\})(\w)", r"\\frac\1{\2}"),
    (r"^(-?\d+)/(\d+)$", r"\\frac{\1}{\2}"),
]


def formula(answer: str) -> str:
    r"""LaTeX without what is only typography: spaces, `\left`, `\dfrac`, units, degrees, `\frac12`."""
    plain = answer.strip().rstrip(".")
    for pattern, replacement in _TYPOGRAPHY:
        plain = re.sub(pattern, replacement, plain)
    return number(plain)


def words(answer: str) -> str:
    """Lower case, without punctuation, without a, an and the, one blank between words."""
    plain = "".join(sign for sign in answer.lower() if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", plain).split())


FORMATS = {
    "hashes": AnswerFormat(after_hashes, number),
    "boxed": AnswerFormat(last_boxed, formula),
    "formula": AnswerFormat(whole, formula),
    "short": AnswerFormat(whole, words),
}


def is_right(text: str, answers: Iterable[str], answer_format: AnswerFormat) -> bool:
    """Whether the final answer in a text is one of the right ones.

    Args:
        text: what was written after the question.
        answers: the right answers, any of which will do.
        answer_format: one of `FORMATS`.
    """
    given = answer_format.extract(text)
    return given is not None and answer_format.normalise(given) in {answer_format.normalise(a) for a in answers}
