"""How sums are worded: the slots and phrases of the domain `sums`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.phrases import Number, PhraseBook, Pronominal, Slot, Words

LARGEST = {1: 9, 2: 99, 3: 999}  # largest number that a level writes
SHAPES = {"n + n": 1, "n - n": 1}  # calculations, by the level which brings them


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
        "items": Words(lex.ITEMS, lex.plural),
        "name": Words(lex.PEOPLE),
        "who": Pronominal(lex.PEOPLE, ("he", "she")),
    }
)

BOOK.add("calculation", {1: ["{calculation} = {answer:n}."]})
BOOK.add("ask calculation", {1: ["what is {calculation}?"]}, opens="line")
BOOK.add("tell calculation", {1: ["it is {answer:n}.", "{calculation} is {answer:n}."]}, opens="later")

BOOK.add("had", {1: ["{name} had {count}."]})
BOOK.add("more", {1: ["[then |]{who} [found|got] {b:n} more."]}, opens="later")
BOOK.add("ate", {1: ["[then |]{who} ate {b:n}."]}, opens="later")
BOOK.add("gave", {1: ["[then |]{who} gave {b:n} to {other:name}."]}, opens="later")
BOOK.add("ask count", {1: ["how many {items} did {name} have[| now| then]?"]}, opens="line")
BOOK.add("ask all", {1: ["how many {items} did they have?"]}, opens="line")
BOOK.add("tell count", {1: ["{who} had {answer:count}."]}, opens="later")
BOOK.add("tell all", {1: ["they had {answer:count}."]}, opens="later")
