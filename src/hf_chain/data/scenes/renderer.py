"""Rendered scenes: how one is drawn, and how a data set is built of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from math import cos, pi, radians, sin
from random import Random
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, List, NamedSplit, Value
from datasets import Image as ImageFeature
from PIL import Image, ImageDraw

from hf_chain.data.scenes.scene import (
    COLORS,
    HELD_OUT_PAIRS,
    SHAPES,
    TRAINED_PAIRS,
    Placed,
    Scene,
    sample_scene,
    scene_captions,
    scene_questions,
)
from hf_chain.data.settings import ScenesSettings
from hf_chain.errors import HfChainError

COLOR_VALUES = {
    "red": (222, 45, 45),
    "green": (52, 168, 70),
    "blue": (45, 100, 225),
    "yellow": (248, 208, 40),
    "purple": (140, 65, 185),
    "pink": (250, 130, 185),
    "brown": (140, 85, 45),
    "cyan": (50, 205, 215),
}
BACKGROUND_VALUES = {
    "white": (246, 246, 244),
    "grey": (150, 152, 155),
    "black": (26, 26, 28),
    "beige": (232, 216, 184),
    "navy": (26, 34, 78),
}
_SUPERSAMPLING = 4
_OUTLINE = 0.014
_SHADOW = 0.016


def _polar(steps: int, radius: float = 1.0, start: float = -pi / 2) -> list[tuple[float, float]]:
    return [(radius * cos(start + 2 * pi * i / steps), radius * sin(start + 2 * pi * i / steps)) for i in range(steps)]


def _star() -> list[tuple[float, float]]:
    outer, inner = _polar(5), _polar(5, 0.46, -pi / 2 + pi / 5)
    return [point for pair in zip(outer, inner, strict=True) for point in pair]


def _heart() -> list[tuple[float, float]]:
    angles = [2 * pi * i / 40 for i in range(40)]
    return [
        (16 * sin(t) ** 3 / 17, -(13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t) + 2) / 17) for t in angles
    ]


def _cross() -> list[tuple[float, float]]:
    arm, half = 0.93, 0.32
    corner = [(half, -arm), (half, -half), (arm, -half)]
    points = []
    for _ in range(4):
        points += corner
        corner = [(-y, x) for x, y in corner]
    return points


# Outlines inside the unit circle, y downwards.
_SHAPE_POINTS = {
    "circle": _polar(40, 0.9),
    "square": _polar(4, 1.0, -pi / 4),
    "triangle": _polar(3),
    "star": _star(),
    "heart": _heart(),
    "cross": _cross(),
}


def render(scene: Scene, size: int) -> Image.Image:
    """Draw a scene.

    Args:
        scene (`Scene`): What to draw.
        size (`int`): Height and width of the image in pixels.

    Returns:
        `PIL.Image.Image`: The scene, mode `RGB`, smoothed by supersampling.
    """
    canvas = _background(scene.background, scene.pattern, size * _SUPERSAMPLING).copy()
    draw = ImageDraw.Draw(canvas)
    ground = BACKGROUND_VALUES[scene.background]
    for placed in scene.objects:
        fill = COLOR_VALUES[placed.color]
        draw.polygon(_outline(placed, canvas.width, _OUTLINE, _SHADOW), fill=_shade(ground, 0.72))
        draw.polygon(_outline(placed, canvas.width, _OUTLINE, 0), fill=_shade(fill, 0.62))
        draw.polygon(_outline(placed, canvas.width, -_OUTLINE / 2, 0), fill=fill)
    return canvas.reduce(_SUPERSAMPLING)


def _outline(placed: Placed, width: int, grow: float, shift: float) -> list[tuple[float, float]]:
    scale = (placed.radius + grow) * width
    c, s = cos(radians(placed.angle)) * scale, sin(radians(placed.angle)) * scale
    x0, y0 = (placed.x + shift) * width, (placed.y + shift) * width
    return [(x0 + c * x - s * y, y0 + s * x + c * y) for x, y in _SHAPE_POINTS[placed.shape]]


def _shade(color: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    red, green, blue = (min(255, round(value * factor)) for value in color)
    return red, green, blue


@lru_cache(maxsize=64)
def _background(name: str, pattern: str, width: int) -> Image.Image:
    color = BACKGROUND_VALUES[name]
    # A dark ground takes a lighter pattern, a light one a darker pattern.
    second = _shade(color, 0.86) if sum(color) > 300 else tuple(min(255, value + 26) for value in color)
    image = Image.new("RGB", (width, width), color)
    draw = ImageDraw.Draw(image)
    if pattern == "striped":
        step = width // 8
        for i in range(-8, 8, 2):
            x = i * step
            draw.polygon([(x, 0), (x + step, 0), (x + step + width, width), (x + width, width)], fill=second)
    elif pattern == "checked":
        step = width // 8
        for i in range(8):
            for j in range(i % 2, 8, 2):
                draw.rectangle([i * step, j * step, (i + 1) * step - 1, (j + 1) * step - 1], fill=second)
    return image


# Part of the cache key: raise it with every change of what is drawn or said.
VERSION = 1
# Share of all descriptions that belongs to each split; the compositional one is disjoint by its pairs.
_RANGES = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0), "compositional": (0.0, 1.0)}

CLASS_NAMES = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
FEATURES = Features(
    {
        "image": ImageFeature(),
        "captions": List(Value("string")),
        "label": ClassLabel(names=CLASS_NAMES),
        "questions": List({"question": Value("string"), "answer": Value("string")}),
        "scene": Value("string"),
    }
)


def build_scenes(settings: ScenesSettings) -> DatasetDict:
    """Render all splits, or read them from the `datasets` cache where the same settings were rendered before.

    Args:
        settings (`ScenesSettings`): Number of scenes in each split, image size and seed.

    Returns:
        `datasets.DatasetDict`: `train`, `validation`, `test` and `compositional`, each with `image`, `captions`
        (the first one names everything), `label` (colour and shape of the largest object), `questions` and `scene`
        (all objects as JSON).
    """
    return DatasetDict({split: scenes_of_split(settings, split) for split in settings.sizes()})


def scenes_of_split(settings: ScenesSettings, split: str) -> Dataset:
    """Render one split, or read it from the cache; see `build_scenes`.

    Raises:
        HfChainError: when there is no such split.
    """
    sizes = settings.sizes()
    if split not in sizes:
        raise HfChainError(f"split {split!r} is not in scenes; it has {', '.join(sizes)}")
    return Dataset.from_generator(
        generate_scenes,
        features=FEATURES,
        split=NamedSplit(split),
        gen_kwargs={
            "split": split,
            "count": sizes[split],
            "image_size": settings.image_size,
            "seed": settings.seed,
            "version": VERSION,
        },
    )


def generate_scenes(
    split: str, count: int, image_size: int, seed: int, version: int = VERSION
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one split, no scene twice; a larger count begins with the rows of a smaller one.

    Args:
        split (`str`): `train`, `validation`, `test` or `compositional`.
        count (`int`): Number of rows.
        image_size (`int`): Height and width in pixels.
        seed (`int`): Seed of the scenes.
        version (`int`): Only keys the cache.

    Yields:
        `dict`: A row as `FEATURES` describes it; the image is a PNG.
    """
    pairs = tuple(sorted(HELD_OUT_PAIRS)) if split == "compositional" else TRAINED_PAIRS
    low, high = _RANGES[split]
    random = Random(f"scenes/{seed}/{split}")
    seen: set[str] = set()
    while len(seen) < count:
        scene = sample_scene(random, pairs)
        if not low <= scene.share < high or scene.description in seen:
            continue
        seen.add(scene.description)
        encoded = io.BytesIO()
        render(scene, image_size).save(encoded, "PNG", compress_level=1)
        yield {
            "image": {"bytes": encoded.getvalue(), "path": None},
            "captions": scene_captions(scene, random),
            "label": f"{scene.main.color} {scene.main.shape}",
            "questions": scene_questions(scene, random, pairs),
            "scene": json.dumps(asdict(scene)),
        }
