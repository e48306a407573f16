"""The domain `sums`: word problems and bare arithmetic, with right answers.

A document is either a few calculations in a row or one to three word problems: people have a number of things, get more
or give some away, compare, share, fill boxes, pay; then a question asks how many. No number leaves the level's range.
"""

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.engine import Writer
from kancourse.lab.microworld.sum_moves import LARGEST, MOVES, divisors
from kancourse.lab.microworld.sum_phrases import SHAPES
from kancourse.lab.microworld.sum_state import Sums

CHANGES = {1: 1, 2: 2, 3: 3}  # most events in one problem


def step(s: Sums, w: Writer) -> str | None:
    """The next unit; None when the document ends."""
    kinds = _possible(s)
    kind = w.pick("kind", list(kinds), list(kinds.values()))
    return None if kind == "stop" else MOVES[kind](s, w, kind)


def _possible(s: Sums) -> dict[str, int]:
    problems = {"had": 6} if s.level == 1 else {"had": 6, "boxes": 2, "price": 2}
    if s.stage == "start":
        return problems | {"calculation": 2, "ask calculation": 2}
    if s.stage == "calculations":
        return {"calculation": 2, "ask calculation": 2} | ({"stop": s.done - 2} if s.done > 2 else {})
    if s.stage == "finished":
        return {"stop": 12} | problems if s.done < 3 else {"stop": 1}
    if s.stage in ("asked", "worked"):
        told = {s.question[0].replace("ask", "tell"): 1}
        may_work = s.stage == "asked" and s.question[0] != "ask calculation" and SHAPES.get(s.term[0], 9) <= s.level
        return told | {"calculation": 1} if may_work else told
    if s.stage in ("boxes", "price"):
        return {"each" if s.stage == "boxes" else "bought": 1}
    return {s.question[0]: 1} if s.stage == "ready" else _changes(s)


def _changes(s: Sums) -> dict[str, int]:
    """What can happen to those who have something."""
    kinds: dict[str, int] = {}
    counts = s.owners.values()
    if len(s.owners) < 2 and not s.changes:
        kinds["had"] = s.level
        if s.level > 1:
            kinds["than"] = 1
        if s.level > 2:
            kinds.update({"fewer": 1, "twice": 1} if min(counts) > 1 else {"twice": 1})
    if s.changes < CHANGES[s.level]:
        if min(counts) < LARGEST[s.level]:
            kinds["more"] = 3
        if max(counts) > 1:
            kinds["gave"] = 2
            if s.item in lex.FOOD:
                kinds["ate"] = 2
            if s.level > 1:
                kinds["lost"] = 1
        if s.level > 2 and len(counts) == 1 and any(divisors(count) for count in counts):
            kinds["shared"] = 2
    if s.changes:
        kinds["ask count"] = 6
    if len(s.owners) > 1 and sum(counts) <= LARGEST[s.level]:
        kinds["ask all"] = 2
    return kinds or {"ask all": 1}
