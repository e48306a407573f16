"""All phrases of the domain `stories` in one book; questions and answers stand here, the rest in two other files."""

from kancourse.lab.microworld.phrases import PhraseBook
from kancourse.lab.microworld.story_people import PEOPLE, SCENES
from kancourse.lab.microworld.story_slots import AT_THE_END, SLOTS, Lines
from kancourse.lab.microworld.story_things import THINGS

QUESTIONS: Lines = {
    "ask spot": {
        1: ["where {is_the}[| now]?"],
        2: ["where can we find {the}?"],
        3: ["where {is_the}" + AT_THE_END],
    },
    "ask holder": {
        1: ["who has {the}[| now]?"],
        2: ["who has got {the}?"],
        3: ["who has {the}" + AT_THE_END],
    },
    "ask room": {
        1: ["where is {name}[| now]?"],
        2: ["where can we find {name}?"],
        3: ["where is {name}" + AT_THE_END],
    },
    "ask found": {2: ["where did {name} find {the}?"]},
    "ask giver": {2: ["who gave {the} to {name}?"], 3: ["do you remember who gave {the} to {name}?"]},
    "ask eater": {2: ["who ate {the}?"]},
    "ask colour": {2: ["what colour {was_the}?"]},
    "ask before": {3: ["who had {the} before {name}?"]},
}

ANSWERS: Lines = {
    "tell spot": {1: ["{it_is} {answer:spot}.", "{the_is} {answer:spot}.", "{answer:spot}."]},
    "tell holder": {1: ["{answer:name} has {it}.", "{answer:name} has {the}.", "{answer:name}."]},
    "tell room": {1: [(2, "{who} is {answer:room}."), "{answer:room}."]},
    "tell found": {2: ["{who} found {it} {answer:spot}.", "{answer:spot}."]},
    "tell giver": {2: ["{answer:name} did.", "{answer:name} gave {it} to {whom}."]},
    "tell eater": {2: ["{answer:name} did.", "{answer:name} ate {it}."]},
    "tell colour": {2: ["{it_was} {answer:colour}."]},
    "tell before": {3: ["{answer:name} did.", "{answer:name} had {it} before."]},
}

BOOK = PhraseBook(SLOTS)
for _kind, _by_level in (SCENES | QUESTIONS).items():
    BOOK.add(_kind, _by_level, opens="line")
for _kind, _by_level in (PEOPLE | THINGS | ANSWERS).items():
    BOOK.add(_kind, _by_level, opens="later")
