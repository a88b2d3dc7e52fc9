"""What a scene is: its objects, where they stand, and how scenes are drawn at random."""

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
