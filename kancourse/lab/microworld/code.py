"""The domain `code`: tiny Python programs, and beside every `print` a comment that says what it prints.

Every document runs as it stands; its comments are right. (A test runs them.)
"""

from typing import Any

from kancourse.lab.microworld.engine import Impossible, Table, Writer
from kancourse.lab.microworld.phrases import Number, PhraseBook, Words

LARGEST = {1: 9, 2: 99, 3: 999}  # largest value of a variable
VARIABLES = {1: ["x", "y", "a", "b", "n"]}
VARIABLE_TABLE = {level: Table(VARIABLES[1], [5, 4, 3, 3, 2]) for level in (1, 2, 3)}

BOOK = PhraseBook({"n": Number(LARGEST), "var": Words(VARIABLES)}, prose=False)
BOOK.add("set", {1: ["{var} = {n}"]}, opens="line")
BOOK.add("set plus", {1: ["{var} = {left:var} + {n}"]}, opens="line")
BOOK.add("set minus", {1: ["{var} = {left:var} - {n}"]}, opens="line")
BOOK.add("set both", {1: ["{var} = {left:var} + {right:var}"]}, opens="line")
BOOK.add("print", {1: ["print({left:var})"]}, opens="line")
BOOK.add("print plus", {1: ["print({left:var} + {n})"]}, opens="line")
BOOK.add("print both", {1: ["print({left:var} + {right:var})"]}, opens="line")
BOOK.add("prints", {1: ["# prints {answer:n}"]}, opens="line")


class Script:
    """A program so far: the values of its variables, and what was printed but not yet said."""

    __slots__ = ("last", "level", "output", "prints", "say", "since", "step", "values")

    def __init__(self, level: int):
        self.level, self.say = level, BOOK.at(level)
        self.step = 0
        self.values: dict[str, int] = {}
        self.since: dict[str, int] = {}  # variable -> line which set it
        self.last = ""  # the variable set last
        self.output: tuple[int | None, int] | None = None  # value printed, line it comes from
        self.prints = 0

    def copy(self) -> "Script":
        other = Script.__new__(Script)
        for name in Script.__slots__:
            value = getattr(self, name)
            setattr(other, name, value.copy() if name in ("values", "since") else value)
        return other


def step(s: Script, w: Writer) -> str | None:
    """The next line; None when the program ends."""
    kinds = _possible(s)
    kind = w.pick("kind", list(kinds), list(kinds.values()))
    if kind == "stop":
        return None
    if kind == "prints":
        return _prints(s, w, kind)
    return _set(s, w, kind) if kind.startswith("set") else _print(s, w, kind)


def _possible(s: Script) -> dict[str, int]:
    if s.output:
        return {"prints": 1}
    if not s.values:
        return {"set": 1}
    if s.last == "" and s.prints:
        stop = {"stop": 2 * s.prints}
        return stop | ({"set": 1} if s.prints < 3 and len(s.values) < 4 else {})
    kinds = {"print": 3, "print plus": 1}
    if len(s.values) < 4:
        kinds.update({"set": 2 if len(s.values) == 1 else 1, "set plus": 2, "set minus": 1, "set both": 1})
    if len(s.values) > 1:
        kinds["print both"] = 2
    largest = LARGEST[s.level]
    if min(s.values.values()) >= largest:
        kinds = {kind: weight for kind, weight in kinds.items() if not kind.endswith("plus")}
    if max(s.values.values()) < 2:
        kinds.pop("set minus", None)
    if not _pairs(s):
        kinds = {kind: weight for kind, weight in kinds.items() if not kind.endswith("both")}
    return kinds


def _pairs(s: Script) -> list[str]:
    """Variables that can be added to some other one."""
    smallest = min(s.values.values(), default=0)
    return [name for name, value in s.values.items() if value + smallest <= LARGEST[s.level] and _partners(s, name)]


def _partners(s: Script, left: str) -> list[str]:
    return [n for n, v in s.values.items() if n != left and v + s.values.get(left, 0) <= LARGEST[s.level]]


def _line(s: Script, w: Writer, kind: str, **slots: Any) -> str:
    text = w.say(s.say[kind], "\n" if s.step else "", **slots)
    s.step += 1
    return text


def _prints(s: Script, w: Writer, kind: str) -> str:
    if s.output is None:
        raise Impossible("nothing was printed")
    right, w.bearing = s.output
    s.output = None
    return _line(s, w, kind, answer=w.answer("answer", right))


def _set(s: Script, w: Writer, kind: str) -> str:
    slots, value, _ = _value(s, w, kind.removeprefix("set"))
    name = w.draw("var", VARIABLE_TABLE[s.level], without=s.values if kind == "set" else ())
    s.values[name], s.since[name], s.last = value, s.step, name
    return _line(s, w, kind, var=name, **slots)


def _value(s: Script, w: Writer, form: str) -> tuple[dict[str, Any], int, int]:
    """The right side of a line: its slots, its value, and the line its first variable was set in."""
    largest = LARGEST[s.level]
    if not form:
        value = w.pick("n", range(1, largest + 1))
        return {"n": value}, value, s.step
    if form == " plus":
        able = [name for name, value in s.values.items() if value < largest]
    elif form == " minus":
        able = [name for name, value in s.values.items() if value > 1]
    else:
        able = _pairs(s)
    left = w.pick("left", able)
    value, since = s.values.get(left, 0), s.since.get(left, s.step)
    if form == " both":
        right = w.pick("right", _partners(s, left))
        return {"left": left, "right": right}, value + s.values.get(right, 0), min(since, s.since.get(right, s.step))
    number = w.pick("n", range(1, largest - value + 1) if form == " plus" else range(1, value))
    return {"left": left, "n": number}, value + number if form == " plus" else value - number, since


def _print(s: Script, w: Writer, kind: str) -> str:
    if kind == "print":
        left = w.pick("left", list(s.values))
        slots, value, since = {"left": left}, s.values.get(left), s.since.get(left, s.step)
    else:
        slots, value, since = _value(s, w, kind.removeprefix("print"))
    s.output, s.last = (value, since), ""
    s.prints += 1
    return _line(s, w, kind, **slots)
