"""Phrases: one line of writing that both makes sentences and recognises them.

A phrase is written as in `"[then |so |]{who} put {thing} {spot}."`:
- `[a|b|c]` is one of several wordings, chosen evenly; `[a*3|b]` gives `a` three times the weight;
- `{thing}` is a slot, filled by the program; its type has the same name, or is given as in `{other:who}`;
- the slot `{answer:...}` marks what a question asks for.
Sentences get their capital when they are written, so phrases start in lower case.

The matcher looks at words only, not at blanks: whoever needs certainty (the parser, the judge) writes the match again
and compares. That keeps the matcher small and the result exact.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kancourse.lab.microworld.engine import Impossible, Table, Writer, capitalised
from kancourse.lab.microworld.slots import LEVELS, Slot, tokens

_WEIGHTED = re.compile(r"(.*?)(?:\*(\d+))?")
_PARTS = re.compile(r"\[([^\]]*)\]|\{([^}]*)\}")
_SLOTS_ONLY = re.compile(r"(?!)()|\{([^}]*)\}")  # for code, where brackets mean brackets


class _Alternative:
    """`[a|b]` inside a phrase."""

    def __init__(self, name: str, source: str):
        self.name = name
        parts = [_WEIGHTED.fullmatch(part).groups() for part in source.split("|")]
        self.table = Table([text for text, _ in parts], [int(weight or 1) for _, weight in parts])
        self.words = [(tokens(option), option) for option in self.table.options]

    def render(self, w: Writer, slots: Mapping[str, Any]) -> str:
        return w.draw(self.name, self.table)

    def match(self, words: Sequence[str], i: int) -> Iterator[tuple[dict[str, Any], int]]:
        for wanted, option in self.words:
            if words[i : i + len(wanted)] == wanted:
                yield {self.name: option}, i + len(wanted)

    def samples(self, level: int) -> Iterable[str]:
        return self.table.options

    def rewrite(self, hints: Mapping[str, Any]) -> str:
        return hints[self.name]


class _Filled:
    """`{name:type}` inside a phrase. A callable value is asked only when the phrase has the slot: a choice which shows
    nowhere in the text would make two derivations of one text."""

    def __init__(self, name: str, slot: Slot):
        self.name, self.slot = name, slot

    def render(self, w: Writer, slots: Mapping[str, Any]) -> str:
        if self.name not in slots:
            raise Impossible(f"nothing to say for {self.name!r}")
        value = slots[self.name]
        return self.slot.text(value() if callable(value) else value)

    def match(self, words: Sequence[str], i: int) -> Iterator[tuple[dict[str, Any], int]]:
        for value, after in self.slot.match(words, i):
            yield {**self.slot.hints(self.name, value), f"{self.name} text": self.slot.text(value)}, after

    def samples(self, level: int) -> Iterable[str]:
        return self.slot.samples(level)

    def rewrite(self, hints: Mapping[str, Any]) -> str:
        return hints[f"{self.name} text"]


class Phrase:
    """One compiled phrase of `kind`."""

    def __init__(
        self,
        kind: str,
        source: str,
        slots: Mapping[str, Slot],
        prose: bool,
        opens: str,
        level: int,
        tags: Mapping[str, Any],
    ):
        self.opens, self.level = opens, level
        self.hints = {"kind": kind, "phrase": self, **tags}
        self.kind, self.source, self.capital = kind, source, prose
        self.ops: list[Any] = []
        self.answer_op: int | None = None
        end = 0
        for part in (_PARTS if prose else _SLOTS_ONLY).finditer(source):
            if part.start() > end:
                self.ops.append(source[end : part.start()])
            end = part.end()
            if part[1] is not None:
                self.ops.append(_Alternative(f"wording {len(self.ops)}", part[1]))
                continue
            name, _, type_name = part[2].partition(":")
            if name == "answer":
                self.answer_op = len(self.ops)
            self.ops.append(_Filled(name, slots[type_name or name]))
        if end < len(source):
            self.ops.append(source[end:])
        self._steps = [tokens(op) if isinstance(op, str) else op for op in self.ops]
        self.needs = frozenset(word for step in self._steps if isinstance(step, list) for word in step)

    def match(self, words: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Every filling of the slots under which this phrase has exactly these words."""
        yield from self._match(words, 0, 0, self.hints)

    def _match(self, words: Sequence[str], i: int, step: int, hints: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if step == len(self._steps):
            if i == len(words):
                yield hints
            return
        op = self._steps[step]
        if isinstance(op, list):
            if words[i : i + len(op)] == op:
                yield from self._match(words, i + len(op), step + 1, hints)
            return
        for more, after in op.match(words, i):
            if all(hints.get(key, value) == value for key, value in more.items()):  # a slot used twice says one thing
                yield from self._match(words, after, step + 1, hints | more)

    def rewrite(self, hints: Mapping[str, Any]) -> str:
        """The sentence which a match describes, written out again (to compare blanks and capitals)."""
        text = "".join(op if isinstance(op, str) else op.rewrite(hints) for op in self.ops)
        return capitalised(text) if self.capital else text


class PhraseBook:
    """All phrases of a domain, by kind and level. `prose=False`: lines of code, no capitals, no `[a|b]`."""

    def __init__(self, slots: Mapping[str, Slot], *, prose: bool = True):
        self.slots, self.prose = slots, prose
        self.phrases: list[Phrase] = []
        self._tables: dict[int, dict[str, Table]] = {level: {} for level in LEVELS}

    def add(
        self, kind: str, by_level: Mapping[int, Sequence[str | tuple[int, str]]], *, opens: str = "any", **tags: Any
    ) -> None:
        """Phrases of one kind: by the level which brings them, each a source or a (weight, source).

        `opens` says where such a sentence can start: "line" (of a document or a line), "later" (after another sentence
        on the same line), "any" of these, or "block" (indented). `tags` are further hints that a match gives (choices
        which the kind settles).
        """
        known: list[Phrase] = []
        weights: list[int] = []
        for level in LEVELS:
            for entry in by_level.get(level, ()):
                weight, source = entry if isinstance(entry, tuple) else (1, entry)
                phrase = Phrase(kind, source, self.slots, self.prose, opens, level, tags)
                known.append(phrase)
                weights.append(weight)
                self.phrases.append(phrase)
            if known:
                self._tables[level][kind] = Table(known, weights)

    def at(self, level: int) -> dict[str, Table]:
        """The tables of one level, by kind."""
        return self._tables[level]

    def match(self, sentence: str) -> list[dict[str, Any]]:
        """Every reading of a sentence (without its leading blank): the hints for a replay."""
        words = tokens(sentence)
        if not words:
            return []
        starts = [words]
        first = words[0] == '"' and len(words) > 1
        if self.prose and words[first][0].isupper():
            starts.append([*words[:first], words[first][0].lower() + words[first][1:], *words[first + 1 :]])
        readings = []
        for attempt in starts:
            known = set(attempt)
            for phrase in self.phrases:
                if phrase.needs <= known:
                    readings += [hints for hints in phrase.match(attempt) if phrase.rewrite(hints) == sentence]
        return readings
