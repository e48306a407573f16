"""What is true in microworld: relations with one right object per subject, and how each is said, asked and told.

- A *world* relation holds in every document (grass is green), so a model can learn it by heart.
- A *given* relation is made up in each document (Tom likes tea), so it must be read there.
Subjects and objects are written as they stand in a sentence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Lines = Mapping[int, Sequence[str]]


def pairs(text: str) -> dict[str, str]:
    """`grass: green, snow: white` as a dict."""
    return dict(entry.strip().split(": ") for entry in text.replace("\n", " ").split(","))


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One relation. World relations have `facts` (subject -> object) by level, given ones `objects` by level.

    In the phrases, `{s}` is the subject, `{o}` the object and `{answer}` the object asked for; given relations write
    `{name}` (question, statement) and `{who}` (answer: name or pronoun) for the subject.
    """

    name: str
    facts: Mapping[int, Mapping[str, str]] | None = None
    objects: Mapping[int, Sequence[str]] | None = None
    say: Lines
    ask: Lines
    tell: Lines


RELATIONS = (
    Relation(
        name="colour",
        facts={1: pairs("grass: green, the sky: blue, snow: white, the sun: yellow, milk: white, a leaf: green")},
        say={1: ["{s} is {o}."]},
        ask={1: ["what colour is {s}?"]},
        tell={1: ["{s} is {answer}.", "it is {answer}."]},
    ),
    Relation(
        name="legs",
        facts={1: pairs("a dog: four, a cat: four, a bird: two, a cow: four, a hen: two, a fish: no")},
        say={1: ["{s} has {o} legs."]},
        ask={1: ["how many legs does {s} have?"]},
        tell={1: ["{s} has {answer} legs.", "it has {answer} legs."]},
    ),
    Relation(
        name="kind",
        facts={
            1: pairs(
                """a dog: an animal, a cat: an animal, a cow: an animal,
            an apple: a fruit, a pear: a fruit, red: a colour, blue: a colour"""
            )
        },
        say={1: ["{s} is {o}."]},
        ask={1: ["what is {s}?"]},
        tell={1: ["{s} is {answer}.", "it is {answer}."]},
    ),
    Relation(
        name="food",
        facts={1: pairs("a cow: grass, a cat: fish, a hen: corn")},
        say={1: ["{s} eats {o}."]},
        ask={1: ["what does {s} eat?"]},
        tell={1: ["{s} eats {answer}.", "it eats {answer}."]},
    ),
    Relation(
        name="likes",
        objects={1: ["milk", "tea", "fish", "corn", "cake", "eggs"]},
        say={1: ["{name} likes {o}."]},
        ask={1: ["what does {name} like?"]},
        tell={1: ["{who} likes {answer}."]},
    ),
    Relation(
        name="pet",
        objects={1: ["a dog", "a cat", "a bird", "a fish", "a hen", "a cow"]},
        say={1: ["{name} has {o}."]},
        ask={1: ["what does {name} have?"]},
        tell={1: ["{who} has {answer}."]},
    ),
)
