"""The domain `code`: tiny Python programs, and after everything printed a comment that says what.

Every document runs as it stands, and its comments are right. (A test runs them.) Level 1 adds and subtracts; level 2
brings words, lists, loops and branches; level 3 functions, while loops and comparisons.
"""

from kancourse.lab.microworld.code_lines import LINES, line
from kancourse.lab.microworld.code_state import Script
from kancourse.lab.microworld.engine import Impossible, Writer

MOST_PRINTS = {1: 2, 2: 3, 3: 4}
MOST_VARIABLES = {1: 2, 2: 3, 3: 3}
STOP = {1: 2, 2: 3, 3: 3}  # weight of stopping after the first thing printed


def step(s: Script, w: Writer) -> str | None:
    """The next line; None when the program ends."""
    kinds = _possible(s)
    kind = w.pick("kind", list(kinds), list(kinds.values()))
    if kind == "stop":
        return None
    if kind == "prints":
        return _prints(s, w, kind)
    if s.queue:
        s.queue = s.queue[1:]
    return LINES[kind](s, w, kind)


def _prints(s: Script, w: Writer, kind: str) -> str:
    if s.output is None:
        raise Impossible("nothing was printed")
    right, w.bearing = s.output
    s.output = None
    return line(s, w, kind, answer=w.answer("answer", right))


def _possible(s: Script) -> dict[str, int]:
    """Which line can come next, with weights."""
    if s.queue:
        kinds = s.queue[0].split("|")
        return dict.fromkeys(kinds, 1)
    if s.output:
        return {"prints": 1}
    kinds: dict[str, int] = {}
    room = len(s.values) < MOST_VARIABLES[s.level]
    if room:
        kinds["set"] = 3 if not s.started else 1
    if s.level > 1:
        kinds.update(_new_kinds(s))
    if not s.started:  # nothing new to print: begin something, or end
        if s.level > 2 and not s.step:
            kinds["title"] = 2
        if s.prints == MOST_PRINTS[s.level]:
            return {"stop": 1}
        if s.prints:
            kinds["stop"] = STOP[s.level] * s.prints
            kinds.update({kind: weight for kind, weight in _number_lines(s).items() if kind.startswith("set")})
        return kinds
    kinds.update(_number_lines(s))
    if s.texts:
        kinds.update({"print text": 1, "print length": 1} | ({"print texts": 1} if len(s.texts) > 1 else {}))
    if s.lists:
        kinds.update({"print sum": 1, "print max": 1, "print item": 2})
        if s.level > 2:
            kinds.update({"print min": 1, "print sorted": 1, "for list": 1})
            if any(len(values) < 5 for values in s.lists.values()):
                kinds["append"] = 1
    return kinds


def _new_kinds(s: Script) -> dict[str, int]:
    """Ways to begin that need nothing before them."""
    kinds = {"for": 1}
    if len(s.texts) < 2:
        kinds["set text"] = 1
    if len(s.lists) < 1:
        kinds["set list"] = 1
    if s.level > 2:
        if len(s.functions) < 1:
            kinds["def"] = 1
        if s.functions:
            kinds["print call"] = 2
    return kinds


def _number_lines(s: Script) -> dict[str, int]:
    """Lines that read number variables."""
    if not s.values:
        return {}
    kinds = {"print": (6 if s.level == 1 else 4) if s.step > 1 else 1}
    if s.able("plus"):
        kinds.update({"set plus": 2, "print plus": 1})
    if s.able("minus"):
        kinds["set minus"] = 1
    if s.able("both"):
        kinds.update({"set both": 1, "print both": 2})
    if s.level > 1:
        kinds.update({"if more": 1, "if less": 1} | ({"set times": 1} if s.able("times") else {}))
    if s.level > 2:
        kinds["print equal"] = 1
        if len(s.values) > 1:
            kinds["print compare"] = 1
        if s.functions and s.callable_on():
            kinds["set call"] = 2
        if any(value < 20 for value in s.values.values()):
            kinds["while"] = 1
    return kinds
