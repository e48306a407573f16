"""The slots of the domain `stories`, and the ways to begin a sentence that its phrases share.

- `{who}` is a person who does something (Mia, she), `{whom}` one to whom it is done (Mia, her);
- `{thing}` is a thing spoken of before (the ball, it), `{the}` the same without pronoun, `{new}` one spoken of for the
  first time (a red ball); `{thing_was}`, `{new_was}`, `{is_the}`, `{the_is}`, `{it_is}` bring the verb that agrees;
- `{spot}` is where things lie, `{room}` and `{to}` are where people are and go, `{home}` is the room they leave;
- `{doer}` and `{receiver}` are `{who}` and `{whom}` where only a name will do;
- `{he}`, `{him}`, `{his}`, `{it}` agree with `{who}` and `{thing}`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.slots import Pronominal, Slot, Words


def _verb(thing: str, one: str, many: str) -> str:
    return many if thing in lex.PLURAL_THINGS else one


class NewThing(Slot):
    """`a red ball`: value (adjective or None, thing); hints `described`, `new adjective` and `new`."""

    def __init__(self, *, was: bool = False):
        self.was = was
        self.adjectives, self.things = Words(lex.ADJECTIVES), Words(lex.THINGS)

    def text(self, value: Any) -> str:
        adjective, thing = value
        verb = f"{_verb(thing, 'was', 'were')} " if self.was else ""
        return verb + lex.indefinite(thing, adjective)

    def match(self, words: Sequence[str], i: int) -> Iterator[tuple[Any, int]]:
        if self.was:
            if words[i : i + 1] not in (["was"], ["were"]):
                return
            i += 1
        if words[i : i + 1] in (["a"], ["an"], ["some"]):
            for thing, after in self.things.match(words, i + 1):
                yield (None, thing), after
            for adjective, middle in self.adjectives.match(words, i + 1):
                for thing, after in self.things.match(words, middle):
                    yield (adjective, thing), after

    def samples(self, level: int) -> Iterable[str]:
        plain = [self.text((None, thing)) for thing in lex.up_to(lex.THINGS, level)]
        return plain + [self.text((adjective, "ball")) for adjective in lex.up_to(lex.ADJECTIVES, level)]

    def hints(self, name: str, value: Any) -> dict[str, Any]:
        return {"described": value[0] is not None, "new adjective": value[0], "new": value[1]}


_IT, _IT_WAS = {1: ("it",), 2: ("them",)}, {1: ("it was",), 2: ("they were",)}

SLOTS: dict[str, Slot] = {
    "name": Words(lex.PEOPLE),
    "who": Pronominal(lex.PEOPLE, {1: ("he", "she")}),
    "whom": Pronominal(lex.PEOPLE, {1: ("him", "her")}),
    "other": Words(lex.PEOPLE),
    "swapped": Words(lex.THINGS, lambda thing: f"the {thing}"),
    "doer": Words(lex.PEOPLE, names="who"),
    "receiver": Words(lex.PEOPLE, names="whom"),
    "he": Words({1: ["he", "she"]}),
    "him": Words({1: ["him", "her"]}),
    "his": Words({1: ["his", "her"]}),
    "thing": Pronominal(lex.THINGS, _IT, lambda thing: f"the {thing}"),
    "thing_was": Pronominal(lex.THINGS, _IT_WAS, lambda t: f"the {t} {_verb(t, 'was', 'were')}", names="thing"),
    "the": Words(lex.THINGS, lambda thing: f"the {thing}", names="thing"),
    "it": Words({1: ["it"], 2: ["them"]}),
    "is_the": Words(lex.THINGS, lambda thing: f"{_verb(thing, 'is', 'are')} the {thing}", names="thing"),
    "was_the": Words(lex.THINGS, lambda thing: f"{_verb(thing, 'was', 'were')} the {thing}", names="thing"),
    "promised": Words(lex.THINGS),
    "the_is": Words(lex.THINGS, lambda thing: f"the {thing} {_verb(thing, 'is', 'are')}", names="thing"),
    "it_is": Words({1: ["it is"], 2: ["they are"]}),
    "it_was": Words({1: ["it was"], 2: ["they were"]}),
    "new": NewThing(),
    "new_was": NewThing(was=True),
    "colour": Words(lex.COLOURS),
    "spot": Words(lex.SPOTS),
    "from": Words(lex.SPOTS, lex.from_spot),
    "room": Words(lex.ROOMS),
    "to": Words(lex.ROOMS, lex.to_room),
    "home": Words(lex.ROOMS, lex.room_name),
}

TIMES2 = "[one sunny day, |early one morning, |one evening, |one afternoon, ]"
TIMES3 = "[last summer, |on a bright winter morning, |late in the afternoon, |shortly before dinner, ]"
AT_THE_END = " at the end of the story?"
WHEN = "[*4|then *2|later ]"
WHEN2 = "[after that, |a little later, |soon |next, |at last ]"
WHEN3 = "[after a while, |some time later, |before long, |a moment later, |without a word, |as usual, |meanwhile, ]"

Lines = dict[str, dict[int, list[str | tuple[int, str]]]]  # kind -> level -> phrases, some with a weight
