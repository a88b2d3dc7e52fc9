"""The world that the stories are set in: who lives where, what goes with what, and what follows from what."""

from __future__ import annotations

from typing import NamedTuple

GIRLS = ("Anna", "Mira", "Lucy", "Nora", "Ella", "Rosa", "Ivy", "Clara", "Maya", "Tess", "Zoe", "Ruth")
BOYS = ("Tom", "Ben", "Omar", "Hugo", "Leo", "Sam", "Finn", "Max", "Noah", "Jack", "Paul", "Ravi")
NAMES = GIRLS + BOYS
COLORS = ("red", "green", "blue", "yellow", "purple", "white", "black", "brown")
THINGS = ("kite", "ball", "lamp", "drum", "hat", "scarf", "bell", "book", "cup", "ribbon", "flute", "blanket")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# One pair of each colour; every thing keeps at least seven colours, so that both words are learnt elsewhere.
HELD_OUT_PAIRS = frozenset(
    {
        ("red", "kite"),
        ("green", "drum"),
        ("blue", "hat"),
        ("yellow", "bell"),
        ("purple", "ball"),
        ("white", "lamp"),
        ("black", "cup"),
        ("brown", "book"),
    }
)
TRAINED_PAIRS = tuple((c, t) for c in COLORS for t in THINGS if (c, t) not in HELD_OUT_PAIRS)


class Setting(NamedTuple):
    """Where a story happens: the spots where things are put, who works there, and what is gathered there."""

    place: str
    where: str
    spots: tuple[str, ...]
    workers: tuple[str, ...]
    gathered: tuple[str, ...]


SETTINGS = (
    Setting(
        "village",
        "in a small village at the foot of a hill",
        ("under the stone bridge", "behind the bakery", "beside the well", "in the school garden", "on the mill wall"),
        ("baker", "miller", "teacher"),
        ("plums", "nuts", "roses"),
    ),
    Setting(
        "harbour",
        "in a windy harbour town",
        (
            "under the old boat",
            "behind the fish crates",
            "beside the lighthouse",
            "in the net shed",
            "on the pier",
        ),
        ("sailor", "fisherman", "lighthouse keeper"),
        ("shells", "corks", "pearls"),
    ),
    Setting(
        "farm",
        "on a farm at the end of a long lane",
        ("under the hay cart", "behind the hen house", "beside the duck pond", "in the barn", "on the gate post"),
        ("farmer", "shepherd", "milkmaid"),
        ("eggs", "pumpkins", "carrots"),
    ),
    Setting(
        "forest",
        "in a wooden house deep in the forest",
        (
            "under the pine",
            "behind the mossy rock",
            "beside the brook",
            "in the hollow log",
            "on the tree stump",
        ),
        ("woodcutter", "beekeeper", "painter"),
        ("mushrooms", "berries", "pine cones"),
    ),
    Setting(
        "mountain",
        "high up in the mountains",
        ("under the stone arch", "behind the waterfall", "beside the spring", "in the goat shed", "on the high ledge"),
        ("shepherd", "guide", "cheesemaker"),
        ("crystals", "feathers", "thistles"),
    ),
    Setting(
        "city",
        "in a tall house in the middle of a busy city",
        ("under the market stall", "behind the clock tower", "beside the fountain", "in the library", "on the roof"),
        ("tailor", "clockmaker", "cook"),
        ("buttons", "stamps", "coins"),
    ),
    Setting(
        "island",
        "on a warm island far out at sea",
        ("under the palm tree", "behind the sand dune", "beside the lagoon", "in the sea cave", "on the flat rock"),
        ("sailor", "potter", "weaver"),
        ("coconuts", "shells", "mangoes"),
    ),
    Setting(
        "castle",
        "in a castle with seven towers",
        ("under the stone stairs", "behind the stables", "beside the moat", "in the rose garden", "on the throne"),
        ("cook", "blacksmith", "gardener"),
        ("roses", "candles", "cherries"),
    ),
    Setting(
        "river",
        "in a white cottage by the river",
        (
            "under the willow",
            "behind the water mill",
            "beside the reeds",
            "in the ferry house",
            "on the flat stones",
        ),
        ("miller", "ferryman", "fisherman"),
        ("pebbles", "reeds", "lilies"),
    ),
    Setting(
        "oasis",
        "at a green oasis in the desert",
        ("under the date palm", "behind the camel pen", "beside the pool", "in the striped tent", "on the old carpet"),
        ("weaver", "potter", "guide"),
        ("dates", "figs", "beads"),
    ),
)


