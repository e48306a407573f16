"""The judge: how much of a text is grammatical, fits what was said before, and is right.

- *grammatical* (form): the sentence is one which the grammar can write in some situation.
- *consistent* (fit): it is one which the grammar can write right here, after what was said.
- *right*: an answer, a result, a printed value is the true one.

A text may hold several documents (a blank line or `<|endoftext|>` between them), start anywhere, be cut off at the end,
and be nonsense: the judge never raises. After a sentence that does not fit, it believes the sentence and goes on.
"""

import re
from dataclasses import dataclass
from typing import Any

from kancourse.lab.microworld.documents import DOMAINS, domain, units
from kancourse.lab.microworld.engine import Lenient, derivations
from kancourse.lab.microworld.slots import LEVELS

_BETWEEN = re.compile(r"\n[ \t]*\n\s*|<\|endoftext\|>\n?")
_FINISHED = re.compile(r'[.?!]"?\s*$')
_MOST = 12  # readings of the story so far that are followed at once (a generated text needs one per level)


@dataclass(frozen=True)
class Note:
    """One judged sentence; `right` is None when it answers nothing."""

    text: str
    grammatical: bool
    consistent: bool
    right: bool | None


@dataclass(frozen=True)
class Verdict:
    """What the judge found; shares are nan when there is nothing to take a share of."""

    notes: tuple[Note, ...]

    @property
    def n_sentences(self) -> int:
        return len(self.notes)

    @property
    def n_grammatical(self) -> int:
        return sum(note.grammatical for note in self.notes)

    @property
    def n_consistent(self) -> int:
        return sum(note.consistent for note in self.notes)

    @property
    def n_questions(self) -> int:
        """Answers given: to questions, results of calculations, printed values."""
        return sum(note.right is not None for note in self.notes)

    @property
    def n_right(self) -> int:
        return sum(note.right is True for note in self.notes)

    @property
    def grammatical(self) -> float:
        return _share(self.n_grammatical, self.n_sentences)

    @property
    def consistent(self) -> float:
        return _share(self.n_consistent, self.n_sentences)

    @property
    def right(self) -> float:
        return _share(self.n_right, self.n_questions)

    def __add__(self, other: "Verdict") -> "Verdict":
        return Verdict(self.notes + other.notes)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def judge(text: str, *, complete: bool = False) -> Verdict:
    """Judges any text, sentence by sentence.

    Args:
        text: one or more documents or parts of documents.
        complete: whether the text ends where its writer meant it to. By default a last sentence without a stop counts
            as cut off: it is left out, unless it is fine as it stands (the last line of a program).
    """
    documents = _BETWEEN.split(text)
    notes: list[Note] = []
    for number, document in enumerate(documents, start=1):
        notes += _judge_document(document, complete or number < len(documents))
    return Verdict(tuple(notes))


def _judge_document(document: str, complete: bool) -> list[Note]:
    alive = [(name, domain(name).start(level)) for level in LEVELS for name in DOMAINS]
    sentences = [unit for unit in units(document.rstrip()) if unit.strip()]
    notes: list[Note] = []
    for number, sentence in enumerate(sentences, start=1):
        if not notes:
            sentence = sentence.lstrip()
        readings = {name: domain(name).book.match(sentence.lstrip(" \n")) for name in DOMAINS}
        note, alive = _judge_sentence(sentence, readings, alive)
        cut = number == len(sentences) and not complete and not _FINISHED.search(sentence)
        if not cut or note.consistent:
            notes.append(note)
    return notes


Alive = list[tuple[str, Any]]


def _judge_sentence(sentence: str, readings: dict[str, list[dict[str, Any]]], alive: Alive) -> tuple[Note, Alive]:
    shown = sentence.strip()
    after, right = _follow(sentence, readings, alive)
    if after:
        return Note(shown, True, True, right), after
    if not any(readings.values()):
        return Note(shown, False, False, None), alive
    believed, right = _believe(sentence, readings, alive)
    if not believed:  # a sentence of some other document: go on from there
        fresh = [(name, domain(name).start(LEVELS[-1])) for name in DOMAINS if readings[name]]
        believed, right = _believe(sentence, readings, fresh)
    return Note(shown, True, False, right), believed or alive


def _follow(sentence: str, readings: dict[str, list[dict[str, Any]]], alive: Alive) -> tuple[Alive, bool | None]:
    """The documents so far that can go on with exactly this sentence."""
    after: Alive = []
    right: bool | None = None
    for name, state in alive:
        for hints in _known(readings[name], state.level):
            for w, new in derivations(domain(name).step, state, hints, sentence):
                after.append((name, new))
                right = right or w.right
    return after[:_MOST], right


def _known(readings: list[dict[str, Any]], level: int) -> list[dict[str, Any]]:
    """The readings which use phrases of a level."""
    return [hints for hints in readings if hints["phrase"].level <= level]


def _believe(sentence: str, readings: dict[str, list[dict[str, Any]]], alive: Alive) -> tuple[Alive, bool | None]:
    """The documents so far after taking this sentence's word for it."""
    after: Alive = []
    right: bool | None = None
    for name, state in alive:
        for hints in _known(readings[name], state.level):
            for w, new in derivations(domain(name).step, state, hints, sentence, Lenient):
                after.append((name, new))
                right = w.right if right is None else right or bool(w.right)
    return after[:_MOST], right
