"""The words of microworld: people, places, spots, things and adjectives, by the level which brings them.

- Within a level the common words come first: weights fall with rank (`zipf`), as in any language.
- Level 1's words keep the first ranks at levels 2 and 3.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from kancourse.lab.microworld.engine import Table
from kancourse.lab.microworld.slots import LEVELS, article

T = TypeVar("T")


def zipf(count: int) -> list[int]:
    """Whole-number weights that fall with rank, like 1 / (rank + 3)."""
    return [3000 // (rank + 3) for rank in range(count)]


def up_to(by_level: Mapping[int, Sequence[T]], level: int) -> list[T]:
    """Everything a level knows: the entries of the levels below, then its own."""
    return [entry for known in LEVELS if known <= level for entry in by_level.get(known, ())]


def tables(by_level: Mapping[int, Sequence[T]]) -> dict[int, Table]:
    """One Zipf-weighted table per level (none where a level knows nothing yet)."""
    known = {level: up_to(by_level, level) for level in LEVELS}
    return {level: Table(entries, zipf(len(entries))) for level, entries in known.items() if entries}


def listed(by_level: Mapping[int, str], separator: str | None = None) -> dict[int, list[str]]:
    """Each level's entries, written as one string (separated by blanks, or by `separator`)."""
    return {level: [" ".join(entry.split()) for entry in text.split(separator)] for level, text in by_level.items()}


BOYS = listed(
    {
        1: "Tom Ben Sam Max Leo",
        2: "Jack Peter Adam Noah Finn Oscar Paul",
        3: "Henry Arthur Felix Hugo Victor Martin Simon Walter Oliver Jonas Ivan Omar Ravi Edgar",
    }
)
GIRLS = listed(
    {
        1: "Mia Anna Lily Sue Eva",
        2: "Emma Clara Rosa Nora Ruth Alice Zoe",
        3: "Sophie Julia Helen Laura Maria Olivia Amelia Hannah Edith Flora Ingrid Leila Priya Irene",
    }
)
PEOPLE = {level: [name for pair in zip(BOYS[level], GIRLS[level], strict=True) for name in pair] for level in LEVELS}
GENDER = {name: "he" for names in BOYS.values() for name in names} | {
    name: "she" for names in GIRLS.values() for name in names
}

# A room is written as one says where somebody is; "o" marks those under the open sky.
_ROOMS = listed(
    {
        1: "in the kitchen, o in the garden, o in the park, in the barn, in the shop, at school",
        2: """in the bedroom, o on the beach, in the library, in the attic, o at the market, in the hall, o in the
        forest, in the garage, o by the lake, in the cellar, o on the farm, in the office, o on the
        playground, at the station""",
        3: """in the museum, o by the river, in the workshop, o in the orchard, in the castle, o in the meadow, in
        the bakery, o in the harbour, in the tower, in the theatre, o on the hill, in the
        greenhouse, o in the valley, in the lighthouse, at the hospital, o in the courtyard, in the
        laboratory, o on the island, in the stable, in the hotel, o at the campsite, in the gallery,
        in the studio, o in the village, in the cottage, in the church""",
    },
    ",",
)
OUTDOOR = {room.removeprefix("o ") for rooms in _ROOMS.values() for room in rooms if room.startswith("o ")}
ROOMS = {level: [room.removeprefix("o ") for room in rooms] for level, rooms in _ROOMS.items()}


def room_name(room: str) -> str:
    """`in the kitchen` -> `the kitchen`."""
    return room.partition(" ")[2]


def to_room(room: str) -> str:
    """`in the kitchen` -> `to the kitchen`."""
    return "to " + room_name(room)


