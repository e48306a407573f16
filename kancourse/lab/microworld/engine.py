"""The tiny engine of microworld: a program makes choices, and a writer answers them.

- A *program* is plain Python: it asks its writer `w` for choices and hands back one unit of text (a sentence or a
  line of code with the blank before it). It never sees whether it writes or reads.
- `Roll` answers by chance and adds up log p: that is generation.
- `Replay` answers with what a given text says (its *hints*, found by the phrase matcher) and adds up the same log p:
  that is parsing. A choice which the text does not name is tried every way (`Fork`), and only derivations that write
  exactly the given text survive. So the probability of a text is exact by construction: both sides run one program.
- `Lenient` takes the text's word for everything; the judge uses it to follow a story that contradicts itself.

Weights are whole numbers, so that sums over them are exact and independent of order.
"""

from bisect import bisect
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from math import log
from typing import Any, Protocol


class Impossible(Exception):
    """The text says something the program could not have chosen here."""


class Fork(Exception):
    """A choice the text does not name: try each of `options` for `name`."""

    def __init__(self, name: str, options: Sequence[Any]):
        super().__init__(name)
        self.name, self.options = name, options


class Table:
    """A fixed weighted choice: `options` (distinct, hashable) with whole-number `weights` (default: all 1)."""

    def __init__(self, options: Sequence[Hashable], weights: Sequence[int] | None = None):
        self.options = tuple(options)
        self.weight = dict(zip(self.options, weights or [1] * len(self.options), strict=True))
        if not self.options or len(self.weight) != len(self.options):
            raise ValueError(f"a table needs at least one option and no repeats, got {self.options}")
        self.total = sum(self.weight.values())
        self.cumulative, running = [], 0
        for option in self.options:
            running += self.weight[option]
            self.cumulative.append(running)
        self.log = {option: log(weight / self.total) for option, weight in self.weight.items()}

    def rest(self, without: Collection[Hashable]) -> int:
        """The total weight of the options not in `without` (a set, or the keys of a dict)."""
        return self.total - sum(self.weight.get(option, 0) for option in without)


def capitalised(sentence: str) -> str:
    """With a capital at its start, inside a quotation mark if it opens with one."""
    at = len(sentence) > 1 and sentence[0] == '"'
    return sentence[:at] + sentence[at].upper() + sentence[at + 1 :]


class Writer:
    """What a program talks to. Subclasses decide how a choice is answered."""

    log_prob: float

    def __init__(self) -> None:
        self.log_prob = 0.0
        self.answer_span: tuple[int, int] | None = None  # where in the unit the answer stands
        self.bearing: int | None = None  # index of the unit which holds the fact asked for

    def pick(self, name: str, options: Sequence[Any], weights: Sequence[int] | None = None) -> Any:
        """One of a few `options`, made up on the spot, with whole-number `weights` (default: uniform)."""
        raise NotImplementedError

    def draw(self, name: str, table: Table, without: Collection[Hashable] = ()) -> Any:
        """One option of a fixed `table`, leaving out those in `without`."""
        raise NotImplementedError

    def answer(self, name: str, right: Any) -> Any:
        """A value that follows from what was said before: no choice, so no probability, but the judge compares it."""
        raise NotImplementedError

    def say(self, phrases: Table, lead: str = " ", /, **slots: Any) -> str:
        """Chooses one of `phrases` (a table of `Phrase`) and fills its slots: `lead` + the sentence."""
        phrase = self.draw("phrase", phrases)
        parts = [op if type(op) is str else op.render(self, slots) for op in phrase.ops]
        if phrase.answer_op is not None:
            start = len(lead) + sum(map(len, parts[: phrase.answer_op]))
            self.answer_span = (start, start + len(parts[phrase.answer_op]))
        text = "".join(parts)
        return lead + (capitalised(text) if phrase.capital else text)


