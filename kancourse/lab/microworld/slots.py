"""Slots: the places in a phrase that a program fills, each able to write a value and to recognise it.

A slot type has `text(value)`, `match(words, i)` and `samples(level)`; the lexicon and the domains bring their own.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from kancourse.lab.microworld.engine import Impossible

LEVELS = (1, 2, 3)
_TOKEN = re.compile(r"[A-Za-z]+|[0-9]+|[^\w\s]|_")


def tokens(text: str) -> list[str]:
    """The words, numbers and signs of a text, without blanks."""
    return _TOKEN.findall(text)


class Slot:
    """A kind of slot: `text(value)` writes it, `match(tokens, i)` yields (value, next i), `samples(level)` are texts
    which together hold every word the slot can show at that level (what `vocabulary` walks over)."""

    def text(self, value: Any) -> str:
        raise NotImplementedError

    def match(self, words: Sequence[str], i: int) -> Iterator[tuple[Any, int]]:
        raise NotImplementedError

    def samples(self, level: int) -> Iterable[str]:
        raise NotImplementedError

    def hints(self, name: str, value: Any) -> dict[str, Any]:
        """What a filled slot tells a replay: by default, that the choice called like the slot had this value."""
        return {name: value}


class Words(Slot):
    """A slot with a list of values by level; `form(value)` is how each is written (default: as it is).

    `names` is the choice which a value settles, when that is not called like the slot.
    """

    def __init__(
        self, by_level: Mapping[int, Iterable[Any]], form: Callable[[Any], str] = str, *, names: str | None = None
    ):
        self.names = names
        self.written = {level: {v: form(v) for v in by_level.get(level, ())} for level in LEVELS}
        self.all = {value: text for level in LEVELS for value, text in self.written[level].items()}
        self.first: dict[str, list[tuple[list[str], Any]]] = {}
        for value, text in self.all.items():
            words = tokens(text)
            self.first.setdefault(words[0], []).append((words, value))

    def text(self, value: Any) -> str:
        if value not in self.all:
            raise Impossible(f"no word for {value!r}")
        return self.all[value]

    def match(self, words: Sequence[str], i: int) -> Iterator[tuple[Any, int]]:
        for wanted, value in self.first.get(words[i], ()) if i < len(words) else ():
            if words[i : i + len(wanted)] == wanted:
                yield value, i + len(wanted)

    def samples(self, level: int) -> Iterable[str]:
        return [text for known in LEVELS if known <= level for text in self.written[known].values()]

    def hints(self, name: str, value: Any) -> dict[str, Any]:
        return {self.names or name: value}


class Pronominal(Words):
    """A slot that shows a value by name or by a pronoun: value `(None, name)` or `(pronoun, None)`.

    A pronoun leaves open who is meant; the program's own choice of the pronoun settles it.
    """

    def __init__(
        self,
        by_level: Mapping[int, Iterable[Any]],
        pronouns: Mapping[int, Iterable[str]],
        form: Callable[[Any], str] = str,
        *,
        names: str | None = None,
    ):
        pairs = {
            level: [(None, value) for value in by_level.get(level, ())] + [(p, None) for p in pronouns.get(level, ())]
            for level in LEVELS
        }
        super().__init__(pairs, lambda pair: pair[0] or form(pair[1]), names=names)

    def hints(self, name: str, value: Any) -> dict[str, Any]:
        pronoun, named = value
        return {f"{name} as": pronoun} | ({} if pronoun else {self.names or name: named})


class Number(Slot):
    """Whole numbers in digits, no sign, no leading zero; `largest` by level is what programs keep to."""

    def __init__(self, largest: Mapping[int, int]):
        self.largest = largest

    def text(self, value: Any) -> str:
        return str(value)

    def match(self, words: Sequence[str], i: int) -> Iterator[tuple[Any, int]]:
        if i < len(words) and words[i].isdecimal() and words[i].isascii() and len(words[i]) < 9:
            yield int(words[i]), i + 1

    def samples(self, level: int) -> Iterable[str]:
        if self.largest[level] < 10:
            return [str(number) for number in range(1, self.largest[level] + 1)]
        return [*map(str, range(10)), *(f"1{digit}" for digit in range(10))]


@cache
def article(noun_phrase: str) -> str:
    """`a` or `an`, by sound (the exceptions are those of our vocabulary)."""
    first = noun_phrase.split()[0]
    if first in {"unicorn", "uniform", "useful", "used"}:
        return "a"
    return "an" if first[0] in "aeiouAEIOU" or first in {"hour", "honest"} else "a"
