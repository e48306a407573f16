"""The events, questions and answers of the domain `sums`: each chooses names and numbers, then says them."""

from typing import Any

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.calculations import draw_calculation, result
from kancourse.lab.microworld.engine import Impossible, Writer
from kancourse.lab.microworld.sum_state import Sums

LARGEST = {1: 9, 2: 40, 3: 200}  # largest count of things
STEP = {1: 3, 2: 12, 3: 60}  # most that is gained or lost at once


def divisors(count: int) -> list[int]:
    """Among how many people a count can be shared."""
    return [number for number in range(2, 10) if count % number == 0 and count > number]


def _lead(s: Sums, *, line: bool) -> str:
    return "" if s.step == 0 else "\n" if line else " "


def _calculation(s: Sums, w: Writer, kind: str) -> str:
    if s.stage == "asked":
        return _working(s, w, kind)
    value = draw_calculation(w, s.level)
    slots: dict[str, Any] = {"calculation": value}
    if kind == "calculation":
        w.bearing = s.step
        slots["answer"] = w.answer("answer", result(*value))
        s.stage, s.done = "calculations", s.done + 1
    else:
        s.stage, s.question, s.term = "asked", (kind, ""), value
    text = w.say(s.say[kind], _lead(s, line=kind != "calculation"), **slots)
    s.end_unit()
    return text


