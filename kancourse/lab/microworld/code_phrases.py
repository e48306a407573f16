"""How code is written: the slots and lines of the domain `code`.

`{var}` is a number variable that a line sets, `{left}` and `{right}` are ones it reads; `{text}` holds a word, `{list}`
some numbers; `{answer}` is what a program prints, as the comment says it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kancourse.lab.microworld.lexicon import listed, up_to
from kancourse.lab.microworld.phrases import PhraseBook
from kancourse.lab.microworld.slots import Number, Slot, Words

LARGEST = {1: 9, 2: 99, 3: 999}  # largest number that a level writes
VARIABLES = listed({1: "x y a b n"})
TEXTS = listed({2: "word name"})
LISTS = listed({2: "items numbers", 3: "values prices"})
FUNCTIONS = listed({3: "grow change convert update"})
STRINGS = listed(
    {
        2: "cat sun dog tree fish bird moon star",
        3: "river cloud stone music winter light summer planet python garden silver window yellow forest dragon",
    }
)
SAYINGS = {2: [("yes", "no"), ("big", "small")], 3: [("high", "low"), ("more", "less"), ("fast", "slow")]}


class Output(Slot):
    """What is printed: numbers, words, True or False, a list; several lines of output are joined by commas."""

    def __init__(self) -> None:
        self.words = {word for level in (2, 3) for word in self._words(level)}

    @staticmethod
    def _words(level: int) -> list[str]:
        said = [word for pair in up_to(SAYINGS, level) for word in pair]
        return [*up_to(STRINGS, level), *said, *(["True", "False"] if level > 2 else [])]

    def text(self, value: Any) -> str:
        return str(value)

    def match(self, words: Sequence[str], i: int) -> Iterator[tuple[Any, int]]:
        found = words[i:]
        if found and all(word.isdecimal() or word in ",[]" or word in self.words for word in found):
            spaced = " ".join(found).replace(" ,", ",").replace("[ ", "[").replace(" ]", "]")
            yield spaced, len(words)

    def samples(self, level: int) -> Iterable[str]:
        yield from Number(LARGEST).samples(level)
        if level > 1:
            yield from ("0, 1, 2", *self._words(level))
        if level > 2:
            yield from (f"[{digit}, 2]" for digit in range(10))


BOOK = PhraseBook(
    {
        "n": Number(LARGEST),
        "var": Words(VARIABLES),
        "text": Words(TEXTS),
        "list": Words(LISTS),
        "function": Words(FUNCTIONS),
        "string": Words(STRINGS),
        "saying": Words({level: [word for pair in pairs for word in pair] for level, pairs in SAYINGS.items()}),
        "output": Output(),
    },
    prose=False,
)

_LINES = {
    1: {
        "set": "{var} = {n}",
        "set plus": "{var} = {left:var} + {n}",
        "set minus": "{var} = {left:var} - {n}",
        "set both": "{var} = {left:var} + {right:var}",
        "print": "print({left:var})",
        "print plus": "print({left:var} + {n})",
        "print both": "print({left:var} + {right:var})",
        "prints": "# prints {answer:output}",
    },
    2: {
        "set times": "{var} = {left:var} * {n}",
        "set text": '{text} = "{string}"',
        "print text": "print({text})",
        "print length": "print(len({text}))",
        "print texts": "print({text}, {other:text})",
        "set list": "{list} = [{first:n}, {second:n}, {third:n}]",
        "print sum": "print(sum({list}))",
        "print max": "print(max({list}))",
        "print item": "print({list}[{n}])",
        "for": "for i in range({n}):",
        "body print": "print(i)",
        "body plus": "print(i + {n})",
        "body add": "{var} = {left:var} + i",
        "if more": "if {left:var} > {n}:",
        "if less": "if {left:var} < {n}:",
        "then": 'print("{saying}")',
        "else": "else:",
        "otherwise": 'print("{saying}")',
    },
    3: {
        "title": "# an example program",
        "print sorted": "print(sorted({list}))",
        "print min": "print(min({list}))",
        "append": "{list}.append({n})",
        "for list": "for item in {list}:",
        "item print": "print(item)",
        "item times": "print(item * {n})",
        "def": "def {function}(n):",
        "return plus": "return n + {n}",
        "return times": "return n * {n}",
        "set call": "{var} = {function}({left:var})",
        "print call": "print({function}({n}))",
        "while": "while {left:var} < {n}:",
        "while body": "{var} = {left:var} + {n}",
        "print compare": "print({left:var} > {right:var})",
        "print equal": "print({left:var} == {n})",
    },
}
INDENTED = {"body print", "body plus", "body add", "then", "otherwise", "item print", "item times", "return plus"}
INDENTED |= {"return times", "while body"}
for _level, _lines in _LINES.items():
    for _kind, _line in _lines.items():
        BOOK.add(_kind, {_level: [_line]}, opens="block" if _kind in INDENTED else "line")
