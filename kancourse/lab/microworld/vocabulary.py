"""Pieces and vocabularies: what the word tokenizer splits microworld into.

- `pieces` cuts any text without loss: a word with the blank before it is one piece (" ball"), so are a digit, a sign, a
  line break and a run of further blanks (the indentation of code).
- `vocabulary(level)` walks over all phrases, so it is complete; level n is a prefix of level n+1, so ids never move.
"""

import re
from functools import cache

from kancourse.lab.microworld.documents import DOMAINS, check_level, domain
from kancourse.lab.microworld.engine import capitalised
from kancourse.lab.microworld.phrases import Phrase

_PIECE = re.compile(r" ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]|\n| +(?= )|.", re.DOTALL)


def pieces(text: str) -> list[str]:
    """The pieces of any text; `"".join(pieces(text)) == text`."""
    return _PIECE.findall(text)


_START = {"line": ("",), "later": (" ",), "any": ("", " "), "block": ("    ",)}


def _phrase_pieces(phrase: Phrase, level: int) -> set[str]:
    """Every piece the phrase can show: each part in turn, with each kind of character that can stand before it."""
    found: set[str] = set()
    before = {(blank, True) for blank in _START[phrase.opens]}  # what stands before; whether the sentence still starts
    for op in phrase.ops:
        after: set[tuple[str, bool]] = set()
        for text in [op] if isinstance(op, str) else op.samples(level):
            for blank, starts in before:
                if not text:
                    after.add((blank, starts))
                    continue
                written = capitalised(text) if starts and phrase.capital else text
                found.update(pieces(blank + written.rstrip(" ")))
                after.add((" " if text[-1] == " " else "", starts and text == '"'))
        before = after
    return found - {" "}


@cache
def vocabulary(level: int) -> tuple[str, ...]:
    """Every piece a text of this level can contain, each reachable; the first ones are `vocabulary(level - 1)`.

    There are 213, 710 and 2,025 pieces.
    """
    known: tuple[str, ...] = ()
    for lower in range(1, check_level(level) + 1):
        found = {"\n"}
        for name in DOMAINS:
            for phrase in domain(name).book.phrases:
                if phrase.level <= lower:
                    found |= _phrase_pieces(phrase, lower)
        known += tuple(sorted(found.difference(known)))
    return known


@cache
def words(level: int) -> tuple[str, ...]:
    """The distinct words of a level in lower case, those of the lower levels first (digits and signs not counted).

    There are 145, 545 and 1,674 words.
    """
    return tuple(dict.fromkeys(piece.strip().lower() for piece in vocabulary(level) if piece.strip().isalpha()))
