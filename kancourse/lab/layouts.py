"""Layouts: how a record of a data set becomes a document, and, where there is one, a question with its answers.

- A layout names its columns (with other names they go by) and a function of their values.
- What a model is asked is the beginning of the document it would have been trained on: `text` starts with `prompt`.
- Adding a data set with another schema is adding a layout here and a row in `sources.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kancourse.lab.answers import after_hashes, last_boxed

Slot = tuple[str, ...]  # names that one column goes by, the usual one first


class Example(NamedTuple):
    """A document.

    Attributes:
        text: all of it.
        prompt: the beginning that asks, or None.
        answers: right answers, any of which will do; empty where nobody can tell.
        domain: the label of the part of the data set it belongs to, or None.
    """

    text: str
    prompt: str | None = None
    answers: tuple[str, ...] = ()
    domain: str | None = None


class Layout(NamedTuple):
    """Columns, the function that makes an `Example` of their values, and whether a value may be a list of texts."""

    columns: tuple[Slot, ...]
    make: Callable[..., Example]
    lists: bool = False


def _asked(ask: str, question: str, say: str, solution: str, answers: Sequence[str | None]) -> Example:
    prompt = f"{ask}: {question.strip()}\n{say}:"
    return Example(f"{prompt} {solution.strip()}", prompt, tuple(answer for answer in answers if answer))


def gsm8k(question: str, answer: str) -> Example:
    """GSM8K: a word problem, steps, and `#### number` at the end."""
    return _asked("Question", question, "Answer", answer, [after_hashes(answer)])


def math(problem: str, solution: str) -> Example:
    r"""MATH: a competition problem and a solution that holds its answer in `\boxed{…}`."""
    return _asked("Problem", problem, "Solution", solution, [last_boxed(solution)])


def openqa(question: str, answer: str | Sequence[str]) -> Example:
    """Open question answering: a question and the short answers that were accepted; the first is trained on."""
    answers = [answer] if isinstance(answer, str) else list(answer)
    return _asked("Question", question, "Answer", answers[0] if answers else "", answers)


def amps(problem: str, solution: str | Sequence[str]) -> Example:
    """AMPS: an exercise and its answer (Mathematica) or hints that lead to it (Khan Academy).

    Only an answer of one line can be matched; hints and worked steps are trained on and never scored.
    """
    if isinstance(solution, str):
        lines = [line for line in solution.splitlines() if line.strip()]
        return _asked("Problem", problem, "Answer", solution, lines if len(lines) == 1 else [])
    return _asked("Problem", problem, "Answer", "\n".join(solution), [])


def code(problem: str, solution: str) -> Example:
    """Code exercises: the head of a function with its docstring, and the body."""
    return Example(f"{problem.rstrip()}\n{solution.rstrip()}", f"{problem.rstrip()}\n")


LAYOUTS = {
    "gsm8k": Layout((("question",), ("answer",)), gsm8k),
    "math": Layout((("problem",), ("solution",)), math),
    "openqa": Layout((("question",), ("answer", "answers")), openqa, lists=True),
    "amps": Layout((("problem", "question"), ("answer", "hints", "solution")), amps, lists=True),
    "code": Layout((("problem", "prompt"), ("solution", "response")), code),
}


def pick(columns: Sequence[Slot], there: Sequence[str], where: str) -> list[str]:
    """The names under which `columns` are found among those that are there.

    Raises:
        ValueError: one is missing; the message lists those there are.
    """
    for slot in columns:
        if not any(name in there for name in slot):
            wanted = " or ".join(repr(name) for name in slot)
            raise ValueError(f"{where} has no column {wanted}; it has: {', '.join(there) or 'none'}")
    return [next(name for name in slot if name in there) for slot in columns]


def checked(value: Any, column: str, name: str, *, lists: bool = False) -> Any:
    """A text or None (or, with `lists`, a list of texts) as it is.

    Raises:
        ValueError: it is something else.
    """
    if value is None or isinstance(value, str):
        return value
    if lists and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise ValueError(f"the column {column!r} of {name} holds {type(value).__name__}, not text")
