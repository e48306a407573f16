"""How stories are worded: the slots and phrases of the domain `stories`.

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
from kancourse.lab.microworld.phrases import PhraseBook, Pronominal, Slot, Words


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

BOOK = PhraseBook(
    {
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
)


def _add(opens: str, phrases: dict[str, dict[int, list[str | tuple[int, str]]]]) -> None:
    for kind, by_level in phrases.items():
        BOOK.add(kind, by_level, opens=opens)


_TIMES2 = "[one sunny day, |early one morning, |one evening, |one afternoon, ]"
_TIMES3 = "[last summer, |on a bright winter morning, |late in the afternoon, |shortly before dinner, ]"
_END = " at the end of the story?"
_WHEN = "[*4|then *2|later ]"
_WHEN2 = "[after that, |a little later, |soon |next, |at last ]"
_WHEN3 = "[after a while, |some time later, |before long, |a moment later, |without a word, |as usual, |meanwhile, ]"

_add(
    "line",
    {
        "title room": {2: ["a [day|long day|quiet day] {room}"], 3: ["an [unusual|ordinary] day {room}"]},
        "title thing": {2: ["{name} and the {promised}"], 3: ["the story of the {promised}"]},
        "scene": {
            1: [(3, "[one day, |one morning, |]{name} was {room}.")],
            2: [
                _TIMES2 + "{name} was {room}.",
                "it was a [quiet|busy|rainy|windy|cold] [day|morning|afternoon], and {name} was {room}.",
                "{name} was alone {room}.",
            ],
            3: [
                _TIMES3 + "{name} was [working|resting|waiting] {room}.",
                "{name} had spent the whole [morning|afternoon|day] {room}.",
                "it was [Saturday|Sunday], and {name} was {room} because there was nothing else to do.",
            ],
        },
        "scene two": {
            1: [(5, "[one day, |one morning, |]{name} and {other:name} were {room}.")],
            2: [
                _TIMES2 + "{name} and {other:name} were {room}.",
                "{name} was {room}, and {other:name} was there too.",
                "{name} was waiting for {other:name} {room}, and soon {other:name} came.",
            ],
            3: [
                _TIMES3 + "{name} and {other:name} were [talking|working|resting] {room}.",
                "{name} was {room} with an old friend, whose name was {other:name}.",
                "while {name} was [reading|writing a letter|preparing lunch] {room}, {other:name} was sitting nearby.",
            ],
        },
    },
)

_add(
    "later",
    {
        "come": {
            1: [(2, "[*2|then |later ]{name} came {to}."), "then {name} came too."],
            2: ["[soon |a little later, ]{name} arrived.", "after that, {name} came {to} to see what was going on."],
            3: [
                "before long, {name} arrived as well.",
                "{name}, who had been looking for company, appeared {room}.",
                "a moment later, {name} walked in without a word.",
            ],
        },
        "own": {
            1: [(3, "{who} had {new}.")],
            2: ["{who} was carrying {new}.", "{who} had brought {new}.", "{who} had {new} with {him}."],
            3: [
                "{who} had {new}, a present from {his} [aunt|uncle|grandmother|grandfather|cousin|neighbour].",
                "in {his} hand, {doer} was holding {new}.",
                "{who} had borrowed {new} from a [friend|neighbour|teacher].",
            ],
        },
        "there": {
            1: [(3, "there {new_was} {spot}.")],
            2: ["somebody had left {new} {spot}.", "not far away, there {new_was} {spot}."],
            3: ["by chance, there {new_was} lying {spot}.", "there {new_was} {spot}, and nobody knew why."],
        },
        "see": {
            1: ["{who} saw {new} {spot}."],
            2: ["{who} looked around and saw {new} {spot}."],
            3: ["when {who} turned round, {he} noticed {new} {spot}."],
        },
        "find": {
            1: [(3, "[*2|then ]{who} found {new} {spot}.")],
            2: [_WHEN2 + "{who} found {new} {spot}.", "{who} was [glad|surprised] to find {new} {spot}."],
            3: [
                "to {his} surprise, {who} found {new} {spot}.",
                "while {who} was tidying up, {he} discovered {new} {spot}.",
                "{doer}, who was always curious, found {new} {spot}.",
            ],
        },
        "put": {
            1: [(4, _WHEN + "{who} put {thing} {spot}.")],
            2: [
                "{who} [carefully|quickly|quietly] put {thing} {spot}.",
                _WHEN2 + "{who} [left|hid|placed] {thing} {spot}.",
                "{who} put {thing} {spot} and [smiled|sat down|took a rest].",
            ],
            3: [
                "{who} [gently|proudly|secretly|slowly] [laid|placed|set down] {thing} {spot}.",
                "so that nobody would lose {it}, {who} put {thing} {spot}.",
                "because {he} needed both hands, {who} left {thing} {spot}.",
                _WHEN3 + "{who} decided to leave {thing} {spot}.",
            ],
        },
        "take": {
            1: [(3, _WHEN + "{who} took {thing} {from}."), "{who} picked {thing} up."],
            2: [_WHEN2 + "{who} took {thing} {from}.", "{who} went over and took {thing} {from}."],
            3: [
                "{who} reached out and took {thing} {from}.",
                "as nobody was watching, {who} took {thing} {from}.",
                _WHEN3 + "{who} removed {thing} {from}.",
            ],
        },
        "give": {
            1: [(5, _WHEN + "{who} gave {thing} to {whom}."), (2, "{who} gave {whom} {the}.")],
            2: [
                "{who} handed {thing} to {whom}.",
                _WHEN2 + "{who} gave {thing} to {whom}.",
                '"[this is for you|here you are]," said {doer}, and gave {thing} to {whom}.',
            ],
            3: [
                "{who} [generously|gladly|reluctantly] gave {thing} to {whom}.",
                "because {who} no longer needed {it}, {he} passed {thing} to {receiver}.",
                '"please [take care of|look after] {the}," said {doer}, and handed {it} to {whom}.',
                _WHEN3 + "{who} presented {whom} with {the}.",
                "{thing_was} given to {receiver} by {doer}.",
            ],
        },
    },
)

_add(
    "later",
    {
        "go": {
            1: [(4, _WHEN + "{who} went {to}."), (2, "{who} walked {to}.")],
            2: [
                "{who} [ran|hurried] {to}.",
                _WHEN2 + "{who} went {to}.",
                "{who} left {home} and went {to}.",
                "{who} waved and walked {to}.",
            ],
            3: [
                "{who} decided to go {to}, where {he} had work to do.",
                "because {he} had promised to be there, {who} hurried {to}.",
                _WHEN3 + "{who} wandered {to}.",
                "{who} said goodbye and travelled {to}.",
                "although {he} would have liked to stay, {who} returned {to}.",
            ],
        },
        "carry": {
            1: [(4, _WHEN + "{who} took {thing} {to}.")],
            2: ["{who} carried {thing} {to}.", _WHEN2 + "{who} went {to} with {the}."],
            3: [
                "with {the} in {his} [hands|arms], {who} walked {to}.",
                "{who} did not want to leave {thing} behind, so {he} took {it} {to}.",
                "{doer}, who was still holding {the}, went {to}.",
            ],
        },
        "mood": {
            1: [(2, "{who} was [happy*2|sad|tired|hungry].")],
            2: [
                "{who} was very [happy|glad|tired|excited|cold|thirsty].",
                "{who} felt [proud|sleepy|bored|angry|lucky|better].",
            ],
            3: [
                "{who} looked rather [pleased|nervous|puzzled|worried|cheerful|impatient|lonely].",
                "{who} felt [grateful|relieved|exhausted|disappointed|hopeful|jealous|confident].",
                "{who} seemed to be in a [good|bad|wonderful|terrible] mood.",
                "it had been a long day, and {who} was [weary|calm|satisfied].",
            ],
        },
        "act": {
            1: [(3, "[*3|then ]{who} [sat down|sang a song|smiled|ran|laughed|jumped].")],
            2: [
                "{who} [danced|waved|yawned|whistled a tune|told a joke|took a deep breath|drank some water].",
                "{who} sat down and [read|slept|waited|rested] for a while.",
                "{who} looked at {his} watch.",
                "{who} scratched {his} [head|nose|ear].",
            ],
            3: [
                "{who} [sneezed|sighed|shrugged|coughed|hummed|nodded|shivered|blushed].",
                "{who} [whispered|muttered|shouted] something that nobody understood.",
                "{who} wrote [a few lines|a short note|some numbers] and [crossed|rubbed] them out again.",
                "{who} thought about the [weather|weekend|holidays|future|past] for a moment.",
                "humming a melody, {who} walked up and down.",
                "{who} combed {his} hair and polished {his} glasses.",
            ],
        },
        "inside": {
            1: ["it was [warm|cold]."],
            2: [
                "the room was very quiet.",
                "outside, it began to [rain|snow].",
                "somebody knocked at the door, but nobody was there.",
                "[a cat|a dog|a mouse] ran across the floor.",
            ],
            3: [
                "the wind rattled the shutters.",
                "it smelled of [fresh bread|coffee|smoke|soap|paint|roses].",
                "somewhere [a telephone rang|a machine hummed|music played|a baby cried].",
                "dust danced in the sunlight.",
            ],
        },
        "outside": {
            1: ["it was a warm day.", "the sun was warm.", "a bird sang."],
            2: [
                "the sun was shining.",
                "a [cool|strong] wind blew.",
                "[a cat|a dog|a rabbit|a squirrel] ran past.",
                "the sky was full of clouds.",
            ],
            3: [
                "[butterflies|bees|swallows|pigeons] flew overhead.",
                "thunder rumbled in the distance.",
                "the air smelled of [rain|hay|pine trees|salt|summer].",
                "although it was early, the shadows were already long.",
                "[a fox|a deer|a hedgehog|an owl|a heron] vanished into the mist.",
            ],
        },
        "together": {
            2: ["{doer} and {other} went {to} together.", "[after that, |next, ]{doer} and {other} walked {to}."],
            3: [
                "{doer} and {other} agreed to go {to}.",
                "arm in arm, {doer} and {other} strolled {to}.",
            ],
        },
        "look": {
            2: [
                "{who} looked {spot}, but there was nothing there.",
                "{who} looked for something {spot}, but found nothing.",
            ],
            3: ["{who} searched {spot} without finding anything.", "{who} glanced {spot}, but it was no use."],
        },
        "notice": {
            2: ["{who} saw that {thing_was} {spot}."],
            3: [
                "when {who} checked, {thing_was} still {spot}.",
                "{who} remembered that {thing_was} {spot}.",
            ],
        },
        "still": {2: ["{thing_was} still {spot}."], 3: ["nobody had touched {thing}, so {it_was} still {spot}."]},
        "eat": {
            2: ["{who} was hungry and ate {thing}.", "{who} sat down and ate {thing}."],
            3: ["because {he} had missed breakfast, {who} ate {thing}.", "{who} could not resist and ate {thing}."],
        },
        "request": {
            2: ['"[may|can] I have {the}?" asked {doer}.', '"please give me {the}," said {doer}.'],
            3: ['"would you mind lending me {the}?" asked {doer} politely.'],
        },
        "grant": {
            2: ['"[of course|yes, gladly|here you are]," said {doer}, and gave {thing} to {receiver}.'],
            3: ['"with pleasure," answered {doer}, and handed {thing} to {receiver}.'],
        },
        "refuse": {
            2: ['"no, I need {it}," said {doer}.', '"[not today|not now]," said {doer}.'],
            3: ['"I am afraid I still need {it}," replied {doer}.'],
        },
        "move": {
            3: [
                "{who} took {thing} {from} and [put|placed] {it} {spot}.",
                "{who} thought {thing_was} in the way, so {he} put {it} {spot}.",
            ],
        },
        "find and give": {
            3: [
                "{who} found {new} {spot} and gave {it} to {whom}.",
                "{who} discovered {new} {spot}, which {he} gave to {whom}.",
            ],
        },
        "leave": {
            3: [
                "before {who} went {to}, {he} put {thing} {spot}.",
                "{who} put {thing} {spot} and then set off {to}.",
                "having left {thing} {spot}, {who} went {to}.",
            ],
        },
        "swap": {3: ["{who} gave {whom} {the} and got {swapped} in return."]},
    },
)

_add(
    "line",
    {
        "ask spot": {
            1: ["where {is_the}[| now]?"],
            2: ["where can we find {the}?"],
            3: ["where {is_the}" + _END],
        },
        "ask holder": {
            1: ["who has {the}[| now]?"],
            2: ["who has got {the}?"],
            3: ["who has {the}" + _END],
        },
        "ask room": {
            1: ["where is {name}[| now]?"],
            2: ["where can we find {name}?"],
            3: ["where is {name}" + _END],
        },
        "ask found": {2: ["where did {name} find {the}?"]},
        "ask giver": {2: ["who gave {the} to {name}?"], 3: ["do you remember who gave {the} to {name}?"]},
        "ask eater": {2: ["who ate {the}?"]},
        "ask colour": {2: ["what colour {was_the}?"]},
        "ask before": {3: ["who had {the} before {name}?"]},
    },
)

_add(
    "later",
    {
        "tell spot": {1: ["{it_is} {answer:spot}.", "{the_is} {answer:spot}.", "{answer:spot}."]},
        "tell holder": {1: ["{answer:name} has {it}.", "{answer:name} has {the}.", "{answer:name}."]},
        "tell room": {1: [(2, "{who} is {answer:room}."), "{answer:room}."]},
        "tell found": {2: ["{who} found {it} {answer:spot}.", "{answer:spot}."]},
        "tell giver": {2: ["{answer:name} did.", "{answer:name} gave {it} to {whom}."]},
        "tell eater": {2: ["{answer:name} did.", "{answer:name} ate {it}."]},
        "tell colour": {2: ["{it_was} {answer:colour}."]},
        "tell before": {3: ["{answer:name} did.", "{answer:name} had {it} before."]},
    },
)
