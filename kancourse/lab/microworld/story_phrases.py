"""How stories are worded: the slots and phrases of the domain `stories`.

- `{who}` is a person who does something (Mia, she), `{whom}` one to whom it is done (Mia, her);
- `{thing}` is a thing spoken of before (the ball, it), `{new}` one spoken of for the first time (a red ball);
- `{spot}` is where things lie, `{room}` and `{to}` are where people are and go.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.phrases import PhraseBook, Pronominal, Slot, Words


class NewThing(Slot):
    """`a red ball`: value (adjective or None, thing); hints the program's choices `<name>` and `<name> adjective`."""

    def __init__(self) -> None:
        self.adjectives = Words(lex.ADJECTIVES)
        self.things = Words(lex.THINGS)

    def text(self, value: Any) -> str:
        return lex.indefinite(value[1], value[0])

    def match(self, words: Sequence[str], i: int) -> Iterator[tuple[Any, int]]:
        if i < len(words) and words[i] in ("a", "an"):
            for thing, after in self.things.match(words, i + 1):
                yield (None, thing), after
            for adjective, middle in self.adjectives.match(words, i + 1):
                for thing, after in self.things.match(words, middle):
                    yield (adjective, thing), after

    def samples(self, level: int) -> Iterable[str]:
        plain = [lex.indefinite(thing) for thing in lex.up_to(lex.THINGS, level)]
        return plain + [lex.indefinite("ball", adjective) for adjective in lex.up_to(lex.ADJECTIVES, level)]

    def hints(self, name: str, value: Any) -> dict[str, Any]:
        return {"described": value[0] is not None, f"{name} adjective": value[0], name: value[1]}


BOOK = PhraseBook(
    {
        "name": Words(lex.PEOPLE),
        "who": Pronominal(lex.PEOPLE, ("he", "she")),
        "whom": Pronominal(lex.PEOPLE, ("him", "her")),
        "thing": Pronominal(lex.THINGS, ("it",), lambda thing: f"the {thing}"),
        "the": Words(lex.THINGS, lambda thing: f"the {thing}"),
        "new": NewThing(),
        "spot": Words(lex.SPOTS),
        "from": Words(lex.SPOTS, lex.from_spot),
        "room": Words(lex.ROOMS),
        "to": Words(lex.ROOMS, lex.to_room),
    }
)

BOOK.add("scene", {1: ["[one day, |one morning, |]{name} was {room}."]}, opens="line")
BOOK.add("scene two", {1: ["[one day, |one morning, |]{name} and {other:name} were {room}."]}, opens="line")
BOOK.add("come", {1: ["[then |]{name} came {to}.", "[then |]{name} came too."]}, opens="later")
BOOK.add("own", {1: ["{who} had {new}."]}, opens="later")
BOOK.add("there", {1: ["there was {new} {spot}."]}, opens="later")
BOOK.add("find", {1: ["[then |]{who} found {new} {spot}."]}, opens="later")
BOOK.add("put", {1: ["[then |]{who} put {thing} {spot}."]}, opens="later")
BOOK.add("take", {1: ["[then |]{who} took {thing} {from}."]}, opens="later")
BOOK.add("give", {1: ["[then |]{who} gave {thing} to {whom}."]}, opens="later")
BOOK.add("go", {1: ["[then |]{who} went {to}."]}, opens="later")
BOOK.add("carry", {1: ["[then |]{who} took {thing} {to}."]}, opens="later")
BOOK.add("mood", {1: ["{who} was [happy*3|sad|tired]."]}, opens="later")
BOOK.add("act", {1: ["{who} [sat down|sang|smiled|ran]."]}, opens="later")
BOOK.add("weather", {1: ["[it was a warm day*2|the sun was warm|a bird sang|it was cold]."]}, opens="later")

BOOK.add("ask spot", {1: ["where is {the}[| now]?"]}, opens="line")
BOOK.add("ask holder", {1: ["who has {the}[| now]?"]}, opens="line")
BOOK.add("ask room", {1: ["where is {name}[| now]?"]}, opens="line")
BOOK.add("tell spot", {1: ["it is {answer:spot}.", "{the} is {answer:spot}.", "{answer:spot}."]}, opens="later")
BOOK.add("tell holder", {1: ["{answer:name} has it.", "{answer:name} has {the}.", "{answer:name}."]}, opens="later")
BOOK.add("tell room", {1: ["{who} is {answer:room}.", "{answer:room}."]}, opens="later")
