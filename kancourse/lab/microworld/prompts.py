"""Prompts: documents cut just before an answer, with the right answer, to measure accuracy and recall over distance."""

from collections.abc import Sequence
from dataclasses import dataclass

from kancourse.lab.microworld.documents import DOMAINS, check_domains, check_level, compose, generator


@dataclass(frozen=True)
class Prompt:
    """A question about something that was said in the text.

    `text + answer` is how the document goes on; `distance` counts the words between the sentence that holds the
    (first) fact asked for and the question.
    """

    text: str
    answer: str
    domain: str
    level: int
    distance: int


def prompts(level: int, seed: int, n: int, domains: Sequence[str] = DOMAINS) -> list[Prompt]:
    """`n` prompts, at most one from a document. Seeds are a space of their own: no prompt comes from a training stream.

    Questions about world facts are left out: their answer need not stand in the text.
    """
    check_level(level)
    names = check_domains(domains)
    found: list[Prompt] = []
    index = 0
    while len(found) < n:
        document, units = compose(generator(seed, index, "prompts"), level, names)
        index += 1
        asked = [
            i
            for i, unit in enumerate(units)
            if unit.bearing is not None and (document.domain == "code" or units[i - 1].text.endswith("?"))
        ]
        if asked:
            i = asked[index % len(asked)]
            start, end = units[i].answer_span
            before = "".join(unit.text for unit in units[:i])
            between = "".join(unit.text for unit in units[units[i].bearing + 1 : i - 1])
            start -= units[i].text[:start].endswith(" ")  # the blank belongs to the answer, as in a piece
            found.append(
                Prompt(
                    before + units[i].text[:start],
                    units[i].text[start:end],
                    document.domain,
                    level,
                    len(between.split()),
                )
            )
    return found
