"""What lmms-eval shows and asks in the task of `scenes_image.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

_SCENES = Path(__file__).with_name("scenes")


def visuals(row: dict[str, Any]) -> list[Image.Image]:
    """The image that a question is about."""
    with Image.open(_SCENES / row["image"]) as image:
        return [image.convert("RGB")]


def question(row: dict[str, Any], settings: dict[str, str] | None = None) -> str:
    """The question itself; lmms-eval puts the image before it."""
    return str(row["question"])
