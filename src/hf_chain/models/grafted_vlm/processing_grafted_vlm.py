"""Prompts and images, made ready for a grafted model."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import make_flat_list_of_images
from transformers.models.auto.processing_auto import AutoProcessor
from transformers.processing_utils import ProcessorMixin

from hf_chain.content_parts import takes_parts
from hf_chain.errors import HfChainError, reason, shortened
from hf_chain.images import decode_image, is_remote
from hf_chain.models.grafted_vlm.configuration_grafted_vlm import GraftedVLMConfig
from hf_chain.models.grafted_vlm.language_models import padding_left

_BEGIN = "{#- images as text -#}"
_END = "{#- the language model's own template #}\n"
"""Ends with a line of its own, which transformers drops: the template's first line keeps its white space."""
_OLD_END = "{#- the language model's own template -#}"

_TEXT = 'parts.texts | join("\\n")'
_PARTS = f'[{{"type": "text", "text": {_TEXT}}}]'

_PRELUDE = """{#- images as text -#}
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set parts = namespace(texts=[]) -%}
{%- if message.content is string or message.content is number -%}
{%- set parts.texts = [message.content | string | replace(PLACEHOLDER, IMAGE)] -%}
{%- else -%}
{%- for part in message.content or [] -%}
{%- if part is string or part is number -%}
{%- set parts.texts = parts.texts + [part | string | replace(PLACEHOLDER, IMAGE)] -%}
{%- elif part.type == "image" or part.type == "image_url" -%}
{%- set parts.texts = parts.texts + [IMAGE] -%}
{%- elif part.text is defined and part.text is not none -%}
{%- set parts.texts = parts.texts + [part.text | string | replace(PLACEHOLDER, IMAGE)] -%}
{%- elif part.type != "text" -%}
{{- raise_exception("a message has a part of type " ~ part.type ~ ", which is not read: write text and images") -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- set flat.messages = flat.messages + [dict(message, content=CONTENT)] -%}
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
    own = without_images(template)
    words = {"PLACEHOLDER": repr(placeholder), "IMAGE": repr(image), "CONTENT": _PARTS if takes_parts(own) else _TEXT}
    return re.sub("|".join(words), lambda found: words[found.group()], _PRELUDE) + _END + own


def without_images(template: Template) -> Template:
    """The language model's own template."""
    if template is None:
        return None
    if isinstance(template, dict):
        return {name: without_images(text) for name, text in template.items()}
    if not template.startswith(_BEGIN):
        return template
    return template.partition(_END if _END in template else _OLD_END)[2]


BOUNDARY_TOKENS = 2
"""Image start and image end: positions of an image beside its own tokens."""


