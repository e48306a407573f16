"""What a story remembers: who is where, who has what, what was said when, and whom "she" means now.

- People are in rooms; things are with people or on spots; a spot belongs to the room where it was first mentioned.
- A pronoun stands only where the sentence before leaves one candidate.
"""

from typing import Any

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.engine import Writer
from kancourse.lab.microworld.story_phrases import BOOK

OBJECT = {"he": "him", "she": "her"}


class Story:
    """What is true so far, and what was mentioned when."""

    __slots__ = (
        "asked", "here", "it", "last", "level", "near", "origin", "people", "question",
        "rooms", "say", "since", "spots", "step", "things",
    )  # fmt: skip

    def __init__(self, level: int):
        self.level, self.say = level, BOOK.at(level)
        self.step = 0  # units so far
        self.people: dict[str, str] = {}  # person -> room
        self.things: dict[str, tuple[str, str]] = {}  # thing -> ("with", person) or ("at", spot)
        self.spots: dict[str, str] = {}  # spot -> the room it belongs to
        self.origin: dict[str, str] = {}  # thing -> the spot it last lay on
        self.rooms: dict[str, None] = {}  # rooms mentioned, in order
        self.since: dict[str, int] = {}  # person or thing -> unit which last said where they are
        self.near: dict[str, str | None] = {"he": None, "she": None}  # whom a pronoun would mean now
        self.here = ""  # the room where the last event was
        self.it: str | None = None  # what "it" would mean now
        self.last: tuple[Any, ...] = ("",)  # the last event: kind, who, thing
        self.question: tuple[str, str] | None = None  # asked and not yet answered
        self.asked: dict[str, None] = {}

    def copy(self) -> "Story":
        other = Story.__new__(Story)
        for name in Story.__slots__:
            value = getattr(self, name)
            setattr(other, name, value.copy() if type(value) is dict and name != "say" else value)
        return other

    def held_by(self, person: str) -> list[str]:
        return [thing for thing, where in self.things.items() if where == ("with", person)]

    def beside(self, person: str) -> list[str]:
        """Who else is in this person's room."""
        room = self.people.get(person)
        return [other for other, where in self.people.items() if where == room and other != person]

    def in_reach(self, person: str) -> list[str]:
        """Things lying in this person's room, but for one they have just put down."""
        room = self.people.get(person)
        just_put = self.last[2] if self.last[:2] == ("put", person) else None
        return [
            t for t, (how, at) in self.things.items() if how == "at" and self.spots.get(at) == room and t != just_put
        ]

    def go(self, person: str, room: str) -> None:
        self.people[person] = room
        self.rooms[room] = None
        self.since[person] = self.step

    def hold(self, thing: str, person: str) -> None:
        self.things[thing] = ("with", person)
        self.since[thing] = self.step

    def lay(self, thing: str, spot: str, room: str) -> None:
        self.things[thing] = ("at", spot)
        self.origin[thing] = spot
        self.spots[spot] = room
        self.since[thing] = self.step

    def mention(self, kind: str, people: tuple[str, ...] = (), thing: str | None = None) -> None:
        """Ends a unit: remembers the event and what pronouns mean in the next one."""
        if people:
            self.near = {"he": None, "she": None}
            for pronoun in self.near:
                same = {person for person in people if lex.GENDER[person] == pronoun}
                self.near[pronoun] = same.pop() if len(same) == 1 else None
            self.here = self.people.get(people[0], self.here)
        self.it = thing
        self.last = (kind, people[0] if people else None, thing)
        self.step += 1


def subject(s: Story, w: Writer, person: str) -> tuple[str | None, str | None]:
    """A person as the doer: by pronoun where it is clear."""
    pronoun = lex.GENDER[person]
    if s.near.get(pronoun) == person and w.pick("who as", (None, pronoun), (1, 3)):
        return pronoun, None
    return None, person


def object_(s: Story, w: Writer, person: str, doer: str) -> tuple[str | None, str | None]:
    """A person as the receiver: no pronoun when the doer could be meant."""
    pronoun = lex.GENDER[person]
    clear = s.near[pronoun] == person and lex.GENDER[doer] != pronoun
    if clear and w.pick("whom as", (None, OBJECT[pronoun]), (1, 2)):
        return OBJECT[pronoun], None
    return None, person


def thing_(s: Story, w: Writer, thing: str) -> tuple[str | None, str | None]:
    """A known thing: "it" where that is clear."""
    if s.it == thing and w.pick("thing as", (None, "it"), (1, 3)):
        return "it", None
    return None, thing
