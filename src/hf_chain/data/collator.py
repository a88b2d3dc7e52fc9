"""From samples to the tensors of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from transformers import CLIPProcessor


class ImageTextCollator:
    """Turns samples of `ImageTextDataset` into a batch with the very processor that users of the model get.

    Args:
        processor (`transformers.CLIPProcessor`): Image processor and tokenizer of the model.
        max_length (`int`, *optional*): Context length in tokens; the tokenizer's own by default.
    """

    def __init__(self, processor: CLIPProcessor, max_length: int | None = None) -> None:
        self.image_processor = processor.image_processor
        self.tokenizer = processor.tokenizer
        self.max_length = max_length or self.tokenizer.model_max_length

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate samples with K captions each.

        Args:
            samples (`Sequence[dict]`): B samples.

        Returns:
            `dict[str, torch.Tensor]`: `pixel_values` `[B, 3, H, W]` float32; `input_ids` and `attention_mask`
            `[B, K, L]`, padded to the longest caption; `caption_ids` `[B, K]`, equal for equal captions only;
            `image_ids` and `views` `[B]`.
        """
        batch, per_image = len(samples), len(samples[0]["captions"])
        captions = [caption for sample in samples for caption in sample["captions"]]
        tokens = self.tokenizer(captions, truncation=True, max_length=self.max_length)["input_ids"]
        padded = self.tokenizer.pad({"input_ids": tokens}, padding="longest", return_tensors="pt")
        images = [sample["image"] for sample in samples]
        return {
            "pixel_values": self.image_processor(images=images, return_tensors="pt")["pixel_values"],
            "input_ids": padded["input_ids"].view(batch, per_image, -1),
            "attention_mask": padded["attention_mask"].view(batch, per_image, -1),
            "caption_ids": torch.tensor([caption_id(ids) for ids in tokens]).view(batch, per_image),
            "image_ids": torch.tensor([sample["image_id"] for sample in samples]),
            "views": torch.tensor([sample["view"] for sample in samples]),
        }


def caption_id(token_ids: Sequence[int]) -> int:
    """Return a 64-bit hash of a caption's token ids, the same in every process."""
    digest = hashlib.blake2b(" ".join(map(str, token_ids)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
