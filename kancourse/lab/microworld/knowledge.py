"""What is true in microworld: relations with one right object per subject, and how each is said, asked and told.

- A *world* relation holds in every document (grass is green), so a model can learn it by heart.
- A *given* relation is made up in each document (Tom likes tea), so it must be read there.
Subjects and objects are written as they stand in a sentence. The world facts themselves are in `worldfacts`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kancourse.lab.microworld.lexicon import listed
from kancourse.lab.microworld.worldfacts import WORLD

Lines = Mapping[int, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One relation. World relations have `facts` (subject -> object) by level, given ones `objects` by level.

    In the phrases, `{s}` is the subject, `{o}` the object and `{answer}` the object asked for; given relations write
    `{name}` (statement, question) and `{who}` (answer: name or pronoun) for the subject.
    """

    name: str
    facts: Mapping[int, Mapping[str, str]] | None = None
    objects: Mapping[int, Sequence[str]] | None = None
    say: Lines
    ask: Lines
    tell: Lines


def _world(name: str, *, say: Lines, ask: Lines, tell: Lines) -> Relation:
    return Relation(name=name, facts=WORLD[name], say=say, ask=ask, tell=tell)


def _given(name: str, objects: dict[int, str], *, say: Lines, ask: Lines, tell: Lines) -> Relation:
    return Relation(name=name, objects=listed(objects, ","), say=say, ask=ask, tell=tell)


