"""The domain `stories`: who put what where, who gave what to whom, who went where; then questions about it.

What may happen next follows from the state (`story_state`), so a story never contradicts itself. A question asks for a
fact that was settled *before* the last sentence, and something else of the same kind was mentioned as well: the last
sentence alone never answers it.
"""

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.engine import Impossible, Writer
from kancourse.lab.microworld.story_deeds import Move, eaters, givers, putters, swappers, takers
from kancourse.lab.microworld.story_moves import MOVES, askers
from kancourse.lab.microworld.story_state import Story, slots

MOST_PEOPLE, MOST_THINGS = {1: 2, 2: 3, 3: 4}, {1: 2, 2: 3, 3: 4}
SHORTEST, LONGEST = {1: 5, 2: 7, 3: 9}, {1: 8, 2: 12, 3: 16}  # units before the first question
FILLERS = ("mood", "act", "inside", "outside")


def step(s: Story, w: Writer) -> str | None:
    """The next unit of the story; None when it ends."""
    kinds = _possible(s)
    kind = w.pick("kind", list(kinds), list(kinds.values()))
    return None if kind == "stop" else ALL_MOVES[kind](s, w, kind)


def _possible(s: Story) -> dict[str, int]:
    """What can come next, with weights."""
    if s.question:
        return {_told(s.question[0]): 1}
    if s.requested:
        return {"grant": 3, "refuse": 1}
    if not s.people:
        scenes = {"scene": 1, "scene two": 3}
        if s.step or s.level == 1:
            return scenes
        return {"scene": 2, "scene two": 6, "title room": 2, "title thing": 3}
    if s.last[0] == "tell":
        again = _askable(s)
        return {"stop": (5, 4, 3)[s.level - 1] if again else 1} | dict.fromkeys(again, 1)
    kinds: dict[str, int] = {}
    if s.step >= SHORTEST[s.level]:
        askable = _askable(s)
        if askable and s.step >= LONGEST[s.level]:
            return dict.fromkeys(askable, 1)
        kinds.update(dict.fromkeys(askable, 2 * (s.step - SHORTEST[s.level] + 1)))
    kinds.update(_events(s))
    return kinds