class Roll(Writer):
    """Answers choices by chance; `log_prob` is the exact log-probability of all answers so far, in nats."""

    def __init__(self, random: Callable[[], float]):
        super().__init__()
        self.random = random

    def pick(self, name: str, options: Sequence[Any], weights: Sequence[int] | None = None) -> Any:
        count = len(options)
        if count == 1:
            return options[0]
        if weights is None:
            self.log_prob -= log(count)
            return options[int(self.random() * count)]
        total = sum(weights)
        left = self.random() * total
        for option, weight in zip(options, weights, strict=True):
            left -= weight
            if left < 0:
                self.log_prob += log(weight / total)
                return option
        raise ValueError(f"choice {name!r} has no option with weight: {options}")

    def draw(self, name: str, table: Table, without: Collection[Hashable] = ()) -> Any:
        option = table.options[bisect(table.cumulative, self.random() * table.total)]
        if not without:
            self.log_prob += table.log[option]
            return option
        rest = table.rest(without)
        if rest == 0:
            raise ValueError(f"choice {name!r} has no option left")
        while option in without:
            option = table.options[bisect(table.cumulative, self.random() * table.total)]
        self.log_prob += log(table.weight[option] / rest)
        return option

    def answer(self, name: str, right: Any) -> Any:
        return right


class Replay(Writer):
    """Answers choices with `hints` (choice name to what the text says); refuses what has no probability."""

    def __init__(self, hints: dict[str, Any]):
        super().__init__()
        self.hints = hints
        self.right: bool | None = None  # whether the answers given were right; None when there were none

    def pick(self, name: str, options: Sequence[Any], weights: Sequence[int] | None = None) -> Any:
        if name not in self.hints:
            if len(options) == 1:
                return options[0]
            raise Fork(name, options)
        option = self.hints[name]
        if option not in options:
            raise Impossible(name)
        if weights is None:
            self.log_prob -= log(len(options))
        else:
            weight = weights[options.index(option)]
            if weight == 0:
                raise Impossible(name)
            self.log_prob += log(weight / sum(weights))
        return option

    def draw(self, name: str, table: Table, without: Collection[Hashable] = ()) -> Any:
        if name not in self.hints:
            raise Fork(name, [option for option in table.options if option not in without])
        option = self.hints[name]
        if option not in table.weight or option in without:
            raise Impossible(name)
        self.log_prob += table.log[option] if not without else log(table.weight[option] / table.rest(without))
        return option

    def answer(self, name: str, right: Any) -> Any:
        if self.hints.get(name, right) != right:
            raise Impossible(name)
        self.right = True
        return right


class Lenient(Replay):
    """Believes the text: hints are taken as they are, and wrong answers are noted."""

    def pick(self, name: str, options: Sequence[Any], weights: Sequence[int] | None = None) -> Any:
        if name in self.hints:
            return self.hints[name]
        if not options:
            raise Impossible(name)
        return super().pick(name, options)

    def draw(self, name: str, table: Table, without: Collection[Hashable] = ()) -> Any:
        return self.hints[name] if name in self.hints else super().draw(name, table, without)

    def answer(self, name: str, right: Any) -> Any:
        given = self.hints.get(name, right)
        self.right = given == right and self.right is not False
        return given


class State(Protocol):
    """What a domain remembers of a document so far."""

    def copy(self) -> "State": ...


Program = Callable[[Any, Writer], str | None]


def derivations(
    program: Program, state: Any, hints: dict[str, Any], text: str | None, writer: type[Replay] = Replay
) -> Iterator[tuple[Replay, Any]]:
    """Every way in which `program`, from `state`, writes exactly `text` (None: ends the document) under `hints`.

    Yields the writer (with its log_prob) and the new state; `state` itself is left as it was.
    """
    open_hints = [hints]
    lenient = issubclass(writer, Lenient)  # which does not mind the blank before a sentence either
    while open_hints:
        trial, now = open_hints.pop(), state.copy()
        w = writer(trial)
        try:
            written = program(now, w)
        except Impossible:
            continue
        except Fork as fork:
            open_hints.extend({**trial, fork.name: option} for option in fork.options)
            continue
        if written == text or (lenient and written and text and written.lstrip() == text.lstrip()):
            yield w, now
