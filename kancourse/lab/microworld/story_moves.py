"""The events of a story: each chooses who and what, says it, and changes the state.

A move is `move(s, w, kind) -> text`; moves that share a shape share a function. Choices which the words do not show are
not made (see `slots`), so a sentence has one derivation.
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


def _say(
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


def _elsewhere(s: Story, w: Writer, person: str) -> str:
    """A room to go to."""
    return w.draw("to", lex.ROOM_TABLE[s.level], without=(s.room_of(person),))


def title(s: Story, w: Writer, kind: str) -> str:
    filled: dict[str, Any] = {}
    if kind == "title room":
        filled["room"] = s.promised["room"] = w.draw("room", lex.ROOM_TABLE[s.level])
    else:
        s.promised["thing"] = w.draw("promised", lex.THING_TABLE[s.level])
        filled["promised"] = s.promised["thing"]

        def name() -> str:
            s.promised["name"] = w.draw("name", lex.PEOPLE_TABLE[s.level])
            return s.promised["name"]

        filled["name"] = name
    return _say(s, w, kind, **filled)


def scene(s: Story, w: Writer, kind: str) -> str:
    room, name = s.promised.pop("room", None), s.promised.pop("name", None)
    room = w.pick("room", (room,)) if room else w.draw("room", lex.ROOM_TABLE[s.level])
    name = w.pick("name", (name,)) if name else w.draw("name", lex.PEOPLE_TABLE[s.level])
    people = (name,)
    if kind == "scene two":
        people = (name, w.draw("other", lex.PEOPLE_TABLE[s.level], without=people))
    for person in people:
        s.go(person, room)
    text = w.say(s.say[kind], "\n" if s.step else "", name=name, other=people[-1], room=room)
    s.end_unit(kind, people)
    return text


def come(s: Story, w: Writer, kind: str) -> str:
    name = w.draw("name", lex.PEOPLE_TABLE[s.level], without=s.people)
    s.go(name, s.here)
    same = {"to": lambda: w.pick("to", (s.here,)), "room": lambda: w.pick("room", (s.here,))}
    return _say(s, w, kind, (name,), name=name, **same)


def own(s: Story, w: Writer, kind: str) -> str:
    person = actor(s, w, list(s.people))
    new = _new_thing(s, w)
    s.hold(new[1], person)
    return _say(s, w, kind, (person,), new[1], **slots(s, w, who=person), new=new)


def there(s: Story, w: Writer, kind: str) -> str:
    new, spot = _new_thing(s, w), _spot(s, w, s.here)
    s.lay(new[1], spot, s.here)
    return _say(s, w, kind, (), new[1], new=new, new_was=new, spot=spot)


def see(s: Story, w: Writer, kind: str) -> str:
    person = actor(s, w, [person for person, room in s.people.items() if s.roomy(room)])
    new, spot = _new_thing(s, w), _spot(s, w, s.room_of(person))
    s.lay(new[1], spot, s.room_of(person))
    return _say(s, w, kind, (person,), new[1], **slots(s, w, who=person), new=new, spot=spot)


def find(s: Story, w: Writer, kind: str) -> str:
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
    return _say(s, w, kind, people, new[1], **filled, new=new, spot=spot)


def putters(s: Story) -> list[str]:
    return [person for person, room in s.people.items() if s.roomy(room) and s.held_by(person)]


def put(s: Story, w: Writer, kind: str) -> str:
    person = actor(s, w, putters(s))
    thing = w.pick("thing", s.held_by(person))
    room = s.room_of(person)
    spot = _spot(s, w, room, s.origin.get(thing))
    filled = slots(s, w, who=person, thing=thing) | {"spot": spot}
    s.lay(thing, spot, room)
    if kind == "leave":
        filled["to"] = _elsewhere(s, w, person)
        text = w.say(s.say[kind], **filled)
        s.go(person, filled["to"])
        s.end_unit(kind, (person,))
        return text
    return _say(s, w, kind, (person,), thing, **filled)


def takers(s: Story) -> list[str]:
    return [person for person in s.people if s.in_reach(person)]


def take(s: Story, w: Writer, kind: str) -> str:
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
    return _say(s, w, kind, (person,), thing, **filled)


def given_away(s: Story, person: str) -> list[str]:
    """What a person may give: not what they were given a moment ago."""
    just_got = s.last[2] if s.last[0] in ("give", "grant", "find and give", "swap") else None
    return [thing for thing in s.held_by(person) if thing != just_got]


def givers(s: Story) -> list[str]:
    return [person for person in s.people if s.beside(person) and given_away(s, person)]


def give(s: Story, w: Writer, kind: str) -> str:
    person = actor(s, w, givers(s))
    thing = w.pick("thing", given_away(s, person))
    other = w.pick("whom", s.beside(person))
    filled = slots(s, w, who=person, whom=other, thing=thing)
    s.give(thing, person, other)
    return _say(s, w, kind, (person, other), thing, **filled)


def swappers(s: Story) -> list[str]:
    return [p for p in s.people if s.held_by(p) and any(s.held_by(other) for other in s.beside(p))]


def swap(s: Story, w: Writer, kind: str) -> str:
    person = actor(s, w, swappers(s))
    thing = w.pick("thing", s.held_by(person))
    other = w.pick("whom", [other for other in s.beside(person) if s.held_by(other)])
    back = w.pick("swapped", s.held_by(other))
    filled = slots(s, w, who=person, whom=other, thing=thing) | {"swapped": back}
    s.give(thing, person, other)
    s.give(back, other, person)
    return _say(s, w, kind, (person, other), **filled)


def go(s: Story, w: Writer, kind: str) -> str:
    person = actor(s, w, list(s.people))
    home, room = s.room_of(person), _elsewhere(s, w, person)
    s.go(person, room)
    return _say(s, w, kind, (person,), **slots(s, w, who=person), to=room, home=lambda: w.pick("home", (home,)))


def carry(s: Story, w: Writer, kind: str) -> str:
    person = actor(s, w, [person for person in s.people if s.held_by(person)])
    thing = w.pick("thing", s.held_by(person))
    room = _elsewhere(s, w, person)
    s.go(person, room)
    s.hold(thing, person)
    return _say(s, w, kind, (person,), thing, **slots(s, w, who=person, thing=thing), to=room)


def together(s: Story, w: Writer, kind: str) -> str:
    person = actor(s, w, [person for person in s.people if s.beside(person)])
    other = w.pick("other", s.beside(person))
    room = _elsewhere(s, w, person)
    s.go(person, room)
    s.go(other, room)
    return _say(s, w, kind, (person, other), **slots(s, w, who=person), other=other, to=room)


def look(s: Story, w: Writer, kind: str) -> str:
    """Somebody looks where nothing is."""
    person = actor(s, w, [person for person, room in s.people.items() if s.roomy(room)])
    room = s.room_of(person)
    taken = s.spots_elsewhere(room) | {s.spot_of(thing) for thing in s.lying_in(room)}
    spot = w.draw("spot", spots_at(s, room), without=taken)
    s.spots[spot] = room
    return _say(s, w, kind, (person,), **slots(s, w, who=person), spot=spot)


def notice(s: Story, w: Writer, kind: str) -> str:
    """Somebody sees (or the teller says) where a thing still is."""
    person = actor(s, w, takers(s)) if kind == "notice" else ""
    thing = w.pick("thing", s.in_reach(person) if person else s.lying_in(s.here))
    s.since[thing] = s.step
    spot = w.pick("spot", (s.spot_of(thing),))
    people = (person,) if person else ()
    return _say(s, w, kind, people, thing, **slots(s, w, who=person, thing=thing), spot=spot)


def eaters(s: Story) -> list[str]:
    return [person for person in s.people if any(thing in lex.EDIBLE for thing in s.held_by(person))]


def eat(s: Story, w: Writer, kind: str) -> str:
    person = actor(s, w, eaters(s))
    thing = w.pick("thing", [thing for thing in s.held_by(person) if thing in lex.EDIBLE])
    filled = slots(s, w, who=person, thing=thing)
    s.things[thing] = ("eaten by", person)
    s.since[thing] = s.step
    return _say(s, w, kind, (person,), **filled)


def request(s: Story, w: Writer, kind: str) -> str:
    """Somebody asks for a thing which another one here has."""
    person = actor(s, w, askers(s))
    thing = w.pick("thing", [thing for other in s.beside(person) for thing in given_away(s, other)])
    s.requested = (person, s.things.get(thing, ("", ""))[1], thing)
    return _say(s, w, kind, (person,), thing, **slots(s, w, who=person, thing=thing))


def askers(s: Story) -> list[str]:
    return [p for p in s.people if any(given_away(s, other) for other in s.beside(p))]


def reply(s: Story, w: Writer, kind: str) -> str:
    """The one who was asked gives the thing, or keeps it."""
    if s.requested is None:
        raise Impossible("nobody asked for anything")
    asker, holder, thing = s.requested
    person = w.pick("who", (holder,))
    s.requested = None
    if kind == "refuse":
        s.since[thing] = s.step
        many = {"it": "them" if thing in lex.PLURAL_THINGS else "it"}
        return _say(s, w, kind, (person,), thing or None, **slots(s, w, who=person) | many)
    thing, other = w.pick("thing", (thing,)), w.pick("whom", (asker,))
    filled = slots(s, w, who=person, whom=other, thing=thing)
    s.give(thing, person, other)
    return _say(s, w, kind, (person, other), thing, **filled)


def act(s: Story, w: Writer, kind: str) -> str:
    person = actor(s, w, list(s.people))
    return _say(s, w, kind, (person,), **slots(s, w, who=person))


def weather(s: Story, w: Writer, kind: str) -> str:
    return _say(s, w, kind)


MOVES: dict[str, Move] = {
    "title room": title,
    "title thing": title,
    "scene": scene,
    "scene two": scene,
    "come": come,
    "own": own,
    "there": there,
    "see": see,
    "find": find,
    "find and give": find,
    "put": put,
    "leave": put,
    "take": take,
    "move": take,
    "give": give,
    "swap": swap,
    "go": go,
    "carry": carry,
    "together": together,
    "look": look,
    "notice": notice,
    "still": notice,
    "eat": eat,
    "request": request,
    "grant": reply,
    "refuse": reply,
    "mood": act,
    "act": act,
    "inside": weather,
    "outside": weather,
}
