"""Whether a chat template takes the content of a message as text, or as a list of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

_MARKS = {"user": "\ue000", "assistant": "\ue001"}
_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


def in_parts(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages whose text is the only part of their content."""
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


@cache
def takes_parts(template: str) -> bool:
    """Whether a template writes more of a conversation in parts than of one in plain texts.

    Templates that loop over parts, such as those of LLaVA-1.5 and SmolVLM, find none in a text, and leave it out
    without a word.

    Args:
        template (`str`): any chat template.
    """
    messages = [{"role": role, "content": mark} for role, mark in _MARKS.items()]
    return _written(template, in_parts(messages)) > _written(template, messages)


def _written(template: str, messages: list[dict[str, Any]]) -> int:
    """How many of the messages a template writes."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        rendered, _ = render_jinja_template([messages], chat_template=template, **dict.fromkeys(_TOKENS, ""))
    except Exception:  # What a template computes may fail in any way; then it writes nothing.
        return 0
    # A template that takes texts prints a list as it is.
    return sum(mark in rendered[0] and f"'text': '{mark}'" not in rendered[0] for mark in _MARKS.values())
