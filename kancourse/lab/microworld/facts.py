"""The domain `facts`: statements and questions about a small world, as in open question answering.

World facts are the same in every document and are asked whether or not they were stated; given facts (what Tom likes)
are made up in the document and asked only there, never right after they were said, and only when somebody else's were
said as well.
"""

from functools import cache

from kancourse.lab.microworld import lexicon as lex
from kancourse.lab.microworld.engine import Impossible, Table, Writer
from kancourse.lab.microworld.knowledge import RELATIONS
from kancourse.lab.microworld.phrases import PhraseBook
from kancourse.lab.microworld.slots import LEVELS, Pronominal, Words

SHORTEST, LONGEST = {1: 4, 2: 6, 3: 7}, {1: 8, 2: 12, 3: 16}  # statements and questions in a document

BY_NAME = {relation.name: relation for relation in RELATIONS}
STAY, RETURN = {1: 6, 2: 10, 3: 16}, {1: 1, 2: 3, 3: 5}  # how much likelier the last topic, an earlier one, is
ASK_GIVEN = {1: 4, 2: 8, 3: 12}  # how much likelier a question about what was given is than one about the world


def _book() -> PhraseBook:
    book = PhraseBook({"name": Words(lex.PEOPLE), "who": Pronominal(lex.PEOPLE, {1: ("he", "she")})})
    for relation in RELATIONS:
        name, facts = relation.name, relation.facts or {}
        objects: dict[int, list[str]] = {}
        known: set[str] = set()
        for level in LEVELS:
            new = facts.get(level, {}).values() if facts else relation.objects.get(level, ())
            objects[level] = [o for o in dict.fromkeys(new) if o not in known]
            known.update(new)
        book.slots[f"subject of {name}"] = Words({level: list(facts.get(level, ())) for level in LEVELS})
        book.slots[f"object of {name}"] = Words(objects)
        typed = {"{s}": f"{{s:subject of {name}}}", "{o}": f"{{o:object of {name}}}"}
        typed["{answer}"] = f"{{answer:object of {name}}}"
        for act, by_level in (("say", relation.say), ("ask", relation.ask), ("tell", relation.tell)):
            sources = {level: [_replace(line, typed) for line in lines] for level, lines in by_level.items()}
            opens = {"say": "any", "ask": "line", "tell": "later"}[act]
            book.add(f"{act} {name}", sources, opens=opens, act=act, relation=name)
    return book


def _replace(line: str, parts: dict[str, str]) -> str:
    for old, new in parts.items():
        line = line.replace(old, new)
    return line


BOOK = _book()


@cache
def _subjects(relation: str, level: int) -> Table:
    """The subjects of a world relation, the earlier the likelier."""
    known = [s for lvl in LEVELS if lvl <= level for s in (BY_NAME[relation].facts or {}).get(lvl, ())]
    return Table(known, lex.zipf(len(known)))


@cache
def _objects(relation: str, level: int) -> Table:
    """What a given relation can say."""
    known = lex.up_to(BY_NAME[relation].objects or {}, level)
    return Table(known, lex.zipf(len(known)))


@cache
def _relations(level: int) -> list[str]:
    """The relations of a level."""
    return [r.name for r in RELATIONS if min(r.say) <= level]


def truth(relation: str, subject: str) -> str | None:
    """The object of a world fact."""
    return next((facts[subject] for facts in BY_NAME[relation].facts.values() if subject in facts), None)


class Facts:
    """A document so far: what was said and asked of each relation, and what was given."""

    __slots__ = ("asked", "given", "items", "last", "level", "question", "said", "say", "since", "step")

    def __init__(self, level: int):
        self.level, self.say = level, BOOK.at(level)
        self.step = 0
        self.items = 0
        self.last: str | None = None  # relation of the last unit
        self.given: dict[str, dict[str, str]] = {}  # relation -> person -> object
        self.since: dict[tuple[str, str], int] = {}  # (relation, person) -> unit which said it
        self.said: dict[tuple[str, str], None] = {}  # world facts stated or asked: (relation, subject)
        self.asked: dict[tuple[str, str], None] = {}
        self.question: tuple[str, str] | None = None

    def copy(self) -> "Facts":
        other = Facts.__new__(Facts)
        for name in Facts.__slots__:
            value = getattr(self, name)
            setattr(other, name, value.copy() if type(value) is dict and name != "say" else value)
        other.given = {relation: people.copy() for relation, people in self.given.items()}
        return other


