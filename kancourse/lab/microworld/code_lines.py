"""The lines of a program: each chooses its names and numbers, is run in the state, and is written.

`LINES[kind](s, w, kind) -> text`. Blocks queue the kinds of line that must follow.
"""

from collections.abc import Callable
from typing import Any

from kancourse.lab.microworld.code_phrases import FUNCTIONS, LISTS, SAYINGS, STRINGS, TEXTS, VARIABLES
from kancourse.lab.microworld.code_state import Script, line
from kancourse.lab.microworld.engine import Impossible, Table, Writer
from kancourse.lab.microworld.lexicon import tables, up_to

VARIABLE_TABLE, STRING_TABLE = tables(VARIABLES), tables(STRINGS)
TEXT_TABLE, LIST_TABLE, FUNCTION_TABLE = tables(TEXTS), tables(LISTS), tables(FUNCTIONS)
SAYING_TABLE = {level: Table(up_to(SAYINGS, level)) for level in (2, 3)}


def _value(s: Script, w: Writer, form: str) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """The right side `x + 2`, `x - 2`, `x * 2` or `x + y`: its slots, its value, the variables it reads."""
    left = w.pick("left", s.able(form))
    value = s.values.get(left, 0)
    if form == "both":
        right = w.pick("right", s.partners(left))
        return {"left": left, "right": right}, value + s.values.get(right, 0), (left, right)
    if form == "minus":
        number = w.pick("n", range(1, min(value, 4 if s.level == 1 else 21)))
        return {"left": left, "n": number}, value - number, (left,)
    if form == "times":
        number = w.pick("n", range(2, max(3, min(10, s.largest // max(value, 1) + 1))))
        return {"left": left, "n": number}, value * number, (left,)
    number = w.pick("n", range(1, min(s.largest - value, 3 if s.level == 1 else 20) + 1))
    return {"left": left, "n": number}, value + number, (left,)


def set_number(s: Script, w: Writer, kind: str) -> str:
    """`x = 3`."""
    name = w.draw("var", VARIABLE_TABLE[s.level], without=s.values)
    number = w.pick("n", range(1, (7, 21, 51)[s.level - 1]))
    s.store(name, number)
    return line(s, w, kind, var=name, n=number)


def set_value(s: Script, w: Writer, kind: str) -> str:
    """`y = x + 2`, also with -, * or two variables."""
    slots, value, _ = _value(s, w, kind.removeprefix("set "))
    name = w.draw("var", VARIABLE_TABLE[s.level])
    s.store(name, value)
    return line(s, w, kind, var=name, **slots)


def print_value(s: Script, w: Writer, kind: str) -> str:
    """`print(x + 2)` or `print(x + y)`."""
    slots, value, read = _value(s, w, kind.removeprefix("print "))
    s.show(str(value), *read)
    return line(s, w, kind, **slots)


def print_variable(s: Script, w: Writer, kind: str) -> str:
    """`print(x)`, rather of the newest variable."""
    newest = max(s.values, key=lambda name: s.since.get(name, 0), default="")
    left = w.pick("left", list(s.values), [4 if name == newest else 1 for name in s.values])
    s.show(str(s.values[left]) if left in s.values else None, left)
    return line(s, w, kind, left=left)


def set_text(s: Script, w: Writer, kind: str) -> str:
    """`name = "dog"`."""
    name = w.draw("text", TEXT_TABLE[s.level], without=s.texts)
    string = w.draw("string", STRING_TABLE[s.level])
    s.store(name, string)
    return line(s, w, kind, text=name, string=string)


def print_text(s: Script, w: Writer, kind: str) -> str:
    """`print(name)`, its length, or two texts side by side."""
    name = w.pick("text", list(s.texts))
    string = s.texts.get(name)
    if kind == "print texts":
        other = w.pick("other", [text for text in s.texts if text != name])
        s.show(f"{string} {s.texts.get(other)}", name, other)
        return line(s, w, kind, text=name, other=other)
    s.show(str(len(string)) if string and kind == "print length" else string, name)
    return line(s, w, kind, text=name)


def set_list(s: Script, w: Writer, kind: str) -> str:
    """`items = [3, 1, 4]`."""
    name = w.draw("list", LIST_TABLE[s.level], without=s.lists)
    numbers = {place: w.pick(place, range(1, 10)) for place in ("first", "second", "third")}
    s.store(name, tuple(numbers.values()))
    return line(s, w, kind, list=name, **numbers)


def print_list(s: Script, w: Writer, kind: str) -> str:
    """An item of a list, or its sum, largest, smallest or sorted values."""
    name = w.pick("list", list(s.lists))
    values, slots = s.lists.get(name, ()), {"list": name}
    if kind == "print item":
        slots["n"] = w.pick("n", range(len(values)))
        shown = values[slots["n"]] if slots["n"] < len(values) else None
    else:
        work: Callable[..., Any] = {"sum": sum, "max": max, "min": min, "sorted": sorted}[kind.removeprefix("print ")]
        shown = work(values) if values else None
    s.show(None if shown is None else str(shown), name)
    return line(s, w, kind, **slots)


def append(s: Script, w: Writer, kind: str) -> str:
    """`items.append(4)`."""
    name = w.pick("list", [name for name, values in s.lists.items() if len(values) < 5])
    number = w.pick("n", range(1, 10))
    s.store(name, (*s.lists.get(name, ()), number))
    return line(s, w, kind, list=name, n=number)


def loop(s: Script, w: Writer, kind: str) -> str:
    """`for i in range(3):` or `for item in items:`."""
    if kind == "for":
        number = w.pick("n", range(2, 5))
        s.block = {"over": tuple(range(number)), "names": ()}
        s.queue = ("body print|body plus|body add",) if s.able("plus") else ("body print|body plus",)
        return line(s, w, kind, n=number)
    name = w.pick("list", list(s.lists))
    s.block = {"over": s.lists.get(name, ()), "names": (name,)}
    s.queue = ("item print|item times",)
    return line(s, w, kind, list=name)


def body(s: Script, w: Writer, kind: str) -> str:
    """What a loop does each time."""
    over = s.block.get("over", ())
    if kind == "body add":
        left = w.pick("left", s.able("plus"))
        name = w.pick("var", (left,))
        s.store(name, s.values.get(left, 0) + sum(over))
        return line(s, w, kind, var=name, left=left)
    slots: dict[str, Any] = {}
    if kind in ("body plus", "item times"):
        slots["n"] = w.pick("n", range(1, 10) if kind == "body plus" else range(2, 5))
    number = slots.get("n", 0)
    shown = [value * number if kind == "item times" else value + number for value in over]
    s.show(", ".join(map(str, shown)), *s.block.get("names", ()))
    return line(s, w, kind, **slots)


def branch(s: Script, w: Writer, kind: str) -> str:
    """`if x > 3:`, with what to print in both cases to follow."""
    left = w.pick("left", list(s.values))
    value = s.values.get(left, 0)
    number = w.pick("n", range(max(1, value - 5), value + 6))
    s.block = {"holds": value > number if kind == "if more" else value < number, "names": (left,)}
    s.queue = ("then", "else", "otherwise")
    return line(s, w, kind, left=left, n=number)


def branch_print(s: Script, w: Writer, kind: str) -> str:
    """What is printed in one case of a branch: the other case says the opposite."""
    if kind == "then":
        said = w.pick("saying", [word for pair in up_to(SAYINGS, s.level) for word in pair])
        s.block = {**s.block, "then": said}
    else:
        then = s.block.get("then")
        others = [b if a == then else a for a, b in up_to(SAYINGS, s.level) if then in (a, b)]
        said = w.pick("saying", others)
        s.show(then if s.block.get("holds") else said, *s.block.get("names", ()))
    return line(s, w, kind, saying=said)


def define(s: Script, w: Writer, kind: str) -> str:
    """`def f(n):`, with its body to follow."""
    name = w.draw("function", FUNCTION_TABLE[s.level], without=s.functions)
    s.block, s.queue = {"function": name}, ("return plus|return times",)
    return line(s, w, kind, function=name)


def give_back(s: Script, w: Writer, kind: str) -> str:
    """`return n + 3`: the body of the function."""
    if "function" not in s.block:
        raise Impossible("return outside a function")
    number = w.pick("n", range(2, 10))
    s.functions[s.block["function"]] = ("+" if kind == "return plus" else "*", number)
    s.since[s.block["function"]] = s.step
    return line(s, w, kind, n=number)


def call(s: Script, w: Writer, kind: str) -> str:
    """`y = f(x)` or `print(f(3))`."""
    name = w.pick("function", list(s.functions))
    sign, number = s.functions.get(name, ("+", 0))
    if kind == "print call":
        given = w.pick("n", range(1, 10))
        known = name in s.functions
        s.show(str(given + number if sign == "+" else given * number) if known else None, name)
        return line(s, w, kind, function=name, n=given)
    left = w.pick("left", s.callable_on())
    value = s.values.get(left, 0)
    variable = w.draw("var", VARIABLE_TABLE[s.level])
    s.store(variable, value + number if sign == "+" else value * number)
    return line(s, w, kind, function=name, left=left, var=variable)


def while_loop(s: Script, w: Writer, kind: str) -> str:
    """`while x < 9:`, with its body to follow."""
    left = w.pick("left", [name for name, value in s.values.items() if value < 20])
    limit = w.pick("n", range(s.values.get(left, 0) + 1, s.values.get(left, 0) + 21))
    s.block, s.queue = {"left": left, "limit": limit}, ("while body",)
    return line(s, w, kind, left=left, n=limit)


def while_body(s: Script, w: Writer, kind: str) -> str:
    """What the loop adds each round; the state holds what is left when it ends."""
    left = w.pick("left", (s.block.get("left", ""),))
    name = w.pick("var", (left,))
    number = w.pick("n", range(2, 10))
    value, limit = s.values.get(left, 0), s.block.get("limit", 0)
    rounds = -(-(limit - value) // number) if number > 0 else 0
    s.store(name, value + max(rounds, 0) * number)
    return line(s, w, kind, var=name, left=left, n=number)


def compare(s: Script, w: Writer, kind: str) -> str:
    """`print(x > y)` or `print(x == 3)`."""
    left = w.pick("left", list(s.values))
    value = s.values.get(left, 0)
    if kind == "print compare":
        right = w.pick("right", [name for name in s.values if name != left])
        s.show(str(value > s.values.get(right, 0)), left, right)
        return line(s, w, kind, left=left, right=right)
    number = w.pick("n", (value, value + 1, value + 2), (2, 1, 1))
    s.show(str(value == number), left)
    return line(s, w, kind, left=left, n=number)


def plain(s: Script, w: Writer, kind: str) -> str:
    """A line without choices."""
    return line(s, w, kind)


LINES: dict[str, Callable[[Script, Writer, str], str]] = {
    "title": plain,
    "set": set_number,
    **dict.fromkeys(("set plus", "set minus", "set times", "set both"), set_value),
    **dict.fromkeys(("print plus", "print both"), print_value),
    "print": print_variable,
    "set text": set_text,
    **dict.fromkeys(("print text", "print length", "print texts"), print_text),
    "set list": set_list,
    **dict.fromkeys(("print sum", "print max", "print min", "print sorted", "print item"), print_list),
    "append": append,
    **dict.fromkeys(("for", "for list"), loop),
    **dict.fromkeys(("body print", "body plus", "body add", "item print", "item times"), body),
    **dict.fromkeys(("if more", "if less"), branch),
    **dict.fromkeys(("then", "otherwise"), branch_print),
    "else": plain,
    "def": define,
    **dict.fromkeys(("return plus", "return times"), give_back),
    **dict.fromkeys(("set call", "print call"), call),
    "while": while_loop,
    "while body": while_body,
    **dict.fromkeys(("print compare", "print equal"), compare),
}
