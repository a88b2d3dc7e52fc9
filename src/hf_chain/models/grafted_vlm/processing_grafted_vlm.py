"""Prompts and images, made ready for a grafted model."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import make_flat_list_of_images
from transformers.models.auto.processing_auto import AutoProcessor
from transformers.processing_utils import ProcessorMixin

from hf_chain.errors import HfChainError
from hf_chain.models.grafted_vlm.chat_template import with_images
from hf_chain.models.grafted_vlm.configuration_grafted_vlm import GraftedVLMConfig

BOUNDARY_TOKENS = 2
"""Image start and image end: positions of an image beside its own tokens."""


class GraftedVLMProcessor(ProcessorMixin):
    """Turns every image token of a prompt into the positions of its image, and tokenizes.

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
        super().__init__(image_processor, tokenizer, chat_template=template)

    def __call__(self, images: Any = None, text: str | list[str] | None = None, **kwargs: Any) -> BatchFeature:
        """Makes a batch.

        Args:
            images (`PIL.Image`, array, tensor, `list` or nested `list`, *optional*): the images in the order of the
                image tokens, batched ones `[N, 3, H, W]` too; a list for each prompt checks each prompt by itself.
            text (`str` or `list[str]`, *optional*): prompts, each with an image token where an image stands.
            kwargs: for the tokenizer and the image processor, such as `padding` and `return_tensors`.

        Returns:
            `BatchFeature`: `input_ids` and `attention_mask` `[B, L]`; `pixel_values` `[N, 3, H, W]` with images.

        Raises:
            HfChainError: when prompts and images do not fit each other.
        """
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
        flat = [] if empty else make_flat_list_of_images(self.image_processor.fetch_images(images))
        self._check(sum(prompt.count(self.image_token) for prompt in prompts), len(flat), "the batch")
        # Rendered chats begin with the mark that the tokenizer would add once more.
        mark = getattr(self.tokenizer, "bos_token", None)
        if mark and prompts and all(prompt.startswith(mark) for prompt in prompts):
            kwargs.setdefault("add_special_tokens", False)
        return super().__call__(images=flat or None, text=text, **kwargs)

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


AutoProcessor.register(GraftedVLMConfig, GraftedVLMProcessor, exist_ok=True)
