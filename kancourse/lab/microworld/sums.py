"""The domain `sums`: word problems and bare arithmetic, with right answers.

A document is either a few calculations in a row or one or two word problems: somebody has a number of things, gets
more or gives some away, and a question asks how many there are. Results never leave the range of the level.
"""

from typing import Any

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.engine import Impossible, Writer
from kancourse.lab.microworld.sum_phrases import BOOK, SHAPES

LARGEST = {1: 9, 2: 40, 3: 200}  # largest result
CHANGES = {1: 1, 2: 2, 3: 3}  # most events in one problem


class Sums:
    """A document so far: the people of the current problem with what they have, and what is to be said next."""

    __slots__ = (
        "asked",
        "changes",
        "done",
        "item",
        "level",
        "near",
        "owners",
        "say",
        "since",
        "stage",
        "step",
        "terms",
    )

    def __init__(self, level: int):
        self.level, self.say = level, BOOK.at(level)
        self.step = 0
        self.stage = "start"  # start, calculations, answer calculation, problem, answer problem, worked, finished
        self.done = 0  # calculations or problems finished
        self.item = ""
        self.changes = 0  # events in this problem
        self.owners: dict[str, int] = {}  # person -> how many now
        self.terms: dict[str, tuple[str, tuple[int, ...]]] = {}  # person -> shape and numbers that led there
        self.since: dict[str, int] = {}  # person -> unit with their first number
        self.near: str | None = None  # whom a pronoun would mean
        self.asked: Any = None  # person asked about, "they", or the calculation

    def copy(self) -> "Sums":
        other = Sums.__new__(Sums)
        for name in Sums.__slots__:
            value = getattr(self, name)
            setattr(other, name, value.copy() if name in ("owners", "terms", "since") else value)
        return other

    def end_unit(self, near: str | None = None) -> None:
        self.near = near
        self.step += 1


def result(shape: str, numbers: tuple[int, ...]) -> int | None:
    """The value of a calculation; None when a division leaves a rest or is by zero."""
    first, *others = numbers
    signs = [sign for sign in shape if sign in "+-*/"]
    if "(" in shape:  # (n + n) * n
        return (first + others[0]) * others[1] if signs[0] == "+" else (first - others[0]) * others[1]
    if len(signs) == 2 and signs[1] == "*":  # n + n * n
        return first + others[0] * others[1] if signs[0] == "+" else first - others[0] * others[1]
    for sign, number in zip(signs, others, strict=True):
        if sign == "/":
            if number == 0 or first % number:
                return None
            first //= number
        else:
            first = first + number if sign == "+" else first - number if sign == "-" else first * number
    return first


def step(s: Sums, w: Writer) -> str | None:
    """The next unit; None when the document ends."""
    kinds = _possible(s)
    kind = w.pick("kind", list(kinds), list(kinds.values()))
    return None if kind == "stop" else MOVES[kind](s, w, kind)


def _possible(s: Sums) -> dict[str, int]:
    if s.stage == "answer calculation":
        return {"tell calculation": 1}
    if s.stage in ("answer problem", "worked"):
        told = {"tell all" if s.asked == "they" else "tell count": 1}
        return told | {"calculation": 1} if s.stage == "answer problem" and _term(s)[0] in SHAPES else told
    if s.stage == "start":
        return {"had": 3, "calculation": 1, "ask calculation": 1}
    if s.stage == "calculations":
        return {"calculation": 2, "ask calculation": 2} | ({"stop": s.done - 2} if s.done > 2 else {})
    if s.stage == "finished":
        return {"stop": 2, "had": 1} if s.done < 3 else {"stop": 1}
    kinds: dict[str, int] = {}
    if len(s.owners) < 2 and not s.changes:
        kinds["had"] = 3
    if s.changes < CHANGES[s.level]:
        if any(count < LARGEST[s.level] for count in s.owners.values()):
            kinds["more"] = 3
        if any(count > 1 for count in s.owners.values()):
            kinds["gave"] = 2
            if s.item in lex.FOOD:
                kinds["ate"] = 2
    if s.changes:
        kinds["ask count"] = 6
    if len(s.owners) > 1 and sum(s.owners.values()) <= LARGEST[s.level]:
        kinds["ask all"] = 2
    return kinds


def _calculation(s: Sums, w: Writer, kind: str) -> str:
    if s.stage == "answer problem":
        return _working(s, w, kind)
    shape = w.pick("shape", [shape for shape, known in SHAPES.items() if known <= s.level])
    value = (shape, DRAWS[shape](w, LARGEST[s.level]))
    lead = "" if s.step == 0 else "\n" if kind.startswith("ask") else " "
    slots: dict[str, Any] = {"calculation": value}
    if kind == "calculation":
        w.bearing = s.step
        slots["answer"] = w.answer("answer", result(*value))
        s.done += 1
    s.stage, s.asked = ("calculations" if kind == "calculation" else "answer calculation"), value
    text = w.say(s.say[kind], lead, **slots)
    s.end_unit()
    return text


