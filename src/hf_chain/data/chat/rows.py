"""What every chat source is turned into: one schema of rows, and a row with its images read."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, IterableDataset, LargeList, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from hf_chain.errors import HfChainError, shortened
from hf_chain.images import MAX_IMAGE_PIXELS, decode_image, image_path, is_remote

_LOOKED_AT = 100
"""Rows of a stored split that are looked at, of those that hold something in a column."""
_BATCH = 10_000
_NAME = re.compile(r"image|img|picture|photo|pixel|jpe?g|png", re.IGNORECASE)
_FILE = re.compile(r"\.(apng|avif|bmp|gif|heic|jp2|jpe?g|png|ppm|tiff?|webp)$", re.IGNORECASE)
_ENCODED = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\x00", b"MM\x00*")
_BASE64 = ("iVBORw0KGgo", "/9j/", "R0lGODdh", "R0lGODlh", "UklGR")
"""How PNG, JPEG, GIF and WebP begin in base64; words that begin as the two letters of the others do are many."""
_NO_IMAGES = ("id",)
"""Columns that may be named after files without being meant for reading."""


def looks_like_image(value: Any, name: str = "") -> bool:
    """Whether a value is an image, or says where one is.

    Args:
        value (`Any`): an image, pixels, an encoded file, a path, an address, `{"bytes", "path"}`, or a list of these.
        name (`str`, *optional*): of its column. What is called an image may be any path, bytes or list of numbers.
    """
    named = _NAME.search(name) is not None
    if isinstance(value, str):
        text = value.strip()
        if text.startswith(_BASE64) and " " not in text:
            return True
        if "\n" in text or text.startswith("data:image/"):
            return text.startswith("data:image/")
        path = text.partition("?")[0]
        # A sentence may end with the name of a file.
        return (path.count(" ") < 6 and bool(_FILE.search(path))) or (
            named and " " not in text and ("/" in text or len(text) > 200)
        )
    if isinstance(value, bytes):
        return value.startswith(_ENCODED) or (named and bool(value))
    if isinstance(value, Mapping):
        return any(looks_like_image(part, f"{name} {key}") for key, part in value.items())
    if isinstance(value, list | tuple):
        pixels = named and any(isinstance(part, list | tuple) and part for part in value)
        return pixels or any(looks_like_image(part, name) for part in value)
    return isinstance(value, Image.Image) or (isinstance(value, np.ndarray) and value.ndim > 1)


def check_row_is_read(row: Mapping[str, Any], read: Collection[str], images: str, source: str) -> None:
    """Refuse a row without images that has something like an image in a column that is not read.

    Args:
        row (`Mapping`): the row.
        read (`Collection[str]`): the columns that are read.
        images (`str`): the one that images are read from.
        source (`str`): whose row it is, for the message.

    Raises:
        `HfChainError`: naming the column and its value.
    """
    if row.get(images):
        return
    for name, value in row.items():
        if name not in read and name not in _NO_IMAGES and value is not None and looks_like_image(value, name):
            raise HfChainError(
                f"column {name!r} of {source} looks like an image, {shortened(value)}, and is not read, as images come"
                f" from {images!r}: set images_column, or leave the column out"
            )


def check_columns_are_read(rows: Dataset | IterableDataset, read: Collection[str], images: str, source: str) -> None:
    """Refuse a split with a column of images that is not read.

    Args:
        rows (`datasets.Dataset` or `datasets.IterableDataset`): the split, with images that are not decoded. Of a
            stream only the types are looked at.
        read (`Collection[str]`): the columns that are read.
        images (`str`): the one that images are read from.
        source (`str`): for the message.

    Raises:
        `HfChainError`: naming the column.
    """
    features = rows.features or Features()
    for name, feature in features.items():
        if name not in read and _holds_images(feature):
            raise HfChainError(
                f"column {name!r} of {source} holds images and is not read, as images come from {images!r}: set"
                " images_column, or leave the column out"
            )
    if isinstance(rows, Dataset):
        # Sounds and films take long to decode, and libraries that are no dependency.
        seen = [name for name, feature in features.items() if name == images or not hasattr(feature, "decode_example")]
        for name in seen:
            if name not in read:
                for row in rows.select_columns(list({name, images} & set(seen))).select(_filled(rows, name)):
                    check_row_is_read(row, read, images, source)


def _filled(rows: Dataset, name: str) -> list[int]:
    """The first rows that hold something in a column: in mixed sets that may be far behind."""
    found, start = [], 0
    for batch in rows.select_columns(name).with_format("arrow").iter(_BATCH):
        column = batch.column(name)
        held = pc.not_equal(column, "") if pa.types.is_string(column.type) else column.is_valid()
        found += [start + place for place in pc.indices_nonzero(held.combine_chunks()).to_pylist()]
        start += len(column)
        if len(found) >= _LOOKED_AT:
            break
    return found[:_LOOKED_AT]


def _holds_images(feature: Any) -> bool:
    if isinstance(feature, List | LargeList):
        return _holds_images(feature.feature)
    return isinstance(feature, ImageFeature) or (isinstance(feature, dict) and feature.keys() == {"bytes", "path"})


IMAGE_PLACEHOLDER = "<image>"
RULES = 3
"""How stored rows are read has changed so often; `datasets` remembers what was read by the rules that it is told."""

FEATURES = Features(
    {
        "messages": List({"role": Value("string"), "content": Value("string")}),
        "images": List(ImageFeature(decode=False)),
        "kind": Value("string"),
        "answers": List(Value("string")),
        "negatives": Value("string"),
    }
)
"""Columns of chat rows. The last three serve evaluation: what kind of question the last one is, which answers count as
right besides the response, and how the thing was chosen that a question with the answer *no* asks about."""

_TEXT_PARTS, _IMAGE_PARTS = ("text", "input_text", "output_text"), ("image", "image_url", "input_image")
_READ, _CALLS = ("role", "from", "content", "value"), ("tool_calls", "function_call")
"""What is read of a message, and what a message without content says."""
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant"}


@dataclass(frozen=True)
class ChatSample:
    """A conversation and the images that its placeholders stand for, in order.

    Args:
        messages (`list[dict[str, str]]`): Each with `role` (`system`, `user` or `assistant`) and `content`.
        images (`list[PIL.Image.Image]`): RGB images, one for each `<image>` in the messages.
    """

    messages: list[dict[str, str]]
    images: list[Image.Image] = field(default_factory=list)


def read_sample(row: Mapping[str, Any], max_pixels: int = MAX_IMAGE_PIXELS) -> ChatSample:
    """Read a row: its messages as role and text, its images decoded.

    Args:
        row (`Mapping`): A row as `FEATURES` describes it, whose messages may have any form of `plain_messages`.
        max_pixels (`int`, *optional*): Pixels above which an image is not decoded.

    Raises:
        `HfChainError`: Where it has no images but a column that looks like one, or a message holds what is not read.
        `Exception`: Whatever Pillow raises on a broken file; there is no common base class.
    """
    check_row_is_read(row, FEATURES, "images", "the row")
    return ChatSample(
        plain_messages(row["messages"]), [decode_image(image, max_pixels) for image in row.get("images") or []]
    )


def first_image_path(row: Mapping[str, Any]) -> str | None:
    """Return the path of the row's first image, where it has one."""
    return next((path for image in row.get("images") or [] if (path := image_path(image))), None)


