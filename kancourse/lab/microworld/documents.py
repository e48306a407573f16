"""Documents: written by chance with their exact log-probability, and read back to the same number.

- A document of a level is: a domain, chosen evenly; then units (sentences, lines) until the domain's program stops.
- `log_prob(text)` reads a text unit by unit. Each reading of a unit is replayed through the very program that writes,
  and the probabilities of all derivations are added. What is written has exactly one derivation (tested).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from random import Random
from typing import Any

from kancourse.lab.microworld import (
    code,
    code_phrases,
    code_state,
    facts,
    stories,
    story_phrases,
    story_state,
    sum_phrases,
    sum_state,
    sums,
)
from kancourse.lab.microworld.engine import Program, Roll, derivations
from kancourse.lab.microworld.phrases import PhraseBook
from kancourse.lab.microworld.slots import LEVELS


@dataclass(frozen=True)
class Domain:
    """A kind of text: how it starts, how it goes on, and its phrases."""

    name: str
    start: Callable[[int], Any]
    step: Program
    book: PhraseBook


_DOMAINS = {
    "stories": Domain("stories", story_state.Story, stories.step, story_phrases.BOOK),
    "sums": Domain("sums", sum_state.Sums, sums.step, sum_phrases.BOOK),
    "code": Domain("code", code_state.Script, code.step, code_phrases.BOOK),
    "facts": Domain("facts", facts.Facts, facts.step, facts.BOOK),
}
DOMAINS = tuple(_DOMAINS)
SPLITS = ("train", "val", "prompts")  # separate seed spaces: no seed of one is a seed of another


@dataclass(frozen=True)
class Document:
    """A text with its domain, level and exact `log_prob` in nats (choice of domain and end of text included)."""

    text: str
    domain: str
    level: int
    log_prob: float


@dataclass(frozen=True)
class Unit:
    """A sentence or line with the blank before it. When it answers a question: where the answer stands in it, and the
    index of the unit that holds the (first) fact asked for."""

    text: str
    answer_span: tuple[int, int] | None
    bearing: int | None


def check_level(level: int) -> int:
    """Raises ValueError unless `level` exists."""
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}; known: {', '.join(map(str, LEVELS))}")
    return level


def check_domains(domains: Sequence[str]) -> tuple[str, ...]:
    """The domains as a tuple; raises ValueError when one is unknown, twice, or there is none."""
    names = (domains,) if isinstance(domains, str) else tuple(domains)
    unknown = [name for name in names if name not in _DOMAINS]
    if unknown or not names or len(set(names)) != len(names):
        wrong = (
            f"unknown domain {unknown[0]!r}" if unknown else f"domains must be distinct and at least one, got {names}"
        )
        raise ValueError(f"{wrong}; known: {', '.join(DOMAINS)}")
    return names


def domain(name: str) -> Domain:
    """The program of one domain."""
    return _DOMAINS[check_domains(name)[0]]


def generator(seed: int, index: int, split: str = "train") -> Random:
    """The random numbers of document `index` of a stream: a pure function of its arguments, on every machine."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must not be negative, got seed {seed} and index {index}")
    return Random(((seed * len(SPLITS) + SPLITS.index(split)) << 64) + index)


def compose(random: Random, level: int, domains: Sequence[str]) -> tuple[Document, list[Unit]]:
    """One document and its units."""
    name = domains[int(random.random() * len(domains))]
    program = _DOMAINS[name]
    state, step = program.start(level), program.step
    units, total = [], -log(len(domains))
    while True:
        w = Roll(random.random)
        text = step(state, w)
        total += w.log_prob
        if text is None:
            return Document("".join(unit.text for unit in units), name, level, total), units
        units.append(Unit(text, w.answer_span, w.bearing))


def stream(
    seed: int, level: int = 1, domains: Sequence[str] = DOMAINS, *, split: str = "train", start: int = 0
) -> Iterator[Document]:
    """Documents without end. Document i depends on (seed, level, domains, split, i) alone, so `start=i` resumes there.

    Args:
        seed: any whole number >= 0; different seeds, and different splits, share no random numbers.
        level: 1, 2 or 3.
        domains: which domains to draw from, evenly.
        split: "train" (default), "val" or "prompts".
        start: index of the first document.
    """
    check_level(level)
    names = check_domains(domains)
    generator(seed, start, split)  # a bad argument is an error here, not at the first document
    return _documents(seed, level, names, split, start)


def _documents(seed: int, level: int, names: tuple[str, ...], split: str, index: int) -> Iterator[Document]:
    while True:
        yield compose(generator(seed, index, split), level, names)[0]
        index += 1


_BREAK = re.compile(r'(?<=[.?!])(?=\s)|(?<=[.?!]")(?=\s+[^a-z\s])|(?=\n)')


def units(text: str) -> list[str]:
    """A text cut into sentences and lines, each with the blank before it; joined they give the text back."""
    return [unit for unit in _BREAK.split(text) if unit]


def log_prob(text: str, level: int = 1, domains: Sequence[str] = DOMAINS) -> float:
    """The exact log-probability of a whole document, in nats; -inf when it is not of the language."""
    check_level(level)
    names = check_domains(domains)
    pieces = units(text)
    return _log_sum([_read(pieces, level, _DOMAINS[name]) for name in names]) - log(len(names))


def _log_sum(terms: list[float]) -> float:
    """log of a sum of exponentials; -inf for nothing."""
    best = max(terms, default=-inf)
    return best if best == -inf else best + log(sum(exp(term - best) for term in terms))


def _read(pieces: list[str], level: int, program: Domain) -> float:
    """Log-probability of these units within one domain."""
    alive = [(0.0, program.start(level))]
    for piece in pieces:
        readings = program.book.match(piece.lstrip(" \n"))
        alive = [
            (total + w.log_prob, state)
            for total, before in alive
            for hints in readings
            for w, state in derivations(program.step, before, hints, piece)
        ]
    ends = [
        total + w.log_prob
        for total, state in alive
        for w, _ in derivations(program.step, state, {"kind": "stop", "act": "stop"}, None)
    ]
    return _log_sum(ends)
