"""The domain `stories`: who put what where, who gave what to whom, who went where; then a question about it.

What may happen next follows from the state (`story_state`), so a story never contradicts itself. A question asks for a
fact that was settled *before* the last sentence, and something else of the same kind was mentioned as well: the last
sentence alone never answers it.
"""

from collections.abc import Callable

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.engine import Impossible, Writer
from kancourse.lab.microworld.story_state import Story, object_, subject, thing_

MOST_PEOPLE, MOST_THINGS = {1: 2, 2: 3, 3: 4}, {1: 2, 2: 3, 3: 4}
SHORTEST, LONGEST = {1: 5, 2: 7, 3: 9}, {1: 8, 2: 12, 3: 16}
FILLERS = ("mood", "act", "weather")


def step(s: Story, w: Writer) -> str | None:
    """The next unit of the story; None when it ends."""
    kinds = _possible(s)
    kind = w.pick("kind", list(kinds), list(kinds.values()))
    return None if kind == "stop" else MOVES[kind](s, w, kind)


def _possible(s: Story) -> dict[str, int]:
    """What can come next, with weights."""
    if s.question:
        return {TELL[s.question[0]]: 1}
    if s.step == 0:
        return {"scene": 1, "scene two": 3}
    if s.last[0] == "tell":
        again = _askable(s)
        return {"stop": 4 if again else 1} | dict.fromkeys(again, 1)
    filler = s.last[0] in FILLERS
    kinds: dict[str, int] = {}
    if s.step >= SHORTEST[s.level]:
        askable = _askable(s)
        if askable and s.step >= LONGEST[s.level]:
            return dict.fromkeys(askable, 1)
        kinds.update(dict.fromkeys(askable, 2 * (s.step - SHORTEST[s.level] + 1)))
    if len(s.things) < MOST_THINGS[s.level]:
        new = 2 if s.things else 8
        kinds.update({"own": new, "find": new, "there": new})
    if any(how == "with" for how, _ in s.things.values()):
        kinds.update(put=6, carry=2)
        if _givers(s):
            kinds["give"] = 5
    if any(s.in_reach(person) for person in s.people):
        kinds["take"] = 5
    if len(s.people) < MOST_PEOPLE[s.level]:
        kinds["come"] = 4
    kinds["go"] = 2
    if not filler:
        kinds.update(mood=2, act=2, weather=1)
    return kinds


def _actor(s: Story, w: Writer, people: list[str]) -> str:
    """Who acts: rather the one whom the last sentence was about."""
    return w.pick("who", people, [3 if person == s.last[1] else 2 for person in people])


def _givers(s: Story) -> list[str]:
    return [p for p in s.people if s.beside(p) and any(t != s.last[2] or s.last[0] != "give" for t in s.held_by(p))]


def _scene(s: Story, w: Writer, kind: str) -> str:
    room = w.draw("room", lex.ROOM_TABLE[s.level])
    name = w.draw("name", lex.PEOPLE_TABLE[s.level])
    people = (name,)
    if kind == "scene two":
        people = (name, w.draw("other", lex.PEOPLE_TABLE[s.level], without=people))
    for person in people:
        s.go(person, room)
    text = w.say(s.say[kind], "", name=name, other=people[-1], room=room)
    s.mention(kind, people)
    return text


def _come(s: Story, w: Writer, kind: str) -> str:
    name = w.draw("name", lex.PEOPLE_TABLE[s.level], without=s.people)
    room = w.pick("to", (s.here,))
    s.go(name, room)
    text = w.say(s.say[kind], name=name, to=room)
    s.mention(kind, (name,))
    return text


def _new_thing(s: Story, w: Writer) -> tuple[str | None, str]:
    adjective = w.draw("new adjective", lex.ADJECTIVE_TABLE[s.level]) if w.pick("described", (True, False)) else None
    return adjective, w.draw("new", lex.THING_TABLE[s.level], without=s.things)


def _spot(s: Story, w: Writer, room: str, but: str | None = None) -> str:
    """A spot in this room, other than `but`."""
    without = {spot for spot, at in s.spots.items() if at != room} | {but}
    return w.draw("spot", lex.SPOTS_AT[room in lex.OUTDOOR][s.level], without=without)


def _own(s: Story, w: Writer, kind: str) -> str:
    person = _actor(s, w, list(s.people))
    new = _new_thing(s, w)
    s.hold(new[1], person)
    text = w.say(s.say[kind], who=subject(s, w, person), new=new)
    s.mention(kind, (person,), new[1])
    return text


def _find(s: Story, w: Writer, kind: str) -> str:
    person = _actor(s, w, list(s.people))
    new, spot = _new_thing(s, w), _spot(s, w, s.people.get(person, ""))
    s.lay(new[1], spot, s.people.get(person, ""))
    s.hold(new[1], person)
    text = w.say(s.say[kind], who=subject(s, w, person), new=new, spot=spot)
    s.mention(kind, (person,), new[1])
    return text


def _there(s: Story, w: Writer, kind: str) -> str:
    new, spot = _new_thing(s, w), _spot(s, w, s.here)
    s.lay(new[1], spot, s.here)
    text = w.say(s.say[kind], new=new, spot=spot)
    s.mention(kind, thing=new[1])
    return text


