"""Chat templates of language models, made to take images.

A language model's template expects the content of a message to be text. A prelude in the template's own language turns
typed content, such as `{"type": "image"}`, into text with placeholders; the template itself stays as it is. So every
tool that renders chat templates renders these, and the text is what the language model knows.
"""

from __future__ import annotations

import re
from typing import TypeVar

_BEGIN = "{#- images as text -#}"
_END = "{#- the language model's own template #}\n"
"""Ends with a line of its own, which transformers drops: the template's first line keeps its white space."""
_OLD_END = "{#- the language model's own template -#}"

_PRELUDE = """{#- images as text -#}
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set parts = namespace(texts=[]) -%}
{%- if message.content is string -%}
{%- set parts.texts = [message.content | replace(PLACEHOLDER, IMAGE)] -%}
{%- else -%}
{%- for part in message.content or [] -%}
{%- if part.type == "image" or part.type == "image_url" -%}
{%- set parts.texts = parts.texts + [IMAGE] -%}
{%- elif part.text is defined -%}
{%- set parts.texts = parts.texts + [part.text | replace(PLACEHOLDER, IMAGE)] -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- set flat.messages = flat.messages + [dict(message, content=parts.texts | join("\\n"))] -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""


Template = TypeVar("Template", str, "dict[str, str]", None)
"""One template, several by name, or none."""


def with_images(template: Template, placeholder: str, image: str | None = None) -> Template:
    """The template with images as text.

    Args:
        template (`str`, `dict[str, str]` or `None`): the language model's, with or without images.
        placeholder (`str`): what stands for an image in a message's text.
        image (`str`, *optional*): what an image becomes; the placeholder by default.

    Returns:
        What was given, as templates in which the parts of a message are joined by line breaks.
    """
    if template is None:
        return None
    if isinstance(template, dict):
        return {name: with_images(text, placeholder, image) for name, text in template.items()}
    image = placeholder if image is None else image
    words = {"PLACEHOLDER": repr(placeholder), "IMAGE": repr(image)}
    return re.sub("|".join(words), lambda found: words[found.group()], _PRELUDE) + _END + without_images(template)


def without_images(template: Template) -> Template:
    """The language model's own template."""
    if template is None:
        return None
    if isinstance(template, dict):
        return {name: without_images(text) for name, text in template.items()}
    if not template.startswith(_BEGIN):
        return template
    return template.partition(_END if _END in template else _OLD_END)[2]
