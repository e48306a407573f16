"""How stories open, and say what people do, feel and ask for; and what goes on around them."""

from kancourse.lab.microworld.story_slots import TIMES2, TIMES3, WHEN, WHEN2, WHEN3, Lines

SCENES: Lines = {
    "title room": {2: ["a [day|long day|quiet day] {room}"], 3: ["an [unusual|ordinary] day {room}"]},
    "title thing": {2: ["{name} and the {promised}"], 3: ["the story of the {promised}"]},
    "scene": {
        1: [(3, "[one day, |one morning, |]{name} was {room}.")],
        2: [
            TIMES2 + "{name} was {room}.",
            "it was a [quiet|busy|rainy|windy|cold] [day|morning|afternoon], and {name} was {room}.",
            "{name} was alone {room}.",
        ],
        3: [
            TIMES3 + "{name} was [working|resting|waiting] {room}.",
            "{name} had spent the whole [morning|afternoon|day] {room}.",
            "it was [Saturday|Sunday], and {name} was {room} because there was nothing else to do.",
        ],
    },
    "scene two": {
        1: [(5, "[one day, |one morning, |]{name} and {other:name} were {room}.")],
        2: [
            TIMES2 + "{name} and {other:name} were {room}.",
            "{name} was {room}, and {other:name} was there too.",
            "{name} was waiting for {other:name} {room}, and soon {other:name} came.",
        ],
        3: [
            TIMES3 + "{name} and {other:name} were [talking|working|resting] {room}.",
            "{name} was {room} with an old friend, whose name was {other:name}.",
            "while {name} was [reading|writing a letter|preparing lunch] {room}, {other:name} was sitting nearby.",
        ],
    },
}

PEOPLE: Lines = {
    "come": {
        1: [(2, "[*2|then |later ]{name} came {to}."), "then {name} came too."],
        2: ["[soon |a little later, ]{name} arrived.", "after that, {name} came {to} to see what was going on."],
        3: [
            "before long, {name} arrived as well.",
            "{name}, who had been looking for company, appeared {room}.",
            "a moment later, {name} walked in without a word.",
        ],
    },
    "go": {
        1: [(4, WHEN + "{who} went {to}."), (2, "{who} walked {to}.")],
        2: [
            "{who} [ran|hurried] {to}.",
            WHEN2 + "{who} went {to}.",
            "{who} left {home} and went {to}.",
            "{who} waved and walked {to}.",
        ],
        3: [
            "{who} decided to go {to}, where {he} had work to do.",
            "because {he} had promised to be there, {who} hurried {to}.",
            WHEN3 + "{who} wandered {to}.",
            "{who} said goodbye and travelled {to}.",
            "although {he} would have liked to stay, {who} set out {to}.",
        ],
    },
    "carry": {
        1: [(4, WHEN + "{who} took {thing} {to}.")],
        2: ["{who} carried {thing} {to}.", WHEN2 + "{who} went {to} with {the}."],
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
}
