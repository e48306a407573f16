"""What is done with things in a story: found, put, taken, given, swapped, looked for, eaten.

A move is `move(s, w, kind) -> text`: it chooses who and what, says it, and changes the state; moves of one shape share
a function. Choices which the words do not show are not made (see `story_state.slots`): no sentence has two derivations.
"""

from collections.abc import Callable
from typing import Any

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.engine import Impossible, Table, Writer
from kancourse.lab.microworld.story_state import Story, slots

Move = Callable[[Story, Writer, str], str]


def actor(s: Story, w: Writer, people: list[str]) -> str:
    """Who acts: rather the one whom the last sentence was about."""
    return w.pick("who", people, [3 if person == s.last[1] else 2 for person in people])


def say(
    s: Story, w: Writer, kind: str, people: tuple[str, ...] = (), about: str | None = None, /, **filled: Any
) -> str:
    """The sentence, with the people (doer first) and the thing that the next one can call by pronoun."""
    text = w.say(s.say[kind], " " if s.step else "", **filled)
    s.end_unit(kind, people, about)
    return text


def _new_thing(s: Story, w: Writer) -> tuple[str | None, str]:
    """What turns up: the thing of the title first."""
    promised = s.promised.pop("thing", None)
    thing = w.pick("new", (promised,)) if promised else w.draw("new", lex.THING_TABLE[s.level], without=s.things)
    adjective = None
    if w.pick("described", (True, False)):
        adjective = w.draw("new adjective", lex.ADJECTIVE_TABLE[s.level], without=lex.unfit(thing))
    if adjective in COLOURS:
        s.colours[thing] = adjective
        s.since["colour", thing] = s.step
    return adjective, thing


COLOURS = {colour for colours in lex.COLOURS.values() for colour in colours}


def spots_at(s: Story, room: str) -> Table:
    """The spots of a room."""
    if room not in lex.SPOTS_AT:
        raise Impossible("nobody said where this happens")
    return lex.SPOTS_AT[room][s.level]


def _spot(s: Story, w: Writer, room: str, but: str | None = None) -> str:
    """A spot in this room, other than `but`."""
    return w.draw("spot", spots_at(s, room), without=s.spots_elsewhere(room) | {but})


def elsewhere(s: Story, w: Writer, person: str) -> str:
    """A room to go to."""
    return w.draw("to", lex.ROOM_TABLE[s.level], without=(s.room_of(person),))


def own(s: Story, w: Writer, kind: str) -> str:
    """Somebody turns out to have a new thing."""
    person = actor(s, w, list(s.people))
    new = _new_thing(s, w)
    s.hold(new[1], person)
    return say(s, w, kind, (person,), new[1], **slots(s, w, who=person), new=new)


def there(s: Story, w: Writer, kind: str) -> str:
    """A new thing lies at a spot here."""
    new, spot = _new_thing(s, w), _spot(s, w, s.here)
    s.lay(new[1], spot, s.here)
    return say(s, w, kind, (), new[1], new=new, new_was=new, spot=spot)


def see(s: Story, w: Writer, kind: str) -> str:
    """Somebody sees a new thing at a spot."""
    person = actor(s, w, [person for person, room in s.people.items() if s.roomy(room)])
    new, spot = _new_thing(s, w), _spot(s, w, s.room_of(person))
    s.lay(new[1], spot, s.room_of(person))
    return say(s, w, kind, (person,), new[1], **slots(s, w, who=person), new=new, spot=spot)


def find(s: Story, w: Writer, kind: str) -> str:
    """Somebody finds a new thing and keeps it, or gives it to another."""
    able = [p for p, room in s.people.items() if s.roomy(room) and (kind == "find" or s.beside(p))]
    person = actor(s, w, able)
    new, spot = _new_thing(s, w), _spot(s, w, s.room_of(person))
    s.lay(new[1], spot, s.room_of(person))
    s.hold(new[1], person)
    s.found[new[1]] = (person, spot)
    s.since["found", new[1]] = s.step
    people, other = (person,), ""
    if kind == "find and give":
        other = w.pick("whom", s.beside(person))
        s.give(new[1], person, other)
        people = (person, other)
    filled = slots(s, w, who=person, whom=other) | {"it": "them" if new[1] in lex.PLURAL_THINGS else "it"}
    return say(s, w, kind, people, new[1], **filled, new=new, spot=spot)


def putters(s: Story) -> list[str]:
    """Who holds something where there is a free spot."""
    return [person for person, room in s.people.items() if s.roomy(room) and s.held_by(person)]


