"""The scenes as a `datasets.DatasetDict` with splits that share no scene."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from random import Random
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, NamedSplit, Value

from hf_chain.data.scenes.renderer import render
from hf_chain.data.scenes.scene import COLORS, HELD_OUT_PAIRS, SHAPES, TRAINED_PAIRS, sample_scene
from hf_chain.data.scenes.wording import scene_captions, scene_questions
from hf_chain.data.settings import ScenesSettings

# Part of the cache key: raise it with every change of what is drawn or said.
VERSION = 1
# Share of all descriptions that belongs to each split; the compositional one is disjoint by its pairs.
_RANGES = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0), "compositional": (0.0, 1.0)}

CLASS_NAMES = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
FEATURES = Features(
    {
        "image": Image(),
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
    return DatasetDict(
        {
            split: Dataset.from_generator(
                generate_scenes,
                features=FEATURES,
                split=NamedSplit(split),
                gen_kwargs={
                    "split": split,
                    "count": count,
                    "image_size": settings.image_size,
                    "seed": settings.seed,
                    "version": VERSION,
                },
            )
            for split, count in settings.sizes().items()
        }
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
