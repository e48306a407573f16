"""The moves of a story: its title and opening, what people do and ask for, and the table of all moves."""

from typing import Any

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.engine import Impossible, Writer
from kancourse.lab.microworld.story_deeds import (
    Move,
    actor,
    eat,
    elsewhere,
    find,
    give,
    given_away,
    look,
    notice,
    own,
    put,
    say,
    see,
    swap,
    take,
    there,
)
from kancourse.lab.microworld.story_state import Story, slots


def title(s: Story, w: Writer, kind: str) -> str:
    """A title, which promises the room, or a thing and somebody."""
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
    return say(s, w, kind, **filled)


def scene(s: Story, w: Writer, kind: str) -> str:
    """The opening: who is where, the promised ones first."""
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
    """Somebody new comes to where the story is."""
    name = w.draw("name", lex.PEOPLE_TABLE[s.level], without=s.people)
    s.go(name, s.here)
    same = {"to": lambda: w.pick("to", (s.here,)), "room": lambda: w.pick("room", (s.here,))}
    return say(s, w, kind, (name,), name=name, **same)


def go(s: Story, w: Writer, kind: str) -> str:
    """Somebody goes to another room."""
    person = actor(s, w, list(s.people))
    home, room = s.room_of(person), elsewhere(s, w, person)
    s.go(person, room)
    return say(s, w, kind, (person,), **slots(s, w, who=person), to=room, home=lambda: w.pick("home", (home,)))


def carry(s: Story, w: Writer, kind: str) -> str:
    """Somebody takes a thing they hold along to another room."""
    person = actor(s, w, [person for person in s.people if s.held_by(person)])
    thing = w.pick("thing", s.held_by(person))
    room = elsewhere(s, w, person)
    s.go(person, room)
    s.hold(thing, person)
    return say(s, w, kind, (person,), thing, **slots(s, w, who=person, thing=thing), to=room)


def together(s: Story, w: Writer, kind: str) -> str:
    """Two people go to another room."""
    person = actor(s, w, [person for person in s.people if s.beside(person)])
    other = w.pick("other", s.beside(person))
    room = elsewhere(s, w, person)
    s.go(person, room)
    s.go(other, room)
    return say(s, w, kind, (person, other), **slots(s, w, who=person), other=other, to=room)


def request(s: Story, w: Writer, kind: str) -> str:
    """Somebody asks for a thing which another one here has."""
    person = actor(s, w, askers(s))
    thing = w.pick("thing", [thing for other in s.beside(person) for thing in given_away(s, other)])
    s.requested = (person, s.things.get(thing, ("", ""))[1], thing)
    return say(s, w, kind, (person,), thing, **slots(s, w, who=person, thing=thing))


def askers(s: Story) -> list[str]:
    """Who could ask somebody beside them for a thing."""
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
        return say(s, w, kind, (person,), thing or None, **slots(s, w, who=person) | many)
    thing, other = w.pick("thing", (thing,)), w.pick("whom", (asker,))
    filled = slots(s, w, who=person, whom=other, thing=thing)
    s.give(thing, person, other)
    return say(s, w, kind, (person, other), thing, **filled)


def act(s: Story, w: Writer, kind: str) -> str:
    """Somebody feels or does something that changes nothing."""
    person = actor(s, w, list(s.people))
    return say(s, w, kind, (person,), **slots(s, w, who=person))


def weather(s: Story, w: Writer, kind: str) -> str:
    """How it is inside or outside."""
    return say(s, w, kind)


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
