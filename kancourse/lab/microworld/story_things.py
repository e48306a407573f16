"""How stories say what happens to things: they turn up, are put, taken, given, looked for, eaten."""

from kancourse.lab.microworld.story_slots import WHEN, WHEN2, WHEN3, Lines

THINGS: Lines = {
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
        2: [WHEN2 + "{who} found {new} {spot}.", "{who} was [glad|surprised] to find {new} {spot}."],
        3: [
            "to {his} surprise, {who} found {new} {spot}.",
            "while {who} was tidying up, {he} discovered {new} {spot}.",
            "{doer}, who was always curious, found {new} {spot}.",
        ],
    },
    "put": {
        1: [(4, WHEN + "{who} put {thing} {spot}.")],
        2: [
            "{who} [carefully|quickly|quietly] put {thing} {spot}.",
            WHEN2 + "{who} [left|hid|placed] {thing} {spot}.",
            "{who} put {thing} {spot} and [smiled|sat down|took a rest].",
        ],
        3: [
            "{who} [gently|proudly|secretly|slowly] [laid|placed|set down] {thing} {spot}.",
            "so that nobody would lose {it}, {who} put {thing} {spot}.",
            "because {he} needed both hands, {who} left {thing} {spot}.",
            WHEN3 + "{who} decided to leave {thing} {spot}.",
        ],
    },
    "take": {
        1: [(3, WHEN + "{who} took {thing} {from}."), "{who} picked {thing} up."],
        2: [WHEN2 + "{who} took {thing} {from}.", "{who} went over and took {thing} {from}."],
        3: [
            "{who} reached out and took {thing} {from}.",
            "as nobody was watching, {who} took {thing} {from}.",
            WHEN3 + "{who} removed {thing} {from}.",
        ],
    },
    "give": {
        1: [(5, WHEN + "{who} gave {thing} to {whom}."), (2, "{who} gave {whom} {the}.")],
        2: [
            "{who} handed {thing} to {whom}.",
            WHEN2 + "{who} gave {thing} to {whom}.",
            '"[this is for you|here you are]," said {doer}, and gave {thing} to {whom}.',
        ],
        3: [
            "{who} [generously|gladly|reluctantly] gave {thing} to {whom}.",
            "because {who} no longer needed {it}, {he} passed {thing} to {receiver}.",
            '"please [take care of|look after] {the}," said {doer}, and handed {it} to {whom}.',
            WHEN3 + "{who} presented {whom} with {the}.",
            "{thing_was} given to {receiver} by {doer}.",
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
}
