"""The machinery behind `check.<name>(fn)`: compare a reader's function with the package's, in plain words.

- A check never raises on a wrong answer: it prints ✔ or ✘ with the two numbers, and returns the function to go on
  with: the reader's when it is right, the package's own when it is not, so that Run All always reaches the end.
- Every exercise carries its stub and two or three planted mistakes; a test proves that the check accepts the
  package's answer and rejects all the others. Without that, the fallback would hide a check that checks nothing.
- One file per lesson topic, `checks_<topic>.py`, registers its exercises with `@exercise(...)`.
"""

import copy
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


class Todo:
    """What a stub returns: not solved yet."""

    def __repr__(self) -> str:
        return "check.TODO"


TODO = Todo()


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise: what the answer is compared with, on which inputs, and what must be rejected."""

    name: str
    reference: str  # the package's own answer, "kancourse.gpt.naive_attention"
    cases: Callable[[], Iterable[tuple]]  # the argument tuples to try, seeded, small
    stub: Callable[..., Any]
    mutants: tuple[Callable[..., Any], ...]
    tolerance: float

    @property
    def solution(self) -> Callable[..., Any]:
        """The package's own function (what `source(check.name)` shows). Imported only now, so topics stay cheap."""
        module, _, name = self.reference.rpartition(".")
        return getattr(importlib.import_module(module), name)

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Check `fn`, print the verdict, and return the function to go on with."""
        right, line = self.verdict(fn)
        print(line)
        if right:
            print(f"  Your {self.name} is used from here on.")
            return fn
        print(f"  The notebook goes on with {self.reference}.")
        return self.solution

    def verdict(self, fn: Callable[..., Any]) -> tuple[bool, str]:
        """Whether `fn` is right on every case, and the line that says so with both numbers."""
        if not callable(fn):
            return False, f"✘ {self.name}: expected a function, got {fn!r}"
        count, shown = 0, ""
        for arguments in self.cases():
            expected = self.solution(*copy.deepcopy(arguments))
            try:
                got = fn(*copy.deepcopy(arguments))
            except Exception as error:  # the reader's code may raise anything; it is reported, and the lesson goes on
                return False, f"✘ {self.name}: raised {type(error).__name__}: {error} · {given(arguments)}"
            if got is TODO:
                return False, f"✘ {self.name}: not done yet, expected {brief(expected)} · {given(arguments)}"
            problem, numbers = compare(got, expected, self.tolerance)
            if problem:
                return False, f"✘ {self.name}: {problem} · {given(arguments)}"
            shown = shown or f"{numbers} · {given(arguments)}"
            count += 1
        return True, f"✔ {self.name}: {shown} · {count} case{'s' if count > 1 else ''} tried"


REGISTRY: dict[str, Exercise] = {}


def exercise(
    *,
    reference: str,
    cases: Callable[[], Iterable[tuple]],
    mutants: Sequence[Callable[..., Any]],
    tolerance: float = 1e-5,
) -> Callable[[Callable[..., Any]], Exercise]:
    """Decorate a stub to register it as the exercise of that name.

    Args:
        reference: dotted name of the package's answer.
        cases: makes the argument tuples.
        mutants: two or more planted mistakes that the check must reject.
        tolerance: largest difference allowed, absolute and relative to the expected value.
    """

    def register(stub: Callable[..., Any]) -> Exercise:
        name = stub.__name__
        if name in REGISTRY:
            raise ValueError(f"the exercise {name!r} is registered twice")
        REGISTRY[name] = Exercise(
            name=name, reference=reference, cases=cases, stub=stub, mutants=tuple(mutants), tolerance=tolerance
        )
        return REGISTRY[name]

    return register


def all_exercises() -> Mapping[str, Exercise]:
    """Every registered exercise by name; imports each `checks_*.py` on the way."""
    import kancourse.lesson as package

    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("checks_"):
            importlib.import_module(f"kancourse.lesson.{module.name}")
    return dict(sorted(REGISTRY.items()))


def compare(got: Any, expected: Any, tolerance: float) -> tuple[str, str]:
    """What is wrong ("" when nothing is), and both numbers in words. Tensors, numbers, and tuples of them.

    Numbers may be of any kind; where a tensor is expected only a tensor will do, because the lesson goes on with it.
    """
    if isinstance(expected, tuple | list):
        if not isinstance(got, tuple | list) or len(got) != len(expected):
            return f"got {brief(got)}, expected {len(expected)} values: {brief(expected)}", ""
        shown = ""
        for index, (one, other) in enumerate(zip(got, expected, strict=True)):
            problem, text = compare(one, other, tolerance)
            if problem:
                return f"value {index + 1} of {len(expected)}: {problem}", ""
            shown = shown or text
        return "", shown
    if got is None:
        return f"got None, expected {brief(expected)} (is a `return` missing?)", ""
    if isinstance(expected, torch.Tensor) and expected.dim() > 0 and not isinstance(got, torch.Tensor):
        return f"got a {type(got).__name__}, expected a torch.Tensor: {brief(expected)}", ""
    try:
        have, want = torch.as_tensor(got).detach(), torch.as_tensor(expected).detach()
    except (TypeError, ValueError, RuntimeError):
        return f"got {got!r}, expected {brief(expected)}", ""
    if have.shape != want.shape:
        return f"got shape {tuple(have.shape)}, expected {tuple(want.shape)}", ""
    if want.dtype == torch.bool and have.dtype != torch.bool:
        return f"got {brief(got)} of {have.dtype}, expected {brief(expected)} of {want.dtype}", ""
    have, want = have.double(), want.double()
    same = torch.isclose(have, want, rtol=tolerance, atol=tolerance, equal_nan=True)
    wrong = int((~same).sum())
    if wrong:
        where = tuple((~same).nonzero()[0].tolist())
        place = f" at {list(where)} ({wrong} of {same.numel()} values differ)" if where else ""
        return f"got {have[where].item():.6g}, expected {want[where].item():.6g}{place}", ""
    first = (0,) * want.dim()
    return "", f"got {have[first].item():.6g}, expected {want[first].item():.6g}" if want.numel() else "both empty"


def brief(value: Any) -> str:
    """A value in a few characters: a number, a small vector in full, a tensor's shape."""
    if isinstance(value, torch.Tensor) and value.dim() == 1 and value.numel() <= 6:
        return str([round(number, 3) for number in value.tolist()])
    if isinstance(value, torch.Tensor) and value.dim() > 0:
        return f"tensor({'×'.join(map(str, value.shape))})"
    if isinstance(value, torch.Tensor | float | int) and not isinstance(value, bool):
        return f"{float(value):.6g}"
    if isinstance(value, tuple | list) and len(value) < 5:
        return "(" + ", ".join(brief(item) for item in value) + ")"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"


def given(arguments: Sequence[Any]) -> str:
    """The arguments of a case in words."""
    return f"given {', '.join(brief(value) for value in arguments) or 'nothing'}"
