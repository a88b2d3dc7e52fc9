"""From chat rows to the tensors of a batch, padded or packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from hf_chain.data.chat.encoder import ChatEncoder, EncodedChat
from hf_chain.data.chat.reweighting import ResponseReweighting
from hf_chain.data.chat.rows import first_image_path, read_sample
from hf_chain.data.collator import DirectPixels
from hf_chain.errors import HfChainError, shortened
from hf_chain.losses.response import IGNORED


class ChatCollator:
    """Turns chat rows into a batch with the processor that users of the model get.

    Args:
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): A `GraftedVLMProcessor`, or a tokenizer for text
            alone.
        max_length (`int`, *optional*): Tokens from which on a conversation is cut; the tokenizer's own by default.
        special_tokens_in_loss (`bool`, *optional*, defaults to `True`): Whether header and end mark of a response are
            in the loss, or its content alone.
        image_prompts (`bool`, *optional*, defaults to `False`): Put one of thirty wordings around every image.
        reweighting (`ResponseReweighting`, *optional*): Larger weights for short responses about images.
        packing (`bool`, *optional*, defaults to `False`): Lay all conversations of a batch in one sequence without
            padding, instead of one row each. Losses and gradients are the same; see `check_packing`.
        seed (`int`, *optional*, defaults to 0): Seed of the image wordings.

    Raises:
        `HfChainError`: Where the tokenizer has no chat template.

    Example:
        ```python
        >>> collate = ChatCollator(processor, max_length=2048)
        >>> train = check_chat(load_chat(settings)["train"], collate.encoder)
        >>> batch = collate([train[0], train[1]])
        ```
    """

    def __init__(
        self,
        processor: Any,
        *,
        max_length: int | None = None,
        special_tokens_in_loss: bool = True,
        image_prompts: bool = False,
        reweighting: ResponseReweighting | None = None,
        packing: bool = False,
        seed: int = 0,
    ) -> None:
        self.encoder = ChatEncoder(
            processor,
            max_length=max_length,
            special_tokens_in_loss=special_tokens_in_loss,
            image_prompts=image_prompts,
            reweighting=reweighting,
            seed=seed,
        )
        self.packing = packing

    def __call__(self, rows: Sequence[Mapping[str, Any] | Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
        """Collate chat rows, or packs of them.

        Args:
            rows (`Sequence[Mapping]`): Rows with `messages` and `images`, or lists of rows from `pack_rows`.

        Returns:
            `dict[str, torch.Tensor]`: `input_ids` and `labels` `[B, L]`, -100 outside of the loss; `pixel_values`
            `[N, 3, H, W]` of all images in order, and what else the image processor gives, absent where there are
            none; `loss_weights` `[B, L]` float32 where
            responses are re-weighted. Padded batches have `attention_mask` `[B, L]`; packed ones have B = 1,
            `position_ids` `[1, L]` that restart with each conversation, and `use_cache` `False`, as attention is kept
            within conversations only where there is neither a mask nor a cache.

        Raises:
            `HfChainError`: Where a row cannot be used.
        """
        encoded, images = [], []
        for row in (one for entry in rows for one in ([entry] if isinstance(entry, Mapping) else entry)):
            try:
                sample = read_sample(row)
                encoded.append(self.encoder.encode(sample.messages, sample.images))
            except Exception as error:  # Pillow's decoders raise errors of every kind.
                raise HfChainError(f"{_name(row)} cannot be used, {error}; drop it with check_chat") from error
            images += sample.images
        batch = self._packed(encoded) if self.packing else self._padded(encoded)
        if images:
            batch.update(self._image_inputs(images))
        return batch

    def _image_inputs(self, images: Sequence[Image.Image]) -> Mapping[str, Any]:
        if self._direct is None or any(image.mode != "RGB" for image in images):
            return self.encoder.processor.image_processor(images=list(images), return_tensors="pt")
        return {"pixel_values": self._direct(images)}

    @cached_property
    def _direct(self) -> DirectPixels | None:
        return DirectPixels.of(self.encoder.processor.image_processor)

    def _padded(self, encoded: Sequence[EncodedChat]) -> dict[str, Any]:
        width = max(len(chat.input_ids) for chat in encoded)
        pad = self.encoder.tokenizer.pad_token_id or 0
        batch = {
            "input_ids": torch.tensor([_fill(chat.input_ids, width, pad) for chat in encoded]),
            "attention_mask": torch.tensor([_fill([1] * len(chat.input_ids), width, 0) for chat in encoded]),
            "labels": torch.tensor([_fill(chat.labels, width, IGNORED) for chat in encoded]),
        }
        if self.encoder.reweighting is not None:
            batch["loss_weights"] = torch.tensor([_fill(chat.weights, width, 0.0) for chat in encoded])
        return batch

    def _packed(self, encoded: Sequence[EncodedChat]) -> dict[str, Any]:
        batch: dict[str, Any] = {
            "input_ids": torch.tensor([[token for chat in encoded for token in chat.input_ids]]),
            "position_ids": torch.cat([torch.arange(len(chat.input_ids)) for chat in encoded])[None],
            "labels": torch.tensor([[label for chat in encoded for label in chat.labels]]),
            "use_cache": False,
        }
        if self.encoder.reweighting is not None:
            batch["loss_weights"] = torch.tensor([[weight for chat in encoded for weight in chat.weights]])
        return batch


def _fill(values: list[Any], width: int, value: Any) -> list[Any]:
    return values + [value] * (width - len(values))


def _name(row: Mapping[str, Any]) -> str:
    """Path of the row's first image, or how its conversation begins."""
    path = first_image_path(row)
    if path:
        return f"the row with image {path}"
    first = next(iter(row.get("messages") or []), "")
    return f"the row that begins with {shortened(first.get('content') if isinstance(first, Mapping) else first)}"