# Where a thing can lie: "i" indoors only, "o" outdoors only, else anywhere; some spots are only in some rooms.
_SPOTS = listed(
    {
        1: "i on the table, in the box, o under the tree, in the bag, i on the chair, o on the bench",
        2: """in the basket, i on the shelf, o behind the bush, under the bed, o on the grass, i in the drawer, i beside
        the door, o beside the gate, i in the cupboard, on the wall, on the sofa, under the bridge, i behind the
        curtain, o on the rock""",
        3: """i on the desk, in the bucket, o behind the fence, in the wardrobe, in the suitcase, o in the cart, i under
        the carpet, beside the well, i on the windowsill, in the trunk, in the boat, beside the stove, behind the
        statue, o under the hedge, i in the corner, in the barrel, o on the steps, i under the stool, behind the ladder,
        o in the tent, in the crate, beside the fountain, on the counter, in the backpack""",
    },
    ",",
)
SPOTS = {level: [spot.removeprefix("i ").removeprefix("o ") for spot in spots] for level, spots in _SPOTS.items()}
_ONLY_IN = {
    "under the bed": "bedroom attic hospital hotel cottage",
    "on the sofa": "library attic hall office hotel studio cottage theatre",
    "in the wardrobe": "bedroom attic hall castle theatre hotel cottage",
    "beside the stove": "kitchen cellar workshop bakery cottage",
    "on the counter": "kitchen shop bakery hotel station museum",
    "under the bridge": "park river valley village",
    "in the boat": "beach lake river harbour island",
    "beside the well": "garden farm castle courtyard village orchard",
    "beside the fountain": "garden park market courtyard village",
    "behind the statue": "garden park library museum castle theatre gallery church courtyard",
    "on the wall": "garden farm castle harbour courtyard village orchard school",
}


def _spots_of(room: str, level: int) -> list[str]:
    outdoors, name = room in OUTDOOR, room.split()[-1]
    return [
        spot.removeprefix("i ").removeprefix("o ")
        for spot in _SPOTS.get(level, ())
        if not spot.startswith("i " if outdoors else "o ") and (spot not in _ONLY_IN or name in _ONLY_IN[spot].split())
    ]


SPOTS_AT = {
    room: tables({level: _spots_of(room, level) for level in LEVELS}) for rooms in ROOMS.values() for room in rooms
}
_FROM = {"in": "out of", "on": "from", "under": "from under", "behind": "from behind", "beside": "from beside"}


def from_spot(spot: str) -> str:
    """`in the box` -> `out of the box`."""
    preposition, _, rest = spot.partition(" ")
    return f"{_FROM[preposition]} {rest}"


# Things that a person can carry, put somewhere and give away; "s" marks those that come in the plural.
_THINGS = listed(
    {
        1: "ball, book, cup, apple, hat, key, doll, cake, pen, egg",
        2: """coat, lamp, map, s shoes, letter, kite, sandwich, drum, orange, s gloves, spoon, pear, umbrella,
        toy, phone, blanket, coin, s flowers, bottle, cookie, rope, clock, brush, pencil, plate, s
        glasses, carrot, scarf, ring, stone, shell, newspaper, s socks, whistle, bell, banana,
        ticket, candle, towel, pillow""",
        3: """lantern, violin, camera, photograph, s scissors, hammer, notebook, telescope, compass, guitar,
        necklace, muffin, s boots, envelope, puzzle, trumpet, magnet, parcel, feather, s binoculars,
        medal, helmet, dictionary, flute, kettle, s grapes, mirror, painting, radio, bracelet, s
        mittens, recipe, pancake, teapot, needle, passport, microscope, diary, s marbles, peach,
        saucer, ribbon, torch, calendar, shovel, s slippers, wallet, crayon, calculator, crown,
        pumpkin, s cherries, melon, tomato, thermometer, battery, s sandals, paintbrush, vase, jug,
        anchor, accordion, s pyjamas, costume, sponge, screwdriver, s seeds, pocketknife,
        chessboard, stamp, mask, hourglass, s almonds, poster, keyboard, harp, sculpture, s nails,
        broom""",
    },
    ",",
)
PLURAL_THINGS = {thing.removeprefix("s ") for things in _THINGS.values() for thing in things if thing.startswith("s ")}
THINGS = {level: [thing.removeprefix("s ") for thing in things] for level, things in _THINGS.items()}
EDIBLE = {
    *("apple", "cake", "egg", "sandwich", "orange", "pear", "cookie", "carrot", "banana"),
    *("muffin", "grapes", "pancake", "peach", "cherries", "melon", "tomato", "almonds"),
}
COLOURS = listed({1: "red blue green", 2: "yellow white black brown", 3: "orange purple pink grey golden silver"})
ADJECTIVES = listed(
    {
        1: "red big blue small old green new",
        2: """little yellow white beautiful black heavy brown strange shiny round clean dirty funny broken wet
        soft expensive lovely warm""",
        3: """tiny wooden purple enormous ancient pink elegant dusty grey ordinary golden precious silver rusty
        unusual colourful orange valuable plain antique cheap striped huge fragile familiar peculiar
        splendid modern delicate mysterious polished crooked foreign damp favourite forgotten
        magnificent ugly magic famous""",
    }
)