def _put(s: Story, w: Writer, kind: str) -> str:
    person = _actor(s, w, [person for person in s.people if s.held_by(person)])
    thing = w.pick("thing", s.held_by(person))
    spot = _spot(s, w, s.people.get(person, ""), s.origin.get(thing))
    text = w.say(s.say[kind], who=subject(s, w, person), thing=thing_(s, w, thing), spot=spot)
    s.lay(thing, spot, s.people.get(person, ""))
    s.mention(kind, (person,), thing)
    return text


def _take(s: Story, w: Writer, kind: str) -> str:
    person = _actor(s, w, [person for person in s.people if s.in_reach(person)])
    thing = w.pick("thing", s.in_reach(person))
    spot = w.pick("from", (s.things.get(thing, ("", ""))[1],))
    text = w.say(s.say[kind], who=subject(s, w, person), thing=thing_(s, w, thing), **{"from": spot})
    s.hold(thing, person)
    s.mention(kind, (person,), thing)
    return text


def _give(s: Story, w: Writer, kind: str) -> str:
    person = _actor(s, w, _givers(s))
    thing = w.pick("thing", [t for t in s.held_by(person) if t != s.last[2] or s.last[0] != "give"])
    other = w.pick("whom", s.beside(person))
    slots = {"who": subject(s, w, person), "thing": thing_(s, w, thing), "whom": object_(s, w, other, person)}
    text = w.say(s.say[kind], **slots)
    s.hold(thing, other)
    s.mention(kind, (person, other), thing)
    return text


def _go(s: Story, w: Writer, kind: str) -> str:
    person = _actor(s, w, list(s.people))
    room = w.draw("to", lex.ROOM_TABLE[s.level], without=(s.people.get(person, ""),))
    text = w.say(s.say[kind], who=subject(s, w, person), to=room)
    s.go(person, room)
    s.mention(kind, (person,))
    return text


def _carry(s: Story, w: Writer, kind: str) -> str:
    person = _actor(s, w, [person for person in s.people if s.held_by(person)])
    thing = w.pick("thing", s.held_by(person))
    room = w.draw("to", lex.ROOM_TABLE[s.level], without=(s.people.get(person, ""),))
    text = w.say(s.say[kind], who=subject(s, w, person), thing=thing_(s, w, thing), to=room)
    s.go(person, room)
    s.hold(thing, person)
    s.mention(kind, (person,), thing)
    return text


def _act(s: Story, w: Writer, kind: str) -> str:
    person = _actor(s, w, list(s.people))
    text = w.say(s.say[kind], who=subject(s, w, person))
    s.mention(kind, (person,))
    return text


def _weather(s: Story, w: Writer, kind: str) -> str:
    text = w.say(s.say[kind])
    s.mention(kind)
    return text


def _settled(s: Story, key: str) -> bool:
    """Said before the last unit, and not asked yet."""
    return s.since.get(key, s.step) < s.step - 1 and key not in s.asked


def _topics(s: Story, kind: str) -> list[str]:
    """What a question of this kind may be about."""
    if kind == "ask room":
        return [person for person in s.people if _settled(s, person)] if len(s.rooms) > 1 else []
    how = "at" if kind == "ask spot" else "with"
    if len(s.spots if how == "at" else s.people) < 2:
        return []
    return [thing for thing, where in s.things.items() if where[0] == how and _settled(s, thing)]


def _askable(s: Story) -> list[str]:
    return [kind for kind in QUESTIONS if _topics(s, kind)]


QUESTIONS = {"ask spot": "the", "ask holder": "the", "ask room": "name"}  # kind -> the slot that says what about
TELL = {kind: kind.replace("ask", "tell") for kind in QUESTIONS}


def _ask(s: Story, w: Writer, kind: str) -> str:
    slot = QUESTIONS[kind]
    topic = w.pick(slot, _topics(s, kind))
    text = w.say(s.say[kind], "\n", **{slot: topic})
    s.asked[topic] = None
    s.question = (kind, topic)
    s.step += 1
    return text


def _tell(s: Story, w: Writer, kind: str) -> str:
    asked, topic = s.question or ("", "")
    if TELL.get(asked) != kind:
        raise Impossible("answer without question")
    w.bearing = s.since.get(topic)
    if kind == "tell room":
        s.near = {"he": None, "she": None, lex.GENDER[topic]: topic}
        slots = {"who": lambda: subject(s, w, topic), "answer": w.answer("answer", s.people.get(topic))}
    else:
        how, where = s.things.get(topic, ("", None))
        right = where if how == ("at" if kind == "tell spot" else "with") else None
        slots = {"the": lambda: w.pick("the", (topic,)), "answer": w.answer("answer", right)}
    text = w.say(s.say[kind], **slots)
    s.question = None
    s.mention("tell")
    s.near = {"he": None, "she": None}
    return text


MOVES: dict[str, Callable[[Story, Writer, str], str]] = {
    "scene": _scene,
    "scene two": _scene,
    "come": _come,
    "own": _own,
    "find": _find,
    "there": _there,
    "put": _put,
    "take": _take,
    "give": _give,
    "go": _go,
    "carry": _carry,
    "mood": _act,
    "act": _act,
    "weather": _weather,
    **dict.fromkeys(QUESTIONS, _ask),
    **dict.fromkeys(TELL.values(), _tell),
}
