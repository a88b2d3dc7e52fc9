"""From samples to the tensors of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
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
            `[B, K, L]`, padded to the context length; `caption_ids` `[B, K]`, equal for equal captions only;
            `image_ids` and `views` `[B]`.
        """
        batch, per_image = len(samples), len(samples[0]["captions"])
        texts = self.tokenize([caption for sample in samples for caption in sample["captions"]])
        images = [sample["image"] for sample in samples]
        return {
            "pixel_values": self.pixel_values(images),
            **{name: values.view(batch, per_image, *values.shape[1:]) for name, values in texts.items()},
            "image_ids": torch.tensor([sample["image_id"] for sample in samples]),
            "views": torch.tensor([sample["view"] for sample in samples]),
        }

    def pixel_values(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Turn N RGB images into `[N, 3, H, W]`, float32, as the image processor does.

        Images that have the right size already need no resizing, so that a whole batch is normalised at once.
        """
        size = self.image_processor.crop_size
        if any(image.size != (size["width"], size["height"]) for image in images):
            return self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        processor = self.image_processor
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).contiguous()
        return pixels.float().mul_(processor.rescale_factor / std).sub_(mean / std)

    def tokenize(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Turn N captions into `input_ids` and `attention_mask` `[N, L]` and `caption_ids` `[N]`.

        Captions fill the whole context, so that every step has the same shape and costs what was planned.
        """
        texts = self.tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        ids = torch.tensor([caption_id(row) for row in texts["input_ids"].tolist()])
        return {"input_ids": texts["input_ids"], "attention_mask": texts["attention_mask"], "caption_ids": ids}


def caption_id(token_ids: Sequence[int]) -> int:
    """Return a 64-bit hash of a caption's token ids, the same in every process."""
    digest = hashlib.blake2b(" ".join(map(str, token_ids)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
