"""What a program remembers while it is written: the values of its variables, open blocks, and output not yet told."""

from typing import Any

from kancourse.lab.microworld.code_phrases import BOOK, INDENTED, LARGEST
from kancourse.lab.microworld.engine import Writer


class Script:
    """A program so far."""

    __slots__ = (
        "block", "functions", "level", "lists", "output", "prints", "queue", "say", "since", "started", "step", "texts",
        "values",
    )  # fmt: skip

    def __init__(self, level: int):
        self.level, self.say = level, BOOK.at(level)
        self.step = 0
        self.values: dict[str, int] = {}  # number variables
        self.texts: dict[str, str] = {}
        self.lists: dict[str, tuple[int, ...]] = {}
        self.functions: dict[str, tuple[str, int]] = {}  # name -> sign and number: n + 3, n * 2
        self.since: dict[str, int] = {}  # variable -> line which set it
        self.queue: tuple[str, ...] = ()  # kinds of line that must come next, "a|b" for a choice
        self.block: dict[str, Any] = {}  # what the open block needs to know
        self.output: tuple[str | None, int] | None = None  # text printed and not yet told, line it comes from
        self.started = False  # whether something was set since the last print
        self.prints = 0

    def copy(self) -> "Script":
        other = Script.__new__(Script)
        for name in Script.__slots__:
            value = getattr(self, name)
            setattr(other, name, value.copy() if type(value) is dict and name != "say" else value)
        return other

    def store(self, name: str, value: Any) -> None:
        """Sets a variable of any kind."""
        kind = self.texts if isinstance(value, str) else self.lists if isinstance(value, tuple) else self.values
        kind[name] = value
        self.since[name] = self.step
        self.started = True

    def show(self, output: str | None, *names: str) -> None:
        """Prints something which depends on these variables."""
        self.output = output, min((self.since.get(name, self.step) for name in names), default=self.step)
        self.prints += 1
        self.started = False

    @property
    def largest(self) -> int:
        return LARGEST[self.level]

    def partners(self, left: str) -> list[str]:
        """Variables whose sum with `left` is not too large."""
        value = self.values.get(left, 0)
        return [name for name, other in self.values.items() if name != left and value + other <= self.largest]

    def able(self, form: str) -> list[str]:
        """Variables that a line of this form can read."""
        if form == "plus":
            return [name for name, value in self.values.items() if value < self.largest]
        if form == "minus":
            return [name for name, value in self.values.items() if value > 1]
        if form == "times":
            return [name for name, value in self.values.items() if 0 < value <= self.largest // 2]
        return [name for name in self.values if self.partners(name)]

    def callable_on(self) -> list[str]:
        """Variables on which every function gives a number that is not too large."""
        return [name for name, value in self.values.items() if value <= self.largest // 10]


def line(s: Script, w: Writer, kind: str, **slots: Any) -> str:
    """Writes one line, indented inside a block."""
    lead = ("\n" if s.step else "") + ("    " if kind in INDENTED else "")
    text = w.say(s.say[kind], lead, **slots)
    s.step += 1
    return text
