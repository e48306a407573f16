"""How sums are worded: the slots and phrases of the domain `sums`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.phrases import PhraseBook
from kancourse.lab.microworld.slots import Number, Pronominal, Slot, Words

LARGEST = {1: 9, 2: 99, 3: 999}  # largest number that a level writes
SHAPES = {  # calculations, by the level which brings them
    "n + n": 1,
    "n - n": 1,
    "n * n": 2,
    "n + n + n": 2,
    "n + n - n": 2,
    "n - n + n": 3,
    "n - n - n": 3,
    "n / n": 3,
    "(n + n) * n": 3,
    "(n - n) * n": 3,
    "n + n * n": 3,
}


class Count(Slot):
    """`1 apple`, `3 apples`: value (number, noun); hints `<name>` and `item`."""

    def __init__(self) -> None:
        self.number = Number(LARGEST)
        self.one = Words(lex.ITEMS)
        self.many = Words(lex.ITEMS, lex.plural)

    def text(self, value: Any) -> str:
        number, item = value
        return f"{number} {item if number == 1 else lex.plural(item)}"

    def match(self, words: Sequence[str], i: int) -> Iterator[tuple[Any, int]]:
        for number, middle in self.number.match(words, i):
            for item, after in (self.one if number == 1 else self.many).match(words, middle):
                yield (number, item), after

    def samples(self, level: int) -> Iterable[str]:
        yield from self.number.samples(level)
        for item in lex.up_to(lex.ITEMS, level):
            yield from (f"1 {item}", f"2 {lex.plural(item)}")

    def hints(self, name: str, value: Any) -> dict[str, Any]:
        return {name: value[0], "item": value[1]}


class Calculation(Slot):
    """`3 + 2`, `(4 + 1) * 3`: value (shape, numbers), the shape with `n` for each number; hints `shape`, `n0`, `n1`…"""

    def text(self, value: Any) -> str:
        shape, numbers = value
        parts = iter(numbers)
        return "".join(str(next(parts)) if sign == "n" else sign for sign in shape)

    def match(self, words: Sequence[str], i: int) -> Iterator[tuple[Any, int]]:
        for shape in SHAPES:
            signs = shape.replace(" ", "")
            found = words[i : i + len(signs)]
            if len(found) == len(signs) and all(
                word.isdecimal() if sign == "n" else word == sign for sign, word in zip(signs, found, strict=True)
            ):
                numbers = tuple(int(word) for sign, word in zip(signs, found, strict=True) if sign == "n")
                yield (shape, numbers), i + len(signs)

    def samples(self, level: int) -> Iterable[str]:
        yield from Number(LARGEST).samples(level)
        yield from (shape.replace("n", "2") for shape, known in SHAPES.items() if known <= level)

    def hints(self, name: str, value: Any) -> dict[str, Any]:
        return {name: value, "shape": value[0]} | {f"n{i}": number for i, number in enumerate(value[1])}


BOOK = PhraseBook(
    {
        "n": Number(LARGEST),
        "calculation": Calculation(),
        "count": Count(),
        "item": Words(lex.ITEMS),
        "items": Words(lex.ITEMS, lex.plural),
        "container": Words(lex.CONTAINERS),
        "containers": Words(lex.CONTAINERS, lex.plural, names="container"),
        "name": Words(lex.PEOPLE),
        "who": Pronominal(lex.PEOPLE, {1: ("he", "she")}),
    }
)


def _add(opens: str, phrases: dict[str, dict[int, list[str | tuple[int, str]]]]) -> None:
    for kind, by_level in phrases.items():
        BOOK.add(kind, by_level, opens=opens)


_add(
    "any",
    {
        "calculation": {1: ["{calculation} = {answer:n}."]},
        "had": {
            1: [(3, "{name} had {count}.")],
            2: ["{name} [bought|found|collected] {count}.", "in the morning, {name} had {count}."],
            3: ["at the beginning of the [week|month|year], {name} owned {count}.", "{name} kept {count} in a drawer."],
        },
    },
)
_add(
    "line",
    {
        "boxes": {2: ["{name} had {a:n} {containers}."], 3: ["in the warehouse there were {a:n} {containers}."]},
        "price": {2: ["one {item} cost {a:n} coins."], 3: ["at the market, the price of one {item} was {a:n} coins."]},
        "ask calculation": {1: ["what is {calculation}?"], 3: ["can you work out {calculation}?"]},
        "ask count": {
            1: ["how many {items} did {name} have[*2| then]?"],
            2: ["how many {items} did {name} have in the end?"],
            3: ["with how many {items} did {name} end up?"],
        },
        "ask all": {1: ["how many {items} did they have?"], 2: ["how many {items} was that in all?"]},
        "ask boxes": {2: ["how many {items} were there in all?"], 3: ["what was the total number of {items}?"]},
        "ask price": {2: ["how many coins did {name} pay?"], 3: ["what was the bill for {name}?"]},
        "ask share": {3: ["how many {items} did each of them receive?"]},
    },
)
_add(
    "later",
    {
        "tell calculation": {
            1: ["it is {answer:n}.", "{calculation} is {answer:n}."],
            3: ["the result is {answer:n}."],
        },
        "more": {
            1: [(3, "[*2|then ]{who} [found|got] {b:n} more.")],
            2: ["[after that, |later ]{who} bought another {b:n}.", "a friend gave {name} {b:n} more."],
            3: ["{who} was lucky and won {b:n} more.", "on the next day, {who} received {b:n} more from a neighbour."],
        },
        "ate": {1: ["[*2|then ]{who} ate {b:n}."], 3: ["{who} was so hungry that {b:n} of them disappeared at once."]},
        "gave": {
            1: [(3, "[*2|then ]{who} gave {b:n} to {other:name}.")],
            2: ["[after that, |later ]{who} sold {b:n} to {other:name}."],
            3: ["because {other:name} asked politely, {name} parted with {b:n}."],
        },
        "lost": {2: ["[*2|then ]{who} lost {b:n}."], 3: ["unfortunately, {b:n} of them were stolen from {name}."]},
        "than": {
            2: ["{name} had {b:n} more than {other:name}."],
            3: ["compared with {other:name}, {name} had {b:n} more."],
        },
        "fewer": {3: ["{name} had {b:n} fewer than {other:name}."]},
        "twice": {3: ["{name} had twice as many as {other:name}."]},
        "each": {2: ["each {container} held {b:count}."], 3: ["every {container} contained exactly {b:count}."]},
        "bought": {2: ["{name} bought {b:n}."], 3: ["{name} needed {b:n} and paid in cash."]},
        "shared": {3: ["{who} shared them equally among {b:n} [friends|children|guests]."]},
        "tell count": {
            1: ["{who} had {answer:count}."],
            3: ["in the end, {who} had {answer:count}."],
        },
        "tell all": {1: ["they had {answer:count}."], 2: ["that was {answer:count}."]},
        "tell boxes": {2: ["the answer is {answer:count}."], 3: ["altogether, that makes {answer:count}."]},
        "tell price": {2: ["{who} paid {answer:n} coins."], 3: ["the bill was {answer:n} coins."]},
        "tell share": {3: ["each received {answer:count}."]},
    },
)