def _had(s: Sums, w: Writer, kind: str) -> str:
    """Somebody has a number of things; the first one starts a problem."""
    first = s.stage != "problem"
    if first:
        s.new_problem()
        s.stage = "problem"
    name = w.draw("name", lex.PEOPLE_TABLE[s.level], without=s.owners)
    item = w.draw("item", lex.ITEM_TABLE[s.level]) if first else w.pick("item", (s.item,))
    left = LARGEST[s.level] - sum(s.owners.values())
    count = w.pick("count", range(1, max(2, min(left, 2 * LARGEST[s.level] // 3) + 1)))
    s.item, s.owners[name], s.terms[name], s.since[name] = item, count, ("n", (count,)), s.step
    text = w.say(s.say[kind], _lead(s, line=first), name=name, count=(count, item))
    s.end_unit(name)
    return text


def _compared(s: Sums, w: Writer, kind: str) -> str:
    """Somebody has more or fewer than the first one."""
    if s.stage != "problem":
        raise Impossible("compared with nobody")
    other = w.pick("other", list(s.owners))
    before = s.owners.get(other, 1)
    name = w.draw("name", lex.PEOPLE_TABLE[s.level], without=s.owners)
    slots: dict[str, Any] = {"name": name, "other": other}
    if kind == "twice":
        term = ("n * n", (2, before))
    else:
        most = STEP[s.level] if kind == "than" else min(STEP[s.level], max(before - 1, 1))
        slots["b"] = w.pick("b", range(1, most + 1))
        term = ("n + n" if kind == "than" else "n - n", (before, slots["b"]))
    s.owners[name], s.terms[name], s.since[name] = result(*term) or 0, term, s.since.get(other, s.step)
    s.changes += 1
    text = w.say(s.say[kind], **slots)
    s.end_unit(name)
    return text


def _subject(s: Sums, w: Writer, person: str) -> tuple[str | None, str | None]:
    pronoun = lex.GENDER.get(person)
    if s.near == person and w.pick("who as", (None, pronoun), (1, 3)):
        return pronoun, None
    return None, w.pick("who", (person,))


def _change(s: Sums, w: Writer, kind: str) -> str:
    """Somebody gets or loses some."""
    gains, most = kind == "more", LARGEST[s.level]
    person = w.pick("person", [p for p, count in s.owners.items() if (count < most if gains else count > 1)])
    before = s.owners.get(person, 0)
    limit = min(3 if kind == "ate" else STEP[s.level], most - before if gains else before - 1)
    amount = w.pick("b", range(1, max(limit, 1) + 1))
    slots = {"who": lambda: _subject(s, w, person), "name": lambda: w.pick("name", (person,)), "b": amount}
    if kind == "gave":
        slots["other"] = w.draw("other", lex.PEOPLE_TABLE[s.level], without=s.owners)
    text = w.say(s.say[kind], **slots)
    shape, numbers = s.terms.get(person, ("n", (before,)))
    s.owners[person] = before + amount if gains else before - amount
    if "*" in shape:
        shape, numbers = "n", (before,)
    s.terms[person] = (f"{shape} {'+' if gains else '-'} n", (*numbers, amount))
    s.changes += 1
    s.end_unit(None if kind == "gave" else person)
    return text


def _shared(s: Sums, w: Writer, kind: str) -> str:
    person = w.pick("person", list(s.owners))
    count = s.owners.get(person, 0)
    parts = w.pick("b", divisors(count))
    text = w.say(s.say[kind], who=lambda: _subject(s, w, person), b=parts)
    s.stage, s.question, s.term = "ready", ("ask share", person), ("n / n", (count, parts))
    s.end_unit(person)
    return text


def _boxes(s: Sums, w: Writer, kind: str) -> str:
    """Boxes with things in them: so many boxes, and how many in each."""
    if kind == "boxes":
        s.new_problem()
        s.container = w.draw("container", CONTAINER_TABLE[s.level])
        number = w.pick("a", range(2, 10))
        name = {"name": lambda: w.draw("name", lex.PEOPLE_TABLE[s.level])}
        s.stage, s.term, s.since = "boxes", ("n", (number,)), {"": s.step}
        text = w.say(s.say[kind], _lead(s, line=True), a=number, containers=s.container, **name)
    else:
        if s.stage != "boxes":
            raise Impossible("no boxes to fill")
        s.item = w.draw("item", lex.ITEM_TABLE[s.level])
        number = w.pick("b", range(2, 10))
        container = w.pick("container", (s.container,))
        s.stage, s.question, s.term = "ready", ("ask boxes", ""), ("n * n", (s.term[1][0], number))
        text = w.say(s.say[kind], container=container, b=(number, s.item))
    s.end_unit()
    return text


def _price(s: Sums, w: Writer, kind: str) -> str:
    """Something has a price, and somebody buys some."""
    if kind == "price":
        s.new_problem()
        s.item = w.draw("item", BUYABLE[s.level])
        number = w.pick("a", range(2, 10))
        s.stage, s.term, s.since = "price", ("n", (number,)), {"": s.step}
        text = w.say(s.say[kind], _lead(s, line=True), a=number, item=s.item)
        s.end_unit()
        return text
    if s.stage != "price":
        raise Impossible("nothing has a price")
    name = w.draw("name", lex.PEOPLE_TABLE[s.level])
    number = w.pick("b", range(2, 10))
    s.stage, s.question, s.term = "ready", ("ask price", name), ("n * n", (s.term[1][0], number))
    text = w.say(s.say[kind], b=number, name=name)
    s.end_unit(name)
    return text


CONTAINER_TABLE = lex.tables(lex.CONTAINERS)
BUYABLE = lex.tables({level: [item for item in items if item != "coin"] for level, items in lex.ITEMS.items()})


def _ask(s: Sums, w: Writer, kind: str) -> str:
    slots = {"items": lambda: w.pick("items", (s.item,))}
    about = s.question[1]
    if kind == "ask count":
        changed = [3 if len(s.terms[name][1]) > 1 else 1 for name in s.owners]
        about = slots["name"] = w.pick("name", list(s.owners), changed)
        s.term = s.terms.get(about, ("n", (0,)))
    elif kind == "ask price":
        slots["name"] = lambda: w.pick("name", (about,))
    elif kind == "ask all":
        s.term = " + ".join("n" * len(s.owners)), tuple(s.owners.values())
    text = w.say(s.say[kind], "\n", **slots)
    s.stage, s.question = "asked", (kind, about)
    s.end_unit()
    return text


def _bearing(s: Sums) -> int | None:
    return s.since.get(s.question[1], min(s.since.values(), default=s.step - 1))


def _working(s: Sums, w: Writer, kind: str) -> str:
    """The calculation written out, before the answer."""
    w.bearing = _bearing(s)
    value = w.pick("calculation", (s.term,))
    text = w.say(s.say[kind], calculation=value, answer=w.answer("answer", result(*value)))
    s.stage = "worked"
    s.end_unit()
    return text


def _tell(s: Sums, w: Writer, kind: str) -> str:
    asked, about = s.question
    if s.stage not in ("asked", "worked") or asked.replace("ask", "tell") != kind:
        raise Impossible("answer without question")
    w.bearing = _bearing(s)
    right = w.answer("answer", result(*s.term))
    slots: dict[str, Any] = {"answer": right, "calculation": lambda: w.pick("calculation", (s.term,))}
    if kind not in ("tell calculation", "tell price"):
        slots["answer"] = (right, w.pick("item", (s.item,)))
    s.near = about
    text = w.say(s.say[kind], who=lambda: _subject(s, w, about), **slots)
    s.stage, s.done = ("calculations" if asked == "ask calculation" else "finished"), s.done + 1
    s.end_unit()
    return text


MOVES = {
    "calculation": _calculation,
    "ask calculation": _calculation,
    "had": _had,
    **dict.fromkeys(("than", "fewer", "twice"), _compared),
    **dict.fromkeys(("more", "ate", "gave", "lost"), _change),
    "shared": _shared,
    **dict.fromkeys(("boxes", "each"), _boxes),
    **dict.fromkeys(("price", "bought"), _price),
    **dict.fromkeys(("ask count", "ask all", "ask boxes", "ask price", "ask share"), _ask),
    **dict.fromkeys(("tell calculation", "tell count", "tell all", "tell boxes", "tell price", "tell share"), _tell),
}