class GraftedVLMProcessor(ProcessorMixin):
    """Turns every image token of a prompt into the positions of its image, and tokenizes.

    The tokenizer pads on the left from then on, as an answer goes on where its prompt ends; `padding_side="right"` in
    a call pads on the right.

    Args:
        image_processor (`BaseImageProcessor`): of the vision tower.
        tokenizer (`PreTrainedTokenizerBase`): of the language model; it knows the image token.
        chat_template (`str`, *optional*): the template of chats; the tokenizer's own by default. Messages may hold
            `{"type": "image"}` or the image token in their text.
        image_token (`str`): what stands for an image in a prompt.
        tokens_per_image (`int`, *optional*): tokens the vision tower makes of an image; `None` for NaFlex towers,
            which tell for each image.

    Raises:
        HfChainError: when the tokenizer does not know the image token.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_token: str = "<image>",
        tokens_per_image: int | None = None,
    ) -> None:
        found = tokenizer.get_vocab().get(image_token)
        if found is None:
            raise HfChainError(
                f"the tokenizer has no image token {image_token!r}: add it with tokenizer.add_tokens, or build the"
                " processor with from_parts, which does"
            )
        self.image_token, self.image_token_id, self.tokens_per_image = image_token, found, tokens_per_image
        template = with_images(chat_template or tokenizer.chat_template, image_token)
        super().__init__(image_processor, padding_left(tokenizer), chat_template=template)

    def __call__(self, images: Any = None, text: str | list[str] | None = None, **kwargs: Any) -> BatchFeature:
        """Makes a batch.

        Args:
            images (`PIL.Image`, array, tensor, path, URL, base64, `list` or nested `list`, *optional*): the images in
                the order of the image tokens, batched ones `[N, 3, H, W]` too; a list for each prompt checks each
                prompt by itself. They are read as in training: upright, transparency over white, arrays `[H, W, 3]` of
                any depth in eight bits unless `do_rescale` is off; tensors and arrays `[3, H, W]` as they are.
            text (`str` or `list[str]`, *optional*): prompts, each with an image token where an image stands.
            kwargs: for the tokenizer and the image processor, such as `padding` and `return_tensors`.

        Returns:
            `BatchFeature`: `input_ids` and `attention_mask` `[B, L]`; `pixel_values` `[N, 3, H, W]` with images.

        Raises:
            HfChainError: when prompts and images do not fit each other, or an image cannot be read.
        """
        images = _read(images, kwargs.get("do_rescale", True))
        if text is None:
            return super().__call__(images=images, **kwargs)
        prompts = [text] if isinstance(text, str) else list(text)
        nested = images if isinstance(images, (list, tuple)) else []
        if any(isinstance(row, (list, tuple)) or row is None for row in nested):
            rows = [[] if row is None else list(row) for row in nested]
            if len(rows) != len(prompts):
                raise HfChainError(f"{len(rows)} lists of images for {len(prompts)} prompts: give one list a prompt")
            for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
                self._check(prompt.count(self.image_token), len(row), f"prompt {number}")
            images = [image for row in rows for image in row]
        empty = images is None or (isinstance(images, (list, tuple)) and not images)
        flat = [] if empty else make_flat_list_of_images(images)
        self._check(sum(prompt.count(self.image_token) for prompt in prompts), len(flat), "the batch")
        # Rendered chats begin with the mark that the tokenizer would add once more.
        mark = getattr(self.tokenizer, "bos_token", None)
        if mark and prompts and all(prompt.startswith(mark) for prompt in prompts):
            kwargs.setdefault("add_special_tokens", False)
        return super().__call__(images=flat or None, text=text, **kwargs)

    @property
    def text_template(self) -> Any:
        """The template of chats for messages whose content is text with image tokens: the language model's own."""
        return without_images(self.chat_template)

    def apply_chat_template(self, conversation: Any, chat_template: str | None = None, **kwargs: Any) -> Any:
        """Renders a chat as a prompt; with `tokenize=True` and `return_dict=True` makes a batch of it.

        The tokens are those of training: what the template writes, and no mark that the tokenizer would add.

        Args:
            conversation (`list[dict]` or `list[list[dict]]`): messages, whose content is text with image tokens, or
                parts such as `{"type": "image"}` and `{"type": "text", "text": "…"}`.
            chat_template (`str`, *optional*): another template than the processor's.
            kwargs: as in `ProcessorMixin.apply_chat_template`.

        Raises:
            HfChainError: when there is no template.
        """
        if chat_template is None and self.chat_template is None:
            raise HfChainError(
                "the tokenizer has no chat template: give chat_template= to from_parts, or write the prompt yourself"
            )
        if chat_template is not None and "{" in chat_template:
            chat_template = with_images(chat_template, self.image_token)
        if kwargs.get("tokenize"):
            kwargs["processor_kwargs"] = {"add_special_tokens": False} | (kwargs.get("processor_kwargs") or {})
        return super().apply_chat_template(conversation, chat_template=chat_template, **kwargs)

    def _check(self, placeholders: int, images: int, where: str) -> None:
        if placeholders != images:
            remedy = "give the missing images" if placeholders > images else f"put an {self.image_token} for each"
            raise HfChainError(f"{where} has {placeholders} {self.image_token} but {images} images: {remedy}")

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """The text that takes the place of an image token: one token for each position of its image."""
        tokens = self.tokens_per_image
        if tokens is None:
            tokens = int(np.prod(np.asarray(image_inputs["spatial_shapes"][image_idx])))
        return self.image_token * (tokens + BOUNDARY_TOKENS)


def _read(images: Any, rescaled: bool) -> Any:
    """Images as training reads them, in the lists they came in; arrays of RGB only where they will be rescaled."""
    if isinstance(images, (list, tuple)):
        return [_read(image, rescaled) for image in images]
    try:
        if isinstance(images, str) and not is_remote(images) and not os.path.exists(images):
            return decode_image(_from_base64(images))
        if isinstance(images, (str, bytes, Path, Mapping, Image.Image)) or _is_to_be_read(images, rescaled):
            return decode_image(images)
    except Exception as error:  # Pillow's decoders raise errors of every kind.
        message = f"image {shortened(images)} cannot be read, {reason(error)}: give a picture's file"
        raise HfChainError(message) from error
    return images


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise ValueError("there is no such file") from error


def _is_to_be_read(image: Any, rescaled: bool) -> bool:
    """Whether it is an array of one image that image processors do not read: with grey, alpha, or another depth."""
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
        return False
    rgb = image.ndim == 3 and image.shape[-1] == 3
    return image.dtype != np.uint8 and rescaled if rgb else image.ndim == 2 or image.shape[-1] in (1, 2, 4)


AutoProcessor.register(GraftedVLMConfig, GraftedVLMProcessor, exist_ok=True)