_UNFIT = {
    "food": """
    blue old new black white brown strange shiny clean dirty funny broken wet wooden purple ancient pink elegant dusty
    grey ordinary golden precious silver rusty colourful valuable plain antique striped familiar modern delicate
    polished crooked foreign damp forgotten magic famous heavy fragile ugly orange""",
    "cloth": "round broken wooden ancient rusty precious fragile delicate polished crooked heavy tiny",
    "paper": "round soft warm broken wooden heavy shiny rusty polished crooked striped wet huge enormous delicate",
}
CLOTH = {
    *("hat", "coat", "shoes", "gloves", "blanket", "scarf", "socks", "towel", "pillow", "boots", "mittens", "ribbon"),
    *("slippers", "sandals", "pyjamas", "costume", "wallet"),
}
PAPER = {
    *("book", "map", "letter", "newspaper", "ticket", "photograph", "notebook", "envelope", "dictionary", "recipe"),
    *("passport", "diary", "calendar", "stamp", "poster", "painting"),
}


def unfit(thing: str) -> Collection[str]:
    """Adjectives that do not go with a thing."""
    return _UNFIT_SETS["food" if thing in EDIBLE else "cloth" if thing in CLOTH else "paper" if thing in PAPER else ""]


_UNFIT_SETS = {sort: frozenset(text.split()) for sort, text in _UNFIT.items()} | {"": frozenset()}


def indefinite(thing: str, adjective: str | None = None) -> str:
    """`a red ball`, `an apple`, `some old shoes`."""
    phrase = f"{adjective} {thing}" if adjective else thing
    return f"{'some' if thing in PLURAL_THINGS else article(phrase)} {phrase}"


PEOPLE_TABLE, ROOM_TABLE, THING_TABLE, ADJECTIVE_TABLE = map(tables, (PEOPLE, ROOMS, THINGS, ADJECTIVES))

# What sums count.
ITEMS = listed(
    {
        1: "apple egg ball book cup pen",
        2: "coin cookie shell stamp flower marble pencil orange stone ticket card",
        3: """peach muffin sticker button cherry postcard badge berry balloon bead candle photograph pancake
        feather crayon brick lemon magazine nut potato""",
    }
)
FOOD = {"apple", "egg", "cookie", "orange", "peach", "muffin", "cherry", "berry", "pancake", "nut", "lemon"}
CONTAINERS = listed({2: "box bag basket", 3: "crate jar tray drawer bucket shelf"})
_PLURALS = {"loaf": "loaves", "knife": "knives", "leaf": "leaves", "shelf": "shelves", "potato": "potatoes"}


def plural(noun: str) -> str:
    """`box` -> `boxes`, `berry` -> `berries`, `shelf` -> `shelves`."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


ITEM_TABLE = tables(ITEMS)
