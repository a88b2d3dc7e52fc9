"""What every chat source is turned into: one schema of rows, and a row with its images read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from hf_chain.data.images import decode_image, image_path

IMAGE_PLACEHOLDER = "<image>"

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


def read_sample(row: Mapping[str, Any]) -> ChatSample:
    """Decode the images of a row.

    Args:
        row (`Mapping`): A row as `FEATURES` describes it.

    Raises:
        `Exception`: Whatever Pillow raises on a broken file; there is no common base class.
    """
    return ChatSample(list(row["messages"]), [decode_image(image) for image in row.get("images") or []])


def first_image_path(row: Mapping[str, Any]) -> str | None:
    """Return the path of the row's first image, where it has one."""
    return next((path for image in row.get("images") or [] if (path := image_path(image))), None)


def plain_messages(value: Any) -> list[dict[str, str]]:
    """Turn a conversation of any common form into role and text.

    Args:
        value (`list[dict]`): Messages with `role` and `content`, where the content is text or a list of parts of type
            `image` and `text`; or LLaVA's `from` and `value`.

    Returns:
        `list[dict[str, str]]`: Stripped texts, images as `<image>`. What is no conversation gives an empty list, which
        the scan for bad rows reports.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    messages = []
    for message in value:
        if not isinstance(message, Mapping):
            return []
        role = message.get("role") or message.get("from") or ""
        content = message.get("content") if message.get("content") is not None else message.get("value")
        messages.append({"role": _ROLES.get(role, role), "content": _plain_content(content)})
    return messages


def without_images(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The words of a conversation, without the placeholders of its images."""
    return [{**message, "content": message["content"].replace(IMAGE_PLACEHOLDER, "").strip()} for message in messages]


def _plain_content(content: Any) -> str:
    if isinstance(content, str):
        return content.strip()
    if not isinstance(content, Sequence):
        return ""
    parts = []
    for part in content:
        if isinstance(part, Mapping):
            text = IMAGE_PLACEHOLDER if part.get("type") in ("image", "image_url") else part.get("text")
            parts.append(text or "")
    return "\n".join(parts).strip()