RELATIONS = (
    _world(
        "colour",
        say={1: ["{s} is {o}."], 3: ["everybody knows that {s} is {o}."]},
        ask={1: ["what colour is {s}?"]},
        tell={1: ["{s} is {answer}.", "it is {answer}."]},
    ),
    _world(
        "legs",
        say={1: ["{s} has {o} legs."], 3: ["like all of its kind, {s} has {o} legs."]},
        ask={1: ["how many legs does {s} have?"]},
        tell={1: ["{s} has {answer} legs.", "it has {answer} legs."]},
    ),
    _world(
        "kind",
        say={1: ["{s} is {o}."], 3: ["as the dictionary says, {s} is {o}."]},
        ask={1: ["what is {s}?"]},
        tell={1: ["{s} is {answer}.", "it is {answer}."]},
    ),
    _world(
        "food",
        say={1: ["{s} eats {o}."], 3: ["when it is hungry, {s} eats {o}."]},
        ask={1: ["what does {s} eat?"]},
        tell={1: ["{s} eats {answer}.", "it eats {answer}."]},
    ),
    _given(
        "likes",
        {
            1: "milk, tea, fish, corn, cake, eggs",
            2: "music, bread, cheese, football, rain, honey, soup, chess",
            3: "chocolate, painting, poetry, spinach, swimming, tennis, history, gardening, coffee, cycling",
        },
        say={1: ["{name} likes {o}."], 3: ["if you ask {name}, nothing is better than {o}."]},
        ask={1: ["what does {name} like?"]},
        tell={1: ["{who} likes {answer}."]},
    ),
    _given(
        "pet",
        {
            1: "a dog, a cat, a bird, a fish, a hen, a cow",
            2: "a horse, a rabbit, a duck, a mouse, a sheep",
            3: "a parrot, a turtle, a hamster, a donkey, a goat, a lizard, a pony, a goose",
        },
        say={1: ["{name} has {o}."], 3: ["{name}, who loves animals, has {o}."]},
        ask={1: ["what does {name} have?"]},
        tell={1: ["{who} has {answer}."]},
    ),
    _world(
        "sound",
        say={2: ["{s} {o}."], 3: ["if you listen, {s} {o}."]},
        ask={2: ["what sound does {s} make?"]},
        tell={2: ["{s} {answer}.", "it {answer}."]},
    ),
    _world(
        "home",
        say={2: ["{s} lives {o}."], 3: ["you will find that {s} lives {o}."]},
        ask={2: ["where does {s} live?"]},
        tell={2: ["{s} lives {answer}.", "it lives {answer}."]},
    ),
    _world(
        "opposite",
        say={2: ["the opposite of {s} is {o}."], 3: ["people say that {s} and {o} are opposites."]},
        ask={2: ["what is the opposite of {s}?"]},
        tell={2: ["the opposite of {s} is {answer}.", "it is {answer}."]},
    ),
    _world(
        "day",
        say={2: ["{o} comes after {s}."], 3: ["as a rule, {s} is followed by {o}."]},
        ask={2: ["which day comes after {s}?"]},
        tell={2: ["{answer} comes after {s}.", "it is {answer}."]},
    ),
    _world(
        "young",
        say={2: ["a young {s} is called {o}."], 3: ["until it has grown up, a {s} is called {o}."]},
        ask={2: ["what is a young {s} called?"]},
        tell={2: ["a young {s} is called {answer}.", "it is called {answer}."]},
    ),
    _world(
        "job",
        say={2: ["{s} {o}."], 3: ["every working day, {s} {o}."]},
        ask={2: ["what does {s} do?"]},
        tell={2: ["{s} {answer}."]},
    ),
    _world(
        "made of",
        say={2: ["{s} is made from {o}."], 3: ["long ago people learned that {s} is made from {o}."]},
        ask={2: ["what is {s} made from?"]},
        tell={2: ["{s} is made from {answer}.", "it is made from {answer}."]},
    ),
    _world(
        "use",
        say={2: ["we use {s} to {o}."], 3: ["without {s} it would be hard to {o}."]},
        ask={2: ["what do we use {s} for?"]},
        tell={2: ["we use {s} to {answer}.", "we use it to {answer}."]},
    ),
    _given(
        "favourite",
        {2: "red, blue, green, yellow, white, black, brown", 3: "purple, pink, orange, grey, silver, golden"},
        say={
            2: ["the colour that {name} likes best is {o}."],
            3: ["the favourite colour of {name} has always been {o}."],
        },
        ask={2: ["which colour does {name} like best?"]},
        tell={2: ["{who} likes {answer} best."]},
    ),
    _given(
        "work",
        {
            2: "a baker, a farmer, a teacher, a doctor, a cook, a painter, a driver",
            3: "a lawyer, an engineer, a pilot, a nurse, a carpenter, a dentist, a journalist, a librarian, a musician",
        },
        say={2: ["{name} is {o}."], 3: ["after years of training, {name} became {o}."]},
        ask={2: ["what is the job of {name}?"]},
        tell={2: ["{who} is {answer}."]},
    ),
    _given(
        "lives",
        {
            2: "in the old town, on a farm, by the sea, near the forest, in a small house, in a big house",
            3: "in a tall tower, on a quiet street, above the bakery, behind the station, in a wooden cabin",
        },
        say={2: ["{name} lives {o}."], 3: ["since last spring {name} has lived {o}."]},
        ask={2: ["where does {name} live?"]},
        tell={2: ["{who} lives {answer}."]},
    ),
    _given(
        "travels",
        {2: "by bus, by train, by bike, on foot, by car", 3: "by boat, by tram, by taxi, on horseback, by aeroplane"},
        say={2: ["{name} goes to work {o}."], 3: ["whenever the weather is fine, {name} goes to work {o}."]},
        ask={2: ["how does {name} go to work?"]},
        tell={2: ["{who} goes to work {answer}."]},
    ),
    _world(
        "capital",
        say={3: ["the capital of {s} is {o}.", "the government of {s} sits in {o}."]},
        ask={3: ["what is the capital of {s}?", "which city is the capital of {s}?"]},
        tell={3: ["the capital of {s} is {answer}.", "it is {answer}."]},
    ),
    _world(
        "continent",
        say={3: ["on the map, {s} lies in {o}.", "the country of {s} belongs to {o}."]},
        ask={3: ["on which continent does {s} lie?"]},
        tell={3: ["{s} lies in {answer}.", "it lies in {answer}."]},
    ),
    _world(
        "language",
        say={3: ["most people in {s} speak {o}.", "the language of {s} is {o}."]},
        ask={3: ["which language do most people in {s} speak?"]},
        tell={3: ["they speak {answer}.", "most people in {s} speak {answer}."]},
    ),
    _world(
        "month",
        say={3: ["in every calendar, {s} is followed by {o}.", "the month after {s} is {o}."]},
        ask={3: ["which month comes after {s}?"]},
        tell={3: ["the month after {s} is {answer}.", "it is {answer}."]},
    ),
    _world(
        "group",
        say={3: ["a group of {s} is called {o}.", "when {s} come together, they form {o}."]},
        ask={3: ["what is a group of {s} called?"]},
        tell={3: ["a group of {s} is called {answer}.", "it is called {answer}."]},
    ),
    _world(
        "science",
        say={3: ["{s} studies {o}.", "{s} is a scientist who knows a lot about {o}."]},
        ask={3: ["what does {s} study?"]},
        tell={3: ["{s} studies {answer}."]},
    ),
    _world(
        "instrument",
        say={3: ["{s} plays {o}.", "what {s} plays is {o}."]},
        ask={3: ["which instrument does {s} play?"]},
        tell={3: ["{s} plays {answer}."]},
    ),
    _world(
        "inventor",
        say={3: ["{s} was invented by {o}.", "it was {o} who invented {s}."]},
        ask={3: ["who invented {s}?"]},
        tell={3: ["{answer} invented it.", "it was {answer}."]},
    ),
    _world(
        "number",
        say={3: ["there are {o} {s}.", "if you count them, there are {o} {s}."]},
        ask={3: ["how many {s} are there?"]},
        tell={3: ["there are {answer} {s}.", "there are {answer}."]},
    ),
    _given(
        "birthday",
        {3: "January, February, March, April, May, June, July, August, September, October, November, December"},
        say={3: ["{name} was born in {o}.", "the birthday of {name} is in {o}."]},
        ask={3: ["in which month was {name} born?"]},
        tell={3: ["{who} was born in {answer}."]},
    ),
    _given(
        "collects",
        {3: "stamps, coins, shells, postcards, butterflies, fossils, autographs, magazines, buttons, crystals"},
        say={3: ["{name} collects {o}.", "on Sundays {name} looks for {o} at the market."]},
        ask={3: ["what does {name} collect?"]},
        tell={3: ["{who} collects {answer}."]},
    ),
    _given(
        "learns",
        {3: "French, Spanish, German, Italian, Japanese, Arabic, Russian, Greek, Polish, Turkish"},
        say={3: ["{name} is learning {o}.", "twice a week {name} goes to a class to learn {o}."]},
        ask={3: ["which language is {name} learning?"]},
        tell={3: ["{who} is learning {answer}."]},
    ),
)