class Work(NamedTuple):
    """What a worker does, what is needed for it, where it is done, and what is given to those who help."""

    does: str
    needs: str
    home: str
    gift: str


WORK = {
    "baker": Work("baked bread before the sun was up", "flour", "oven", "a warm loaf"),
    "miller": Work("ground corn between two great stones", "sacks of corn", "millstone", "a bag of flour"),
    "teacher": Work("taught the children to read and to count", "chalk", "blackboard", "a new pencil"),
    "sailor": Work("had sailed around the world three times", "rope", "sails", "a map of the stars"),
    "fisherman": Work("rowed out every night to catch fish", "nets", "rowing boat", "a silver fish"),
    "lighthouse keeper": Work("lit the great light every evening", "oil", "stairs", "a brass telescope"),
    "farmer": Work("ploughed the fields with two slow oxen", "seeds", "plough", "a jar of honey"),
    "shepherd": Work("watched over the sheep by day and by night", "hay", "sheepfold", "a ball of wool"),
    "milkmaid": Work("milked the cows and churned the butter", "buckets", "cows", "a jug of milk"),
    "woodcutter": Work("cut wood for the winter", "logs", "axe", "a wooden spoon"),
    "beekeeper": Work("looked after forty hives of bees", "jars", "hives", "a jar of honey"),
    "painter": Work("painted the sky in a hundred colours", "brushes", "easel", "a little picture"),
    "guide": Work("knew every path and every star", "water bottles", "camp fire", "a small compass"),
    "cheesemaker": Work("made round cheeses as big as wheels", "milk", "copper pot", "a piece of cheese"),
    "tailor": Work("sewed coats for all the rich people", "thread", "needles", "a silk pocket"),
    "clockmaker": Work("mended clocks that had stopped", "tiny wheels", "workbench", "a silver watch"),
    "cook": Work("cooked soup in a pot as big as a bath", "onions", "stove", "a bowl of soup"),
    "potter": Work("made pots on a turning wheel", "clay", "kiln", "a clay whistle"),
    "weaver": Work("wove carpets full of birds and flowers", "wool", "loom", "a woven belt"),
    "blacksmith": Work("hammered iron until the sparks flew", "coal", "fire", "a lucky horseshoe"),
    "gardener": Work("grew the sweetest flowers in the land", "water", "flower beds", "a bag of seeds"),
    "ferryman": Work("took people across the water for a penny", "oars", "ferry", "a free ride"),
}


class Animal(NamedTuple):
    """What an animal says, eats and likes, and where it goes when it is lost."""

    sound: str
    food: str
    likes: str
    haunt: str


ANIMALS = {
    "dog": Animal("barking", "a bone", "chase sticks", "behind the butcher's door"),
    "cat": Animal("purring", "a saucer of cream", "sleep in the sun", "on a warm chimney"),
    "goat": Animal("bleating", "some thorny leaves", "climb on tables", "at the top of a cliff"),
    "duck": Animal("quacking", "some bread crumbs", "splash in puddles", "in the deepest puddle"),
    "pony": Animal("neighing", "a sweet carrot", "gallop through the grass", "in a field of clover"),
    "donkey": Animal("braying", "a bunch of thistles", "stand still and think", "in the middle of the road"),
    "parrot": Animal("singing", "a handful of seeds", "repeat every word", "at the top of the tallest tree"),
    "rabbit": Animal("thumping", "a cabbage leaf", "dig long tunnels", "at the end of a tunnel"),
    "mouse": Animal("squeaking", "a crumb of cheese", "hide in pockets", "inside an empty shoe"),
    "goose": Animal("honking", "a bowl of barley", "march like a soldier", "in front of the mayor's house"),
    "lamb": Animal("crying", "a bottle of milk", "jump over fences", "on the wrong side of a fence"),
    "owl": Animal("hooting", "a fat beetle", "stay awake all night", "in the dark church tower"),
}
PETS = tuple(ANIMALS)
COATS = ("brown", "black", "white", "grey", "spotted", "golden")
PET_NAMES = ("Pepper", "Button", "Biscuit", "Captain", "Pickle", "Thunder", "Daisy", "Muffin", "Shadow", "Sunny")


