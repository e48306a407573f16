"""What a story remembers: who is where, who has what, what was said when, and whom "she" means now.

- People are in rooms; things are with people or on spots; a spot belongs to the room where it was first mentioned.
- A pronoun stands only where the sentence before leaves one candidate.
"""

from typing import Any

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.engine import Writer
from kancourse.lab.microworld.story_phrases import BOOK

OBJECT, POSSESSIVE = {"he": "him", "she": "her"}, {"he": "his", "she": "her"}


class Story:
    """What is true so far, and what was mentioned when."""

    __slots__ = (
        "asked", "colours", "found", "giver", "here", "it", "last", "level", "near", "origin", "people", "promised",
        "question", "requested", "rooms", "say", "since", "spots", "step", "things",
    )  # fmt: skip

    def __init__(self, level: int):
        self.level, self.say = level, BOOK.at(level)
        self.step = 0  # units so far
        self.people: dict[str, str] = {}  # person -> room
        self.things: dict[str, tuple[str, str]] = {}  # thing -> ("with", person), ("at", spot) or ("eaten by", person)
        self.spots: dict[str, str] = {}  # spot -> the room it belongs to
        self.origin: dict[str, str] = {}  # thing -> the spot it last lay on
        self.found: dict[str, tuple[str, str]] = {}  # thing -> who found it, where
        self.giver: dict[str, tuple[str, str]] = {}  # thing -> who gave it last, to whom
        self.colours: dict[str, str] = {}  # thing -> colour, where one was said
        self.rooms: dict[str, None] = {}  # rooms mentioned, in order
        self.since: dict[Any, int] = {}  # person, thing or (what about it, thing) -> unit which said so last
        self.near: dict[str, str | None] = {"he": None, "she": None}  # whom a pronoun would mean now
        self.it: str | None = None  # what "it" would mean now
        self.here = ""  # the room where the last event was
        self.last: tuple[Any, ...] = ("", None, None)  # the last event: kind, who, thing
        self.promised: dict[str, Any] = {}  # what the title announced: room, name, thing
        self.requested: tuple[str, str, str] | None = None  # asked for and not yet answered: who, whom, thing
        self.question: tuple[str, str] | None = None  # asked and not yet answered: kind, topic
        self.asked: dict[str, None] = {}

    def copy(self) -> "Story":
        other = Story.__new__(Story)
        for name in Story.__slots__:
            value = getattr(self, name)
            setattr(other, name, value.copy() if type(value) is dict and name != "say" else value)
        return other

    def room_of(self, person: str) -> str:
        return self.people.get(person, "")

    def held_by(self, person: str) -> list[str]:
        return [thing for thing, where in self.things.items() if where == ("with", person)]

    def beside(self, person: str) -> list[str]:
        """Who else is in this person's room."""
        room = self.room_of(person)
        return [other for other, where in self.people.items() if where == room and other != person]

    def lying_in(self, room: str) -> list[str]:
        """Things on the spots of a room."""
        return [thing for thing, (how, at) in self.things.items() if how == "at" and self.spots.get(at) == room]

    def in_reach(self, person: str) -> list[str]:
        """Things lying in this person's room, but for one they have just put down."""
        just_put = self.last[2] if self.last[1] == person else None
        return [thing for thing in self.lying_in(self.room_of(person)) if thing != just_put]

    def spot_of(self, thing: str) -> str:
        """Where a thing lies; "" when it does not lie anywhere."""
        how, at = self.things.get(thing, ("", ""))
        return at if how == "at" else ""

    def spots_elsewhere(self, room: str) -> set[str]:
        """Spots that belong to other rooms."""
        return {spot for spot, at in self.spots.items() if at != room}

    def roomy(self, room: str) -> bool:
        """Whether there are at least two spots to choose from in a room."""
        if room not in lex.SPOTS_AT:
            return False
        table = lex.SPOTS_AT[room][self.level]
        return len(table.options) - sum(spot in table.weight for spot in self.spots_elsewhere(room)) > 1

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

    def give(self, thing: str, giver: str, receiver: str) -> None:
        self.hold(thing, receiver)
        self.giver[thing] = (giver, receiver)
        self.since["giver", thing] = self.step

    def end_unit(self, kind: str, people: tuple[str, ...] = (), thing: str | None = None) -> None:
        """Remembers the event and what pronouns mean in the next sentence."""
        if people:
            for pronoun in ("he", "she"):
                same = {person for person in people if lex.GENDER[person] == pronoun}
                self.near[pronoun] = same.pop() if len(same) == 1 else None
            self.here = self.people.get(people[0], self.here)
        self.it = thing
        self.last = (kind, people[0] if people else None, thing)
        self.step += 1


def subject(s: Story, w: Writer, person: str) -> tuple[str | None, str | None]:
    """A person as the doer: by pronoun where it is clear."""
    pronoun = lex.GENDER[person]
    if s.near[pronoun] == person and w.pick("who as", (None, pronoun), (1, 3)):
        return pronoun, None
    return None, w.pick("who", (person,))


def receiver(s: Story, w: Writer, person: str, doer: str | None = None) -> tuple[str | None, str | None]:
    """A person as the receiver: no pronoun when the doer could be meant."""
    pronoun = lex.GENDER[person]
    clear = s.near[pronoun] == person and (doer is None or lex.GENDER[doer] != pronoun)
    if clear and w.pick("whom as", (None, OBJECT[pronoun]), (1, 2)):
        return OBJECT[pronoun], None
    return None, w.pick("whom", (person,))


def object_(s: Story, w: Writer, thing: str, *, was: bool = False) -> tuple[str | None, str | None]:
    """A known thing: "it" or "them" where that is clear (with the verb: "it was", "they were")."""
    many = thing in lex.PLURAL_THINGS
    pronoun = ("they were" if many else "it was") if was else "them" if many else "it"
    if s.it == thing and w.pick("thing_was as" if was else "thing as", (None, pronoun), (1, 3)):
        return pronoun, None
    return None, w.pick("thing", (thing,))


def slots(s: Story, w: Writer, *, who: str = "", whom: str = "", thing: str = "") -> dict[str, Any]:
    """Everything a phrase can say about who did what to whom with which thing; choices are made when it is said."""
    filled: dict[str, Any] = {}
    if who:
        pronoun = lex.GENDER[who]
        filled.update(who=lambda: subject(s, w, who), doer=lambda: w.pick("who", (who,)))
        filled.update(he=pronoun, him=OBJECT[pronoun], his=POSSESSIVE[pronoun])
    if whom:
        filled.update(whom=lambda: receiver(s, w, whom, who or None), receiver=lambda: w.pick("whom", (whom,)))
    if thing:
        many = thing in lex.PLURAL_THINGS
        filled.update(thing=lambda: object_(s, w, thing), thing_was=lambda: object_(s, w, thing, was=True))
        filled.update(dict.fromkeys(("the", "is_the", "was_the", "the_is"), lambda: w.pick("thing", (thing,))))
        filled["it"] = "them" if many else "it"
        filled.update(it_is="they are" if many else "it is", it_was="they were" if many else "it was")
    return filled