def _events(s: Story) -> dict[str, int]:
    kinds: dict[str, int] = {}
    roomy = any(s.roomy(room) for room in s.people.values())
    if len(s.things) < MOST_THINGS[s.level]:
        new = 2 if s.things else 8
        kinds["own"] = new + 1
        if roomy:
            kinds.update(find=new + 1, see=new // 2)
        if s.here in s.people.values() and s.roomy(s.here):
            kinds["there"] = new
        if s.level > 2 and any(s.roomy(room) and s.beside(person) for person, room in s.people.items()):
            kinds["find and give"] = new
    if any(how == "with" for how, _ in s.things.values()):
        kinds["carry"] = 2
        if putters(s):
            kinds["put"] = 6
            if s.level > 2:
                kinds["leave"] = 2
        if givers(s):
            kinds["give"] = 5
    if takers(s):
        kinds["take"] = 5
    if len(s.people) < MOST_PEOPLE[s.level]:
        kinds["come"] = 4
    kinds["go"] = 2
    if s.level > 1:
        kinds.update(_richer_events(s, roomy))
    if s.last[0] not in FILLERS:
        kinds.update({"mood": 2, "act": 2, "outside" if s.here in lex.OUTDOOR else "inside": 1})
    return kinds


def _richer_events(s: Story, roomy: bool) -> dict[str, int]:
    kinds: dict[str, int] = {}
    if any(s.beside(person) for person in s.people):
        kinds["together"] = 1
    if roomy:
        kinds["look"] = 1
    if takers(s):
        kinds["notice"] = 1
        if s.level > 2 and any(s.roomy(s.room_of(person)) for person in takers(s)):
            kinds["move"] = 2
    if any(thing != s.last[2] for thing in s.lying_in(s.here)):
        kinds["still"] = 1
    if eaters(s):
        kinds["eat"] = 1
    if askers(s):
        kinds["request"] = 2
    if s.level > 2 and swappers(s):
        kinds["swap"] = 2
    return kinds


# Questions: what they can be about, and what the right answer is.

TOPIC_SLOT = {"ask room": "name"}  # all others ask about a thing


def _settled(s: Story, fact: object, topic: str) -> bool:
    """Said before the last unit, and nothing was asked about this yet."""
    return s.since.get(fact, s.step) < s.step - 1 and topic not in s.asked


def _topics(s: Story, kind: str) -> list[str]:
    """What a question of this kind may be about."""
    if kind == "ask room":
        return [person for person in s.people if _settled(s, person, person)] if len(s.rooms) > 1 else []
    if kind == "ask spot":
        return [t for t in s.things if s.spot_of(t) and _settled(s, t, t)] if len(s.spots) > 1 else []
    if kind == "ask found":
        return [t for t in s.found if _settled(s, ("found", t), t)] if len(s.spots) > 1 else []
    if kind == "ask colour":
        several = len(set(s.colours.values())) > 1
        return [t for t in s.colours if _settled(s, ("colour", t), t)] if several else []
    if len(s.people) < 2:
        return []
    if kind in ("ask giver", "ask before"):
        return [t for t in s.giver if _settled(s, ("giver", t), t)]
    how = "with" if kind == "ask holder" else "eaten by"
    return [t for t, (state, _) in s.things.items() if state == how and _settled(s, t, t)]


def _askable(s: Story) -> list[str]:
    return [kind for kind in QUESTIONS if kind in s.say and _topics(s, kind)]


def _right(s: Story, kind: str, topic: str) -> str | None:
    """The right answer; None when there is none."""
    how, where = s.things.get(topic, ("", None))
    return {
        "ask spot": lambda: where if how == "at" else None,
        "ask holder": lambda: where if how == "with" else None,
        "ask room": lambda: s.people.get(topic),
        "ask found": lambda: s.found.get(topic, (None, None))[1],
        "ask giver": lambda: s.giver.get(topic, (None, None))[0],
        "ask before": lambda: s.giver.get(topic, (None, None))[0],
        "ask eater": lambda: where if how == "eaten by" else None,
        "ask colour": lambda: s.colours.get(topic),
    }[kind]()


_FACT = {"ask found": "found", "ask giver": "giver", "ask before": "giver", "ask colour": "colour"}
QUESTIONS = ("ask spot", "ask holder", "ask room", "ask found", "ask giver", "ask before", "ask eater", "ask colour")


def _told(kind: str) -> str:
    return kind.replace("ask", "tell")


def _ask(s: Story, w: Writer, kind: str) -> str:
    if kind == "ask room":
        topic = w.pick("name", _topics(s, kind))
        filled = {"name": topic}
    else:
        topic = w.pick("thing", _topics(s, kind))
        filled = slots(s, w, thing=topic)
        if kind == "ask found":
            filled["name"] = w.pick("name", (s.found.get(topic, ("", ""))[0],))
        elif kind in ("ask giver", "ask before"):
            filled["name"] = w.pick("name", (s.giver.get(topic, ("", ""))[1],))
    text = w.say(s.say[kind], "\n", **filled)
    s.asked[topic] = None
    s.question = (kind, topic)
    s.step += 1
    return text


def _tell(s: Story, w: Writer, kind: str) -> str:
    asked, topic = s.question or ("", "")
    if _told(asked) != kind:
        raise Impossible("answer without question")
    w.bearing = s.since.get((_FACT[asked], topic) if asked in _FACT else topic)
    if asked == "ask room":
        person, filled = topic, slots(s, w, who=topic)
    else:
        finder, receiver = s.found.get(topic, ("", ""))[0], s.giver.get(topic, ("", ""))[1]
        person = {"ask found": finder, "ask giver": receiver}.get(asked, "")
        filled = slots(s, w, thing=topic, **{"who" if asked == "ask found" else "whom": person})
    if person:
        s.near = {"he": None, "she": None, lex.GENDER[person]: person}
    s.it = None
    text = w.say(s.say[kind], **filled, answer=w.answer("answer", _right(s, asked, topic)))
    s.question = None
    s.near = {"he": None, "she": None}
    s.end_unit("tell")
    return text


ALL_MOVES: dict[str, Move] = MOVES | dict.fromkeys(QUESTIONS, _ask) | {_told(kind): _tell for kind in QUESTIONS}