def _plus(w: Writer, largest: int) -> tuple[int, ...]:
    first = w.pick("n0", range(1, largest))
    return first, w.pick("n1", range(1, largest - first + 1))


def _minus(w: Writer, largest: int) -> tuple[int, ...]:
    first = w.pick("n0", range(2, largest + 1))
    return first, w.pick("n1", range(1, first))


DRAWS = {"n + n": _plus, "n - n": _minus}


def _tell_calculation(s: Sums, w: Writer, kind: str) -> str:
    if s.stage != "answer calculation":
        raise Impossible("answer without question")
    w.bearing = s.step - 1
    text = w.say(
        s.say[kind], calculation=lambda: w.pick("calculation", (s.asked,)), answer=w.answer("answer", result(*s.asked))
    )
    s.stage, s.done = "calculations", s.done + 1
    s.end_unit()
    return text


def _had(s: Sums, w: Writer, kind: str) -> str:
    if s.stage != "problem":
        s.stage, s.changes, s.owners, s.terms, s.since = "problem", 0, {}, {}, {}
    name = w.draw("name", lex.PEOPLE_TABLE[s.level], without=s.owners)
    item = w.pick("item", (s.item,)) if s.owners else w.draw("item", lex.ITEM_TABLE[s.level])
    count = w.pick("count", range(1, LARGEST[s.level]))
    s.item, s.owners[name], s.terms[name], s.since[name] = item, count, ("n", (count,)), s.step
    text = w.say(
        s.say[kind], "" if s.step == 0 else "\n" if len(s.owners) == 1 else " ", name=name, count=(count, item)
    )
    s.end_unit(name)
    return text


def _subject(s: Sums, w: Writer, person: str) -> tuple[str | None, str | None]:
    pronoun = lex.GENDER[person]
    return (pronoun, None) if s.near == person and w.pick("who as", (None, pronoun), (1, 3)) else (None, person)


def _change(s: Sums, w: Writer, kind: str) -> str:
    """Somebody gets or loses some."""
    gains = kind == "more"
    able = [p for p, count in s.owners.items() if (count < LARGEST[s.level] if gains else count > 1)]
    person = w.pick("who", able)
    before = s.owners.get(person, 0)
    amount = w.pick("b", range(1, LARGEST[s.level] - before + 1) if gains else range(1, before))
    slots = {"who": _subject(s, w, person), "b": amount}
    if kind == "gave":
        slots["other"] = w.draw("other", lex.PEOPLE_TABLE[s.level], without=s.owners)
    text = w.say(s.say[kind], **slots)
    shape, numbers = s.terms.get(person, ("n", (before,)))
    s.owners[person] = before + amount if gains else before - amount
    s.terms[person] = (f"{shape} {'+' if gains else '-'} n", (*numbers, amount))
    s.changes += 1
    s.end_unit(None if kind == "gave" else person)
    return text


def _ask(s: Sums, w: Writer, kind: str) -> str:
    slots = {"items": w.pick("items", (s.item,))}
    if kind == "ask count":
        s.asked = slots["name"] = w.pick("name", list(s.owners))
    else:
        s.asked = "they"
    text = w.say(s.say[kind], "\n", **slots)
    s.stage = "answer problem"
    s.end_unit()
    return text


def _term(s: Sums) -> tuple[str, tuple[int, ...]]:
    """The calculation that answers the question asked."""
    if s.asked == "they":
        return " + ".join("n" * len(s.owners)), tuple(s.owners.values())
    return s.terms.get(s.asked, ("n", (0,)))


def _bearing(s: Sums) -> int | None:
    return min(s.since.values(), default=None) if s.asked == "they" else s.since.get(s.asked)


def _working(s: Sums, w: Writer, kind: str) -> str:
    """The calculation written out, before the answer."""
    w.bearing = _bearing(s)
    value = w.pick("calculation", (_term(s),))
    text = w.say(s.say[kind], calculation=value, answer=w.answer("answer", result(*value)))
    s.stage = "worked"
    s.end_unit(s.near)
    return text


def _tell_problem(s: Sums, w: Writer, kind: str) -> str:
    if s.stage not in ("answer problem", "worked") or (kind == "tell all") != (s.asked == "they"):
        raise Impossible("answer without question")
    w.bearing = _bearing(s)
    slots: dict[str, Any] = {"answer": (w.answer("answer", result(*_term(s))), w.pick("item", (s.item,)))}
    if kind == "tell count":
        s.near = s.asked
        slots["who"] = _subject(s, w, s.asked)
    text = w.say(s.say[kind], **slots)
    s.stage, s.done = "finished", s.done + 1
    s.end_unit()
    return text


MOVES = {
    "calculation": _calculation,
    "ask calculation": _calculation,
    "had": _had,
    "more": _change,
    "ate": _change,
    "gave": _change,
    "ask count": _ask,
    "ask all": _ask,
    "tell calculation": _tell_calculation,
    "tell count": _tell_problem,
    "tell all": _tell_problem,
}
