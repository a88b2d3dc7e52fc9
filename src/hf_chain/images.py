"""Reading of images: the one way for training, evaluation, reports, chat and processors."""

from __future__ import annotations

import os
import stat
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base

from hf_chain.errors import shortened

MAX_IMAGE_PIXELS = 178_956_970
"""Pixels from which on an image is not read unless another limit is given; Pillow's own."""

MAX_RATIO = 1_000
"""Longer to shorter side from which on an image is not read."""

_PILLOW_LIMIT = Lock()


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image upright and convert it to 8-bit RGB.

    Transparency is laid over white. 16-bit greys are scaled by 257. Other numbers are scaled by what they hold: from
    0 to 1, from 0 to 255, integers from 0 to 65535, or else from the least to the largest of them.

    Args:
        image (`PIL.Image.Image`): An image of any mode (palette, CMYK, grey, 16-bit, alpha, float); of an animated one
            the frame that it stands at.

    Returns:
        `PIL.Image.Image`: The image in mode `RGB`.

    Raises:
        `ValueError`: Where a float image holds NaN or infinity.
    """
    if image.getexif().get(Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    clear = image.info.get("transparency")
    if image.mode == "RGB" and clear is None:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        # Pillow's own conversion clips at 255, which turns nearly every 16-bit image white.
        pixels = np.asarray(image)
        grey = _eight_bit(pixels.astype(np.uint16) if image.mode.startswith("I;16") else pixels)
        if isinstance(clear, int):
            grey[pixels == clear] = 255
        return Image.fromarray(grey).convert("RGB")
    if clear is not None or image.mode in ("RGBA", "LA", "PA", "RGBa"):
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def decode_image(value: Any, max_pixels: int | None = MAX_IMAGE_PIXELS) -> Image.Image:
    """Decode what stands for an image in a `datasets` row, a chat or a call.

    Args:
        value (`PIL.Image.Image`, `numpy.ndarray`, `dict`, `bytes`, `str` or `Path`): An image; `[H, W]` or `[H, W, C]`
            with C grey, grey and alpha, RGB or RGBA; `{"bytes", "path"}`; an encoded file; or a path or URL.
        max_pixels (`int`, *optional*): Pixels from which on the image is not decoded; `None` for any number.

    Returns:
        `PIL.Image.Image`: The whole first frame, loaded, upright by its EXIF orientation, mode `RGB`.

    Raises:
        `ValueError`: Where it is no image, no regular file, or too large.
        `Exception`: Whatever Pillow raises on a broken file; there is no common base class.
    """
    if isinstance(value, np.ndarray):
        value = Image.fromarray(_eight_bit(value[..., 0] if value.ndim == 3 and value.shape[-1] == 1 else value))
    if isinstance(value, Image.Image):
        _check_size(value, max_pixels)
        return to_rgb(value)
    encoded = value.get("bytes") if isinstance(value, dict) else value if isinstance(value, bytes) else None
    path = image_path(value)
    if encoded is None and path is None:
        raise ValueError(f"the image is {shortened(value)}")
    with _opened(BytesIO(encoded if encoded is not None else _content(path or ""))) as image:
        _check_size(image, max_pixels)
        image.load()
        return to_rgb(image)


def image_path(value: Any) -> str | None:
    """Return the path that a row gives for its image, where it gives one."""
    path = value.get("path") if isinstance(value, dict) else value
    return str(path) if isinstance(path, str | Path) else None


def is_remote(path: str) -> bool:
    """Whether a path is an address, such as `https://…`, `hf://…` or `zip://…`."""
    return "://" in path or path.startswith("data:")


def local_path(path: str) -> str:
    """A path as files are opened by, without the `file://` of an address."""
    return path.removeprefix("file://")


def check_regular_file(path: str) -> None:
    """Refuse what is no regular file: reading a named pipe or a device may never end.

    Raises:
        `ValueError`: Where it is something else.
        `OSError`: Where there is nothing.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}
        raise ValueError(f"it is {kinds.get(stat.S_IFMT(mode), 'a device')}, no regular file")


def _content(path: str) -> bytes:
    path = local_path(path)
    if is_remote(path):
        import fsspec

        with fsspec.open(path, "rb") as remote:
            return remote.read()
    check_regular_file(path)
    with open(path, "rb") as file:
        return file.read()


def _opened(file: BytesIO) -> Image.Image:
    """Open an image without decoding it, and without Pillow's limit, which is one for the whole process."""
    with _PILLOW_LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        except UnidentifiedImageError as error:
            # Pillow's own message names a place in memory.
            raise ValueError("it is no image of a known format" if file.getbuffer() else "it is empty") from error
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_size(image: Image.Image, most: int | None) -> None:
    if not all(image.size):
        raise ValueError(f"it has {image.width} × {image.height} pixels")
    if most is not None and image.width * image.height > most:
        raise ValueError(
            f"it has {image.width} × {image.height} = {image.width * image.height:,} pixels, more than "
            f"max_image_pixels {most:,}"
        )
    if most is not None and max(image.size) > MAX_RATIO * min(image.size):
        # Processors resize the shorter side: of one pixel and 100,000 they would make gigabytes.
        raise ValueError(
            f"it has {image.width} × {image.height} pixels, one side more than {MAX_RATIO:,} times the other"
        )


def _eight_bit(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8 or not pixels.size:
        return pixels
    if not np.isfinite(pixels).all():
        raise ValueError("the image holds NaN or infinite pixels")
    low, high = float(pixels.min()), float(pixels.max())
    integer = np.issubdtype(pixels.dtype, np.integer)
    if pixels.dtype == np.uint16:
        low, high = 0, 65535
    elif low >= 0 and (ranges := [top for top in ((255, 65535) if integer else (1, 255)) if high <= top]):
        low, high = 0, ranges[0]
    scaled = (pixels.astype(np.float64) - low) * (255 / max(high - low, 1e-12))
    return np.rint(scaled).astype(np.uint8)