class Trait(NamedTuple):
    """How somebody is known, what they do about trouble, and how their story ends."""

    known: str
    does: str
    moral: str


TRAITS = {
    "kind": Trait(
        "never walked past anyone who was sad",
        "shared everything and kept the smallest part",
        "kindness comes back to those who give it",
    ),
    "brave": Trait(
        "was not even afraid of the dark", "went first and did not look back", "courage is being afraid and going on"
    ),
    "patient": Trait(
        "could watch a snail for hours",
        "waited without a word until the time was right",
        "good things come to those who wait",
    ),
    "clever": Trait(
        "could solve any riddle", "thought for a moment and had a plan", "a good idea is stronger than ten horses"
    ),
    "careful": Trait(
        "always tied every knot twice", "checked everything once more", "slow and steady gets there in the end"
    ),
    "cheerful": Trait(
        "sang from morning to evening", "made everybody laugh with a song", "a merry heart makes light work"
    ),
    "curious": Trait(
        "asked a hundred questions a day", "opened every door and looked behind it", "those who ask find the way"
    ),
    "truthful": Trait("had never told a lie", "told the whole truth at once", "the truth is the shortest road"),
}


class Weather(NamedTuple):
    """A change of weather, and the three things that follow from it."""

    came: str
    why: str
    ground: str
    body: str
    remedy: str


WEATHER = {
    "spring": (
        Weather(
            "it began to rain",
            "it rained",
            "the path turned to mud",
            "their shoes were soaked",
            "dried them in front of the fire",
        ),
        Weather(
            "a thick fog rose",
            "it was foggy",
            "nobody could see the road",
            "they lost their way",
            "followed the sound of the bells home",
        ),
    ),
    "summer": (
        Weather(
            "the sun burned down",
            "it was hot",
            "the grass turned yellow",
            "they were thirsty",
            "drank cold water in the shade",
        ),
        Weather(
            "thunder rolled over the land",
            "there was thunder",
            "the animals ran for shelter",
            "their knees shook",
            "told each other stories until it was over",
        ),
    ),
    "autumn": (
        Weather(
            "a storm came up",
            "there was a storm",
            "the leaves flew through the air",
            "their hats blew away",
            "caught them behind a hedge",
        ),
        Weather(
            "it grew dark early",
            "it was dark",
            "the lamps were lit",
            "they could not see their feet",
            "held hands all the way back",
        ),
    ),
    "winter": (
        Weather(
            "it began to snow",
            "it snowed",
            "the roofs turned white",
            "their fingers were cold",
            "warmed them on a mug of hot milk",
        ),
        Weather(
            "the frost came",
            "there was frost",
            "the water froze",
            "they slipped and fell",
            "laughed and put ashes on the ice",
        ),
    ),
}
SEASONS = tuple(WEATHER)

CONTESTS = (
    ("ran a race", "ran faster than", "the fastest", "the slowest"),
    ("stood back to back", "was taller than", "the tallest", "the shortest"),
    ("jumped over the ditch", "jumped further than", "the best at jumping", "the worst at jumping"),
    ("pulled a rope", "was stronger than", "the strongest", "the weakest"),
    ("counted their birthdays", "was older than", "the oldest", "the youngest"),
    ("climbed a tree", "climbed higher than", "the best climber", "the most careful climber"),
)
VISITS = (
    ("the ferry", "sail", "sailed"),
    ("the circus", "arrive", "arrived"),
    ("the music", "begin", "began"),
    ("the great fair", "open", "opened"),
    ("the postman", "come", "came"),
    ("the wedding", "take place", "took place"),
)