def stored_images(value: Any, folder: str | Path) -> list[Any]:
    """The images of a row as `FEATURES` stores them.

    Args:
        value (`Any`): One image or a list, each a path, an encoded file, `{"bytes", "path"}`, `{"url"}`, or an image.
            `None` and what is empty is none.
        folder (`str` or `Path`): Where relative paths start from.

    Raises:
        `HfChainError`: Where it is something else.
    """
    values = value if isinstance(value, list | tuple) else [value]
    return [_stored_image(one, str(folder)) for one in values if _holds_something(one)]


def _stored_image(value: Any, folder: str) -> Any:
    if isinstance(value, Image.Image):
        return value
    given = value if isinstance(value, Mapping) else {"bytes" if isinstance(value, bytes) else "path": value}
    encoded, path = given.get("bytes"), given.get("path") or given.get("url")
    readable = isinstance(encoded, bytes | str | None) and isinstance(path, str | None)
    if not readable or (encoded is None and path is None):
        raise HfChainError(
            f"{shortened(value)} stands for an image and is none: give a path, the bytes of a file, or a dictionary of"
            " bytes and path"
        )
    if path is not None and encoded is None and not is_remote(path):
        path = str(Path(folder) / path)
    return {"path": path, "bytes": encoded}


def plain_messages(value: Any) -> list[dict[str, str]]:
    """Turn a conversation of any common form into role and text.

    Args:
        value (`list[dict]`): Messages with `role` and `content`, where the content is text, a number or a list of
            parts of type `image` and `text`; or LLaVA's `from` and `value`.

    Returns:
        `list[dict[str, str]]`: Stripped texts, images as `<image>`. What is no conversation gives an empty list, which
        the scan for bad rows reports.

    Raises:
        `HfChainError`: Where a message, its content or a part of it holds what is not read, such as an image.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    messages = []
    for message in value:
        if not isinstance(message, Mapping):
            return []
        _check_is_read(message)
        role = message.get("role") or message.get("from") or ""
        content = message.get("content") if message.get("content") is not None else message.get("value")
        messages.append({"role": _ROLES.get(role, role), "content": _plain_content(content)})
    return messages


def _check_is_read(message: Mapping[str, Any]) -> None:
    for name, value in message.items():
        if name in _READ or not _holds_something(value):
            continue
        if name in _CALLS or looks_like_image(value, name):
            raise HfChainError(
                f"a message has {name!r}, {shortened(value)}, which is not read: write calls of tools as text, and an"
                f" image as {IMAGE_PLACEHOLDER}, with the image itself in the column of images"
            )


def without_images(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The words of a conversation, without the placeholders of its images."""
    return [{**message, "content": message["content"].replace(IMAGE_PLACEHOLDER, "").strip()} for message in messages]


def _plain_content(content: Any) -> str:
    if content is None:
        return ""
    parts = content if isinstance(content, list | tuple) else [content]
    return "\n".join(_plain_part(part) for part in parts if part is not None).strip()


def _plain_part(part: Any) -> str:
    """Text of a content or of a part of it, which stored rows pad with fields that hold nothing."""
    if isinstance(part, Mapping):
        kind, given = part.get("type"), {name: value for name, value in part.items() if _holds_something(value)}
        given.pop("type", None)
        # The number of the image, in published sets.
        if kind in _IMAGE_PARTS and all(isinstance(value, Number) for value in given.values()):
            return IMAGE_PLACEHOLDER
        text = given.pop("text", None)
        unread = any(looks_like_image(value, name) for name, value in given.items()) or (given and text is None)
        if kind in (None, *_TEXT_PARTS) and not unread:
            return "" if text is None else _plain_part(text)
    elif isinstance(part, str):
        return part
    elif isinstance(part, Number) and not isinstance(part, bool):
        return str(part)
    raise HfChainError(
        f"a message holds {shortened(part)}, which is not read: write text, numbers, or an image as "
        '{"type": "image"} alone, with the image itself in the column of images'
    )


def _holds_something(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_something, value.values()))
    return value is not None and not (isinstance(value, str | bytes | list) and not value)
