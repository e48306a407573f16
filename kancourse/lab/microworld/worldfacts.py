"""The world facts of microworld, by relation and level: subject and object as they stand in a sentence.

They are true of our world too, as far as a sentence can be. Every subject of a relation has one object.
"""


def pairs(text: str) -> dict[str, str]:
    """`grass: green, snow: white` as a dict."""
    return dict(" ".join(entry.split()).split(": ") for entry in text.split(","))


WORLD: dict[str, dict[int, dict[str, str]]] = {
    "colour": {
        1: pairs("grass: green, the sky: blue, snow: white, the sun: yellow, milk: white, a leaf: green"),
        2: pairs(
            "coal: black, a banana: yellow, chocolate: brown, blood: red, a frog: green, night: black, salt: white"
        ),
        3: pairs("""
            a lemon: yellow, a carrot: orange, a flamingo: pink, an elephant: grey, a strawberry: red, a cucumber:
            green, an aubergine: purple, ivory: white, a raven: black, lavender: purple, a polar bear: white, a
            ruby: red, an emerald: green, a sapphire: blue"""),
    },
    "legs": {
        1: pairs("a dog: four, a cat: four, a bird: two, a cow: four, a hen: two, a fish: no"),
        2: pairs("a horse: four, a spider: eight, a bee: six, a snake: no, a duck: two, a sheep: four, a frog: four"),
        3: pairs("""
            an ant: six, an octopus: no, a lion: four, a beetle: six, a crab: ten, a worm: no, an elephant: four, an
            ostrich: two, a mosquito: six, a scorpion: eight, a lizard: four, a dolphin: no"""),
    },
    "kind": {
        1: pairs("""
            a dog: an animal, a cat: an animal, a cow: an animal, an apple: a fruit, a pear: a fruit, red: a colour,
            blue: a colour"""),
        2: pairs("""
            a horse: an animal, a rose: a flower, a banana: a fruit, green: a colour, a carrot: a vegetable,
            a hammer: a tool, an oak: a tree, winter: a season, Monday: a day, a car: a machine,
            an onion: a vegetable"""),
        3: pairs("""
            a violin: an instrument, gold: a metal, iron: a metal, a tulip: a flower, a birch: a tree, an eagle: a
            bird, a salmon: a fish, a beetle: an insect, a wasp: an insect, a cobra: a snake, autumn: a season,
            Mars: a planet, Venus: a planet, Saturn: a planet, a ruby: a gem, a diamond: a gem, oxygen: a gas,
            nitrogen: a gas, a cabbage: a vegetable, a pineapple: a fruit, a sofa: a piece of furniture, cotton: a
            fabric, silk: a fabric, tennis: a sport, football: a sport, chess: a game, Spanish: a language, a
            screwdriver: a tool, a pine: a tree, a daisy: a flower, a swallow: a bird, a whale: a mammal, a bat: a
            mammal, a tortoise: a reptile, a crocodile: a reptile, a triangle: a shape, a square: a shape"""),
    },
    "food": {
        1: pairs("a cow: grass, a cat: fish, a hen: corn"),
        2: pairs("a rabbit: carrots, a mouse: cheese, a bear: honey, a frog: flies, a horse: hay, a bird: seeds"),
        3: pairs("""
            a panda: bamboo, a koala: leaves, an anteater: ants, a squirrel: nuts, a monkey: bananas, a penguin:
            fish, a hedgehog: worms, a giraffe: leaves, a wolf: meat, a caterpillar: leaves, a shark: fish, a lion:
            meat, a sheep: grass, a goat: grass, a bat: insects, a swallow: insects"""),
    },
    "sound": {
        2: pairs(
            "a dog: barks, a cat: meows, a duck: quacks, a lion: roars, a bee: buzzes, a bird: sings, a snake: hisses"
        ),
        3: pairs("""
            an owl: hoots, a wolf: howls, a frog: croaks, a pig: grunts, a donkey: brays, a sheep: bleats, a horse:
            neighs, a pigeon: coos, a cricket: chirps, a mouse: squeaks, a rooster: crows, an elephant: trumpets, a
            cat at rest: purrs, a clock: ticks, thunder: rumbles, a siren: wails"""),
    },
    "home": {
        2: pairs("""
            a fish: in the water, a bird: in a nest, a bear: in the forest, a camel: in the desert, a cow: on a
            farm, a lion: on the savanna, a bee: in a hive, a mouse: in a hole"""),
        3: pairs("""
            a whale: in the ocean, a monkey: in the jungle, a penguin: on the ice, a spider: in a web, a fox: in a
            den, a rabbit: in a burrow, a horse: in a stable, a polar bear: in the Arctic, a dolphin: in the sea, a
            frog: in a pond, an eagle: in the mountains, a squirrel: in a tree, a worm: in the ground, a kangaroo:
            in Australia, a tiger: in Asia, a giraffe: in Africa, a beaver: in a lodge"""),
    },
    "opposite": {
        2: pairs("""
            hot: cold, big: small, old: young, wet: dry, fast: slow, up: down, day: night, left: right, good: bad,
            happy: sad, open: closed, full: empty, black: white, hard: soft, long: short, heavy: light"""),
        3: pairs("""
            early: late, rich: poor, loud: quiet, strong: weak, thick: thin, deep: shallow, bright: dim, sharp:
            blunt, brave: cowardly, generous: greedy, ancient: modern, cheap: expensive, simple: complicated,
            guilty: innocent, north: south, east: west, victory: defeat, war: peace, entrance: exit, question:
            answer, success: failure, beginning: end, arrival: departure, above: below, inside: outside, always:
            never, smooth: rough, tight: loose, wild: tame, polite: rude, lazy: hardworking, narrow: wide, sweet:
            bitter, visible: invisible, true: false, health: illness, wealth: poverty, wisdom: foolishness,
            temporary: permanent, tiny: huge, ugly: beautiful"""),
    },
    "day": {
        2: pairs("""
            Monday: Tuesday, Tuesday: Wednesday, Wednesday: Thursday, Thursday: Friday, Friday: Saturday, Saturday:
            Sunday, Sunday: Monday"""),
    },
    "young": {
        2: pairs("dog: a puppy, cat: a kitten, cow: a calf, hen: a chick, sheep: a lamb, duck: a duckling"),
        3: pairs("""
            horse: a foal, lion: a cub, pig: a piglet, goose: a gosling, frog: a tadpole, goat: a kid, deer: a fawn,
            swan: a cygnet, butterfly: a caterpillar, kangaroo: a joey, whale: a calf, tiger: a cub, seal: a pup"""),
    },
    "job": {
        2: pairs("""
            a baker: makes bread, a teacher: helps children to learn, a doctor: helps sick people, a farmer: grows
            food, a cook: makes dinner, a painter: paints pictures, a driver: drives a bus"""),
        3: pairs("""
            a pilot: flies aeroplanes, a sailor: sails ships, a tailor: sews clothes, a plumber: repairs pipes, a
            carpenter: builds furniture, a dentist: looks after teeth, a gardener: takes care of plants, a butcher:
            sells meat, a firefighter: puts out fires, a judge: decides cases, a librarian: lends books, a
            journalist: writes for a newspaper, an architect: designs buildings, a miner: digs for coal, a nurse:
            looks after patients, a barber: cuts hair, a shepherd: watches sheep, an actor: performs on stage, a
            mechanic: fixes engines, a translator: turns one language into another, a locksmith: opens locks, a
            detective: solves crimes, a lawyer: gives advice about the law, a poet: writes poems, a conductor: leads
            an orchestra, a programmer: writes software, a jeweller: sells rings, a grocer: sells vegetables, a
            postman: delivers letters, a cashier: counts money, a waiter: serves meals, a blacksmith: shapes hot
            iron"""),
    },
    "made of": {
        2: pairs("bread: flour, paper: wood, cheese: milk, a window: glass, wine: grapes, butter: milk, ice: water"),
        3: pairs("""
            a candle: wax, a brick: clay, a tyre: rubber, chocolate: cocoa, glass: sand, steel: iron, leather: skin,
            wool yarn: fleece, honey: nectar, an omelette: eggs, a coin: metal, a statue: stone, jam: fruit and
            sugar, petrol: oil, porridge: oats, linen: flax, ketchup: tomatoes, a rope: fibres, concrete: cement and
            gravel"""),
    },
    "use": {
        2: pairs("""
            a knife: cut bread, a pen: write, a key: open doors, a lamp: see at night, soap: wash our hands, a
            clock: tell the time, a spoon: eat soup"""),
        3: pairs("""
            a hammer: drive nails, a saw: cut wood, a thermometer: measure temperature, a telescope: look at the
            stars, a pair of scissors: cut paper, a needle: sew, an oven: bake cakes, a compass: find the way, a
            ladder: climb up, a bridge: cross a river, an umbrella: stay dry, a microscope: look at tiny things, a
            ruler: draw straight lines, a shovel: dig holes, a camera: take photographs, a map: plan a journey, a
            broom: sweep the floor, a calculator: do sums, a fridge: keep food cold, an anchor: hold a ship in
            place, a stamp: post a letter, a scale: weigh things, a whistle: call a dog, a drill: make holes, a
            bucket: carry water, glue: stick things together, a rake: gather leaves, an alarm: wake up, a net: catch
            fish, a pillow: rest our heads"""),
    },
    "capital": {
        3: pairs("""
            France: Paris, Italy: Rome, Spain: Madrid, Germany: Berlin, England: London, Japan: Tokyo, China:
            Beijing, Russia: Moscow, Greece: Athens, Egypt: Cairo, Portugal: Lisbon, Poland: Warsaw, Austria:
            Vienna, Ireland: Dublin, Norway: Oslo, Sweden: Stockholm, Finland: Helsinki, Denmark: Copenhagen,
            Hungary: Budapest, Turkey: Ankara, Kenya: Nairobi, Canada: Ottawa, Cuba: Havana, Peru: Lima, Chile:
            Santiago, Thailand: Bangkok, Belgium: Brussels, Iceland: Reykjavik, Scotland: Edinburgh, Wales: Cardiff,
            Romania: Bucharest, Bulgaria: Sofia, Serbia: Belgrade, Vietnam: Hanoi, Iran: Tehran, Iraq: Baghdad,
            Morocco: Rabat, Senegal: Dakar, Uruguay: Montevideo, Nepal: Kathmandu, Brazil: Brasilia, Croatia:
            Zagreb, Latvia: Riga, Estonia: Tallinn, Lithuania: Vilnius"""),
    },
    "continent": {
        3: pairs("""
            France: Europe, Italy: Europe, Spain: Europe, Germany: Europe, Japan: Asia, China: Asia, Egypt: Africa,
            Kenya: Africa, Morocco: Africa, Senegal: Africa, Canada: North America, Cuba: North America, Peru: South
            America, Chile: South America, Brazil: South America, Uruguay: South America, Thailand: Asia, Vietnam:
            Asia, Nepal: Asia, Norway: Europe, Greece: Europe, Hungary: Europe, Portugal: Europe, Poland: Europe"""),
    },
    "language": {
        3: pairs("""
            France: French, Italy: Italian, Spain: Spanish, Germany: German, Japan: Japanese, Greece: Greek, Egypt:
            Arabic, Portugal: Portuguese, Poland: Polish, Austria: German, Brazil: Portuguese, Peru: Spanish, Chile:
            Spanish, Russia: Russian, Norway: Norwegian, Sweden: Swedish, Finland: Finnish, Denmark: Danish,
            Hungary: Hungarian, Turkey: Turkish, Vietnam: Vietnamese, Thailand: Thai, Croatia: Croatian"""),
    },
    "month": {
        3: pairs("""
            January: February, February: March, March: April, April: May, May: June, June: July, July: August,
            August: September, September: October, October: November, November: December, December: January"""),
    },
    "group": {
        3: pairs("""
            wolves: a pack, sheep: a flock, cows: a herd, bees: a swarm, fish: a school, lions: a pride, ships: a
            fleet, singers: a choir, players: a team, birds: a flock, elephants: a herd, ants: a colony, soldiers:
            an army, sailors: a crew, musicians: a band, stars: a galaxy, trees: a forest, islands: an archipelago"""),
    },
    "science": {
        3: pairs("""
            a botanist: plants, a zoologist: animals, an astronomer: the stars, a geologist: rocks, a historian: the
            past, a linguist: languages, a chemist: substances, a physicist: matter and energy, a mathematician:
            numbers and shapes, an economist: money and trade, a meteorologist: the weather, an archaeologist:
            ruins, a psychologist: the mind, a biologist: living things"""),
    },
    "instrument": {
        3: pairs("""
            a pianist: the piano, a violinist: the violin, a drummer: the drums, a guitarist: the guitar, a
            trumpeter: the trumpet, a cellist: the cello, an organist: the organ, a flautist: the flute, a harpist:
            the harp, a saxophonist: the saxophone"""),
    },
    "inventor": {
        3: pairs("""
            dynamite: Nobel, the battery: Volta, braille: Braille, the telephone: Bell, the diesel engine: Diesel,
            the phonograph: Edison, the printing press: Gutenberg"""),
    },
    "number": {
        3: pairs("""
            days in a week: seven, months in a year: twelve, hours in a day: twenty-four, minutes in an hour: sixty,
            seasons in a year: four, letters in the alphabet: twenty-six, sides of a triangle: three, corners of a
            square: four, planets around the sun: eight, fingers on a hand: five, wheels on a bicycle: two, strings
            on a violin: four, players in a football team: eleven, sides of a hexagon: six, years in a century: a
            hundred"""),
    },
}
