"""The words of microworld: people, places, spots, things and adjectives, by the level which brings them.

- Within a level the common words come first: weights fall with rank (`zipf`), as in any language.
- Level 1's words keep the first ranks at levels 2 and 3.
"""

from collections.abc import Sequence
from typing import TypeVar

from kancourse.lab.microworld.engine import Table
from kancourse.lab.microworld.phrases import LEVELS, article

T = TypeVar("T")


def zipf(count: int) -> list[int]:
    """Whole-number weights that fall with rank, like 1 / (rank + 3)."""
    return [max(1, 900 // (rank + 3)) for rank in range(count)]


def up_to(by_level: dict[int, Sequence[T]], level: int) -> list[T]:
    """Everything a level knows: the entries of the levels below, then its own."""
    return [entry for known in LEVELS if known <= level for entry in by_level.get(known, ())]


def tables(by_level: dict[int, Sequence[T]]) -> dict[int, Table]:
    """One Zipf-weighted table per level."""
    return {level: Table(up_to(by_level, level), zipf(len(up_to(by_level, level)))) for level in LEVELS}


def _split(by_level: dict[int, str], separator: str | None = None) -> dict[int, list[str]]:
    return {level: [entry.strip() for entry in text.split(separator)] for level, text in by_level.items()}


BOYS = _split({1: "Tom Ben Sam Max Leo"})
GIRLS = _split({1: "Mia Anna Lily Sue Eva"})
PEOPLE = {level: [name for pair in zip(BOYS[level], GIRLS[level], strict=True) for name in pair] for level in BOYS}
GENDER = {name: "he" for names in BOYS.values() for name in names} | {
    name: "she" for names in GIRLS.values() for name in names
}

# A room is written as one says where somebody is. "o" marks the rooms under the open sky.
_ROOMS = _split({1: "in the kitchen, o in the garden, o in the park, in the barn, in the shop, at school"}, ",")
OUTDOOR = {room.removeprefix("o ") for rooms in _ROOMS.values() for room in rooms if room.startswith("o ")}
ROOMS = {level: [room.removeprefix("o ") for room in rooms] for level, rooms in _ROOMS.items()}


def to_room(room: str) -> str:
    """`in the kitchen` -> `to the kitchen`."""
    return "to " + room.partition(" ")[2]


# Where a thing can lie: "i" indoors only, "o" outdoors only, else anywhere.
_SPOTS = _split({1: "i on the table, in the box, o under the tree, in the bag, i on the chair, o on the bench"}, ",")
SPOTS = {level: [spot.removeprefix("i ").removeprefix("o ") for spot in spots] for level, spots in _SPOTS.items()}
SPOTS_AT = {
    outdoors: tables(
        {
            level: [spot.removeprefix("i ").removeprefix("o ") for spot in spots if not spot.startswith(other)]
            for level, spots in _SPOTS.items()
        }
    )
    for outdoors, other in ((True, "i "), (False, "o "))
}
_FROM = {"in": "out of", "on": "from", "under": "from under", "behind": "from behind", "beside": "from beside"}


def from_spot(spot: str) -> str:
    """`in the box` -> `out of the box`."""
    preposition, _, rest = spot.partition(" ")
    return f"{_FROM[preposition]} {rest}"


THINGS = _split({1: "ball book cup apple hat key doll cake pen egg"})
ADJECTIVES = _split({1: "red big blue small old green new"})


def indefinite(thing: str, adjective: str | None = None) -> str:
    """`a red ball`, `an apple`."""
    phrase = f"{adjective} {thing}" if adjective else thing
    return f"{article(phrase)} {phrase}"


PEOPLE_TABLE, ROOM_TABLE, THING_TABLE, ADJECTIVE_TABLE = map(tables, (PEOPLE, ROOMS, THINGS, ADJECTIVES))

ITEMS = _split({1: "apple egg ball book cup pen"})  # what can be counted
FOOD = {"apple", "egg", "cake"}


def plural(noun: str) -> str:
    """`box` -> `boxes`, `berry` -> `berries`, `loaf` -> `loaves`."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


_PLURALS = {"loaf": "loaves", "knife": "knives", "leaf": "leaves", "fish": "fish", "sheep": "sheep"}
ITEM_TABLE = tables(ITEMS)