def step(s: Facts, w: Writer) -> str | None:
    """The next statement, question or answer; None when the document ends."""
    acts = {"say": 3, "ask": 2 + 2 * len(_topics_given(s))}
    if s.question:
        acts = {"tell": 1}
    elif s.items >= LONGEST[s.level]:
        acts = {"stop": 1}
    elif s.items >= SHORTEST[s.level]:
        acts["stop"] = s.items - SHORTEST[s.level] + 1
    act = w.pick("act", list(acts), list(acts.values()))
    if act == "stop":
        return None
    if act == "tell":
        return _tell(s, w)
    relation = _relation(s, w, act)
    text = (_say if act == "say" else _ask)(s, w, relation)
    s.last = relation
    s.items += 1
    s.step += 1
    return text


def _topics_given(s: Facts) -> list[tuple[str, str]]:
    """What was given, but not in the last unit, has a rival, and was not asked yet."""
    return [
        key
        for key, at in s.since.items()
        if at < s.step - 1 and key not in s.asked and len(s.given.get(key[0], ())) > 1
    ]


def _relation(s: Facts, w: Writer, act: str) -> str:
    """What the next unit is about: rather the same as the last one; a question rather about what was given."""
    open_given = {relation for relation, _ in _topics_given(s)} if act == "ask" else set()
    used = {relation for relation, _ in s.said} | set(s.given)
    weights = {}
    for name in _relations(s.level):
        if BY_NAME[name].facts:
            if _subjects(name, s.level).rest([subject for relation, subject in s.said if relation == name]):
                weights[name] = 2
        elif act == "say":
            if len(s.given.get(name, ())) < 3:
                weights[name] = 3
        elif name in open_given:
            weights[name] = ASK_GIVEN[s.level]
        if name in used and name in weights:
            weights[name] *= STAY[s.level] if name == s.last else RETURN[s.level]
    return w.pick("relation", list(weights), list(weights.values()))


def _say(s: Facts, w: Writer, relation: str) -> str:
    lead = " " if s.step else ""
    if BY_NAME[relation].facts:
        subject = _world_subject(s, w, relation)
        right = w.pick("o", (truth(relation, subject),))
        text = w.say(s.say[f"say {relation}"], lead, s=subject, o=right)
    else:
        people = s.given.setdefault(relation, {})
        person = w.draw("name", lex.PEOPLE_TABLE[s.level], without=people)
        value = w.draw("o", _objects(relation, s.level), without=list(people.values()))
        text = w.say(s.say[f"say {relation}"], lead, name=person, o=value)
        people[person], s.since[relation, person] = value, s.step
    return text


def _world_subject(s: Facts, w: Writer, relation: str) -> str:
    used = [subject for known, subject in s.said if known == relation]
    subject = w.draw("s", _subjects(relation, s.level), without=used)
    s.said[relation, subject] = None
    return subject


def _ask(s: Facts, w: Writer, relation: str) -> str:
    lead = "\n" if s.step else ""
    if BY_NAME[relation].facts:
        subject = _world_subject(s, w, relation)
        text = w.say(s.say[f"ask {relation}"], lead, s=subject)
    else:
        subject = w.pick("name", [person for known, person in _topics_given(s) if known == relation])
        s.asked[relation, subject] = None
        text = w.say(s.say[f"ask {relation}"], lead, name=subject)
    s.question = (relation, subject)
    return text


def _tell(s: Facts, w: Writer) -> str:
    if s.question is None or w.pick("relation", (s.question[0],)) != s.question[0]:
        raise Impossible("answer without question")
    relation, subject = s.question
    phrases = s.say[f"tell {relation}"]
    if BY_NAME[relation].facts:
        answer = w.answer("answer", truth(relation, subject))
        text = w.say(phrases, s=w.pick("s", (subject,)), answer=answer)
    else:
        w.bearing = s.since.get((relation, subject))
        pronoun = lex.GENDER[subject]
        who = (pronoun, None) if w.pick("who as", (None, pronoun), (1, 3)) else (None, w.pick("who", (subject,)))
        text = w.say(phrases, who=who, answer=w.answer("answer", s.given.get(relation, {}).get(subject)))
    s.question = None
    s.step += 1
    return text