def put(s: Story, w: Writer, kind: str) -> str:
    """Somebody puts a held thing on a spot, and maybe leaves."""
    person = actor(s, w, putters(s))
    thing = w.pick("thing", s.held_by(person))
    room = s.room_of(person)
    spot = _spot(s, w, room, s.origin.get(thing))
    filled = slots(s, w, who=person, thing=thing) | {"spot": spot}
    s.lay(thing, spot, room)
    if kind == "leave":
        filled["to"] = elsewhere(s, w, person)
        text = w.say(s.say[kind], **filled)
        s.go(person, filled["to"])
        s.end_unit(kind, (person,))
        return text
    return say(s, w, kind, (person,), thing, **filled)


def takers(s: Story) -> list[str]:
    """Who has a lying thing in reach."""
    return [person for person in s.people if s.in_reach(person)]


def take(s: Story, w: Writer, kind: str) -> str:
    """Somebody takes a lying thing, or moves it to another spot."""
    person = actor(s, w, takers(s) if kind == "take" else [p for p in takers(s) if s.roomy(s.room_of(p))])
    thing = w.pick("thing", s.in_reach(person))
    old = s.spot_of(thing)
    filled = slots(s, w, who=person, thing=thing) | {"from": lambda: w.pick("from", (old,))}
    if kind == "move":
        room = s.room_of(person)
        filled["spot"] = _spot(s, w, room, old)
        s.lay(thing, filled["spot"], room)
    else:
        s.hold(thing, person)
    return say(s, w, kind, (person,), thing, **filled)


def given_away(s: Story, person: str) -> list[str]:
    """What a person may give: not what they were given a moment ago."""
    just_got = s.last[2] if s.last[0] in ("give", "grant", "find and give", "swap") else None
    return [thing for thing in s.held_by(person) if thing != just_got]


def givers(s: Story) -> list[str]:
    """Who has something to give, and somebody beside them."""
    return [person for person in s.people if s.beside(person) and given_away(s, person)]


def give(s: Story, w: Writer, kind: str) -> str:
    """Somebody gives a thing to another."""
    person = actor(s, w, givers(s))
    thing = w.pick("thing", given_away(s, person))
    other = w.pick("whom", s.beside(person))
    filled = slots(s, w, who=person, whom=other, thing=thing)
    s.give(thing, person, other)
    return say(s, w, kind, (person, other), thing, **filled)


def swappers(s: Story) -> list[str]:
    """Who holds something beside another who does."""
    return [p for p in s.people if s.held_by(p) and any(s.held_by(other) for other in s.beside(p))]


def swap(s: Story, w: Writer, kind: str) -> str:
    """Two people exchange things."""
    person = actor(s, w, swappers(s))
    thing = w.pick("thing", s.held_by(person))
    other = w.pick("whom", [other for other in s.beside(person) if s.held_by(other)])
    back = w.pick("swapped", s.held_by(other))
    filled = slots(s, w, who=person, whom=other, thing=thing) | {"swapped": back}
    s.give(thing, person, other)
    s.give(back, other, person)
    return say(s, w, kind, (person, other), **filled)


def look(s: Story, w: Writer, kind: str) -> str:
    """Somebody looks where nothing is."""
    person = actor(s, w, [person for person, room in s.people.items() if s.roomy(room)])
    room = s.room_of(person)
    taken = s.spots_elsewhere(room) | {s.spot_of(thing) for thing in s.lying_in(room)}
    spot = w.draw("spot", spots_at(s, room), without=taken)
    s.spots[spot] = room
    return say(s, w, kind, (person,), **slots(s, w, who=person), spot=spot)


def notice(s: Story, w: Writer, kind: str) -> str:
    """Somebody sees (or the teller says) where a thing still is."""
    person = actor(s, w, takers(s)) if kind == "notice" else ""
    thing = w.pick("thing", s.in_reach(person) if person else s.lying_in(s.here))
    s.since[thing] = s.step
    spot = w.pick("spot", (s.spot_of(thing),))
    people = (person,) if person else ()
    return say(s, w, kind, people, thing, **slots(s, w, who=person, thing=thing), spot=spot)


def eaters(s: Story) -> list[str]:
    """Who holds something to eat."""
    return [person for person in s.people if any(thing in lex.EDIBLE for thing in s.held_by(person))]


def eat(s: Story, w: Writer, kind: str) -> str:
    """Somebody eats what they hold."""
    person = actor(s, w, eaters(s))
    thing = w.pick("thing", [thing for thing in s.held_by(person) if thing in lex.EDIBLE])
    filled = slots(s, w, who=person, thing=thing)
    s.things[thing] = ("eaten by", person)
    s.since[thing] = s.step
    return say(s, w, kind, (person,), **filled)
