"""Decoding of images of any mode to 8-bit RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Image as ImageFeature
from PIL import Image

_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to 8-bit RGB without clipping 16-bit greys; transparency is laid over white.

    Args:
        image (`PIL.Image.Image`): An image of any mode Pillow reads (palette, CMYK, grey, 16-bit, alpha, float).

    Returns:
        `PIL.Image.Image`: The image in mode `RGB`.

    Raises:
        `ValueError`: Where a float image holds NaN or infinity.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _SIXTEEN_BIT_MODES:
        # Pillow's own conversion clips at 255, which turns nearly every 16-bit image white.
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray((grey.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        grey = np.asarray(image)
        if not np.isfinite(grey).all():
            raise ValueError("the image holds NaN or infinite pixels")
        scale = 255.0 if grey.max() <= 1 else 1.0
        return Image.fromarray((grey * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def decode_image(value: Any) -> Image.Image:
    """Decode what a `datasets` row holds as an image.

    Args:
        value (`PIL.Image.Image`, `dict` or `str`): An image, `{"bytes", "path"}`, or a path.

    Returns:
        `PIL.Image.Image`: The whole image, loaded, upright by its EXIF orientation, mode `RGB`.

    Raises:
        `Exception`: Whatever Pillow raises on a broken file; there is no common base class.
    """
    if isinstance(value, Image.Image):
        return to_rgb(value)
    if isinstance(value, str):
        value = {"path": value, "bytes": None}
    if isinstance(value, bytes):
        value = {"path": None, "bytes": value}
    if not isinstance(value, dict):
        raise ValueError(f"the image is {value!r}")
    return to_rgb(ImageFeature().decode_example({"path": value.get("path"), "bytes": value.get("bytes")}))


def image_path(value: Any) -> str | None:
    """Return the path that a row gives for its image, where it gives one."""
    if isinstance(value, str):
        return value
    return value.get("path") if isinstance(value, dict) else None
