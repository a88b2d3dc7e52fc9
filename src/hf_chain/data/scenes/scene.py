"""A scene of coloured shapes: what stands in it, and what captions and questions say of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from random import Random

COLORS = ("red", "green", "blue", "yellow", "purple", "pink", "brown", "cyan")
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
BACKGROUNDS = ("white", "grey", "black", "beige", "navy")
PATTERNS = ("plain", "striped", "checked")
RADII = {"large": 0.2, "medium": 0.12, "small": 0.08}

# One pair of each colour; every shape keeps at least six colours, so that both words are learnt elsewhere.
HELD_OUT_PAIRS = frozenset(
    {
        ("red", "star"),
        ("green", "heart"),
        ("blue", "triangle"),
        ("yellow", "cross"),
        ("purple", "square"),
        ("pink", "circle"),
        ("brown", "star"),
        ("cyan", "heart"),
    }
)
TRAINED_PAIRS = tuple((c, s) for c in COLORS for s in SHAPES if (c, s) not in HELD_OUT_PAIRS)

_CELL_CENTRES = (0.26, 0.5, 0.74)
_GAP = 0.025
_MOST_OBJECTS = 7


@dataclass(frozen=True)
class Placed:
    """One object of a scene; `x`, `y` and `radius` are shares of the image side, `angle` is in degrees."""

    color: str
    shape: str
    size: str
    x: float
    y: float
    angle: float

    @property
    def radius(self) -> float:
        """Radius of the circle that the object fits into."""
        return RADII[self.size]


@dataclass(frozen=True)
class Group:
    """One to four objects of the same colour, shape and size. No two groups of a scene share colour and shape."""

    objects: tuple[Placed, ...]

    @property
    def color(self) -> str:
        """Colour of every object of the group."""
        return self.objects[0].color

    @property
    def shape(self) -> str:
        """Shape of every object of the group."""
        return self.objects[0].shape

    @property
    def size(self) -> str:
        """Size of every object of the group."""
        return self.objects[0].size

    @property
    def count(self) -> int:
        """Number of objects."""
        return len(self.objects)


@dataclass(frozen=True)
class Scene:
    """A background, the one large main object and up to three groups of smaller ones."""

    background: str
    pattern: str
    column: int
    row: int
    main: Group
    groups: tuple[Group, ...]

    @property
    def objects(self) -> tuple[Placed, ...]:
        """All objects, the main one first."""
        return tuple(placed for group in (self.main, *self.groups) for placed in group.objects)

    @property
    def description(self) -> str:
        """Everything a scene says in words except for relations: scenes with equal descriptions count as the same."""
        groups = sorted(f"{g.count} {g.size} {g.color} {g.shape}" for g in self.groups)
        main = f"{self.main.color} {self.main.shape} at {self.column},{self.row}"
        return "; ".join([f"{self.pattern} {self.background}", main, *groups])

    @property
    def share(self) -> float:
        """A number in [0, 1) that depends on the description only, by which a scene belongs to one split for ever."""
        digest = hashlib.blake2b(self.description.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64


def sample_scene(random: Random, pairs: tuple[tuple[str, str], ...] = TRAINED_PAIRS) -> Scene:
    """Draw a scene.

    Args:
        random (`random.Random`): Source of all choices.
        pairs (`tuple[tuple[str, str], ...]`): Colour and shape pairs the scene may be made of.

    Returns:
        `Scene`: A scene whose objects do not touch each other or the border.
    """
    while True:
        scene = _try_scene(random, pairs)
        if scene is not None:
            return scene


def _try_scene(random: Random, pairs: tuple[tuple[str, str], ...]) -> Scene | None:
    column, row = random.randrange(3), random.randrange(3)
    x = _CELL_CENTRES[column] + random.uniform(-0.03, 0.03)
    y = _CELL_CENTRES[row] + random.uniform(-0.03, 0.03)
    kinds = random.sample(pairs, random.choices((1, 2, 3, 4), (1, 4, 4, 2))[0])
    main = Placed(*kinds[0], "large", x, y, random.uniform(-12, 12))
    placed = [main]
    groups = []
    for color, shape in kinds[1:]:
        size = random.choice(("medium", "small"))
        count = random.choices((1, 2, 3, 4), (5, 2, 2, 1))[0]
        if len(placed) + count > _MOST_OBJECTS:
            return None
        members = []
        for _ in range(count):
            spot = _free_spot(random, RADII[size], placed)
            if spot is None:
                return None
            members.append(Placed(color, shape, size, *spot, random.uniform(-12, 12)))
            placed.append(members[-1])
        groups.append(Group(tuple(members)))
    return Scene(random.choice(BACKGROUNDS), random.choice(PATTERNS), column, row, Group((main,)), tuple(groups))


def _free_spot(random: Random, radius: float, placed: list[Placed]) -> tuple[float, float] | None:
    low, high = radius + _GAP, 1 - radius - _GAP
    for _ in range(30):
        x, y = random.uniform(low, high), random.uniform(low, high)
        if all((x - o.x) ** 2 + (y - o.y) ** 2 > (radius + o.radius + _GAP) ** 2 for o in placed):
            return x, y
    return None


NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
_PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the centre", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def scene_captions(scene: Scene, random: Random) -> list[str]:
    """Describe a scene in several ways; the first caption names everything that is there.

    Args:
        scene (`Scene`): What to describe.
        random (`random.Random`): Chooses between phrasings that mean the same.

    Returns:
        `list[str]`: At least six different captions, each true.
    """
    main, groups = scene.main, list(scene.groups)
    ground = _background(scene)
    name = f"{main.color} {main.shape}"
    place = _PLACES[scene.row][scene.column]
    everything = _join([_noun(group) for group in (main, *groups)])
    joint = "of" if place.startswith(("at", "in")) else "side of"
    captions = [
        f"{everything} on {ground}",
        f"{_noun(main)} {place} {joint} {ground}",
        random.choice(("a {}", "there is a {}", "a picture of a {}")).format(name),
        f"{NUMBERS[len(scene.objects)]} {_plural('shape', len(scene.objects))}: "
        + _join([_counted(group) for group in (main, *groups)]),
        f"{ground} with {_some(len(scene.objects))}, the largest is a {name}",
    ]
    if not groups:
        captions.append(f"a {name} alone {place}")
        return captions
    related = [(relation, group) for group in groups if (relation := relation_of(main, group)) is not None]
    for relation, group in related:
        other = f"{group.color} {group.shape}"
        captions.append(random.choice((f"a {name} {relation} a {other}", f"a {other} {_OPPOSITE[relation]} a {name}")))
    group = random.choice(groups)
    captions.append(f"{_noun(main)} {place} with {_noun(group)}" if not related else f"{_noun(group)} on {ground}")
    return captions


def scene_questions(scene: Scene, random: Random, pairs: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    """Ask about a scene.

    Args:
        scene (`Scene`): What to ask about.
        random (`random.Random`): Chooses the objects asked about.
        pairs (`tuple[tuple[str, str], ...]`): Colour and shape pairs a question may mention.

    Returns:
        `list[dict[str, str]]`: Each with `question` and a one-word `answer`.
    """
    main, groups = scene.main, scene.groups
    asked = random.choice((main, *groups))
    present = {(group.color, group.shape) for group in (main, *groups)}
    absent = random.choice([pair for pair in pairs if pair not in present])
    there = random.random() < 0.5
    color, shape = (asked.color, asked.shape) if there else absent
    questions = [
        ("what colour is the largest shape?", main.color),
        ("what is the largest shape?", main.shape),
        ("what colour is the background?", scene.background),
        ("is the background plain, striped or checked?", scene.pattern),
        ("how many shapes are there?", NUMBERS[len(scene.objects)]),
        (f"how many {asked.color} {_plural(asked.shape, 2)} are there?", NUMBERS[asked.count]),
        (f"is there a {color} {shape}?", "yes" if there else "no"),
    ]
    for group in groups:
        relation = relation_of(main, group)
        if relation is not None:
            true = random.random() < 0.5
            said = relation if true else _OPPOSITE[relation]
            question = f"is the {main.color} {main.shape} {said} the {group.color} {group.shape}?"
            questions.append((question, "yes" if true else "no"))
            break
    return [{"question": question, "answer": answer} for question, answer in questions]


def relation_of(main: Group, group: Group) -> str | None:
    """Return where the main object stands seen from a single other one, or `None` where a person would hesitate."""
    if group.count != 1:
        return None
    dx = main.objects[0].x - group.objects[0].x
    dy = main.objects[0].y - group.objects[0].y
    if abs(dx) > 1.5 * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) > 1.5 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def _background(scene: Scene) -> str:
    return f"a {scene.pattern} {scene.background} background"


def _noun(group: Group) -> str:
    number = "a" if group.count == 1 else NUMBERS[group.count]
    return f"{number} {group.size} {group.color} {_plural(group.shape, group.count)}"


def _counted(group: Group) -> str:
    return f"{NUMBERS[group.count]} {group.color} {_plural(group.shape, group.count)}"


def _some(count: int) -> str:
    return f"{NUMBERS[count]} {_plural('shape', count)}"


def _plural(noun: str, count: int) -> str:
    if count == 1:
        return noun
    return noun + ("es" if noun.endswith("s") else "s")


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
