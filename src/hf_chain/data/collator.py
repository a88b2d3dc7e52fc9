"""From samples to the tensors of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import CLIPProcessor


class ImageCollator:
    """Turns samples of `ImageDataset` into a batch with the very processor that users of the model get.

    Args:
        image_processor (`transformers.BaseImageProcessor`): Image processor of the model.
    """

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate samples.

        Args:
            samples (`Sequence[dict]`): B samples.

        Returns:
            `dict[str, torch.Tensor]`: `pixel_values` `[B, 3, H, W]` float32; `image_ids` and `views` `[B]`; `labels`
            `[B]`, class numbers, where the samples have them, or `[B, C]`, 1.0 for each class where they may have
            several.
        """
        batch = {
            "pixel_values": self.pixel_values([sample["image"] for sample in samples]),
            "image_ids": torch.tensor([sample["image_id"] for sample in samples]),
            "views": torch.tensor([sample["view"] for sample in samples]),
        }
        if all("label" in sample for sample in samples):
            batch["labels"] = torch.tensor([sample["label"] for sample in samples])
        return batch

    def pixel_values(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Turn N RGB images into `[N, 3, H, W]`, float32, as the image processor does."""
        if self._direct is None or any(image.mode != "RGB" for image in images):
            return self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        return self._direct(images)

    @cached_property
    def _direct(self) -> DirectPixels | None:
        return DirectPixels.of(self.image_processor)


class ImageTextCollator(ImageCollator):
    """Turns samples of `ImageTextDataset` into a batch with the very processor that users of the model get.

    Args:
        processor (`transformers.CLIPProcessor`): Image processor and tokenizer of the model.
        max_length (`int`, *optional*): Context length in tokens; the tokenizer's own by default.
    """

    def __init__(self, processor: CLIPProcessor, max_length: int | None = None) -> None:
        super().__init__(processor.image_processor)
        self.tokenizer = processor.tokenizer
        self.max_length = max_length or self.tokenizer.model_max_length

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate samples with K captions each.

        Args:
            samples (`Sequence[dict]`): B samples.

        Returns:
            `dict[str, torch.Tensor]`: what `ImageCollator` gives; `input_ids` and, where the tokenizer makes one,
            `attention_mask` `[B, K, L]`, padded to the context length; `caption_ids` `[B, K]`, equal for equal
            captions only.
        """
        batch, per_image = len(samples), len(samples[0]["captions"])
        texts = self.tokenize([caption for sample in samples for caption in sample["captions"]])
        return super().__call__(samples) | {
            name: values.view(batch, per_image, *values.shape[1:]) for name, values in texts.items()
        }

    def tokenize(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Turn N captions into what the tokenizer makes of them, `[N, L]` each, and `caption_ids` `[N]`.

        Captions fill the whole context, so that every step has the same shape and costs what was planned.
        """
        texts = self.tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        ids = torch.tensor([caption_id(row) for row in texts["input_ids"].tolist()])
        return {**texts, "caption_ids": ids}


def caption_id(token_ids: Sequence[int]) -> int:
    """Return a 64-bit hash of a caption's token ids, the same in every process."""
    digest = hashlib.blake2b(" ".join(map(str, token_ids)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class DirectPixels:
    """Resize, scale and normalise, bit for bit as an image processor does.

    Args:
        processor (`transformers.BaseImageProcessor`): What has to be equalled: one that resizes the shorter side and
            cuts the centre, as CLIP's, or resizes to one shape, as ViT's.
    """

    def __init__(self, processor: Any) -> None:
        size = dict(processor.size)
        self.side: int | None = size.get("shortest_edge")
        result = size if self.side is None else processor.crop_size
        self.crop: tuple[int, int] = (result["width"], result["height"])
        self.resample = processor.resample
        # Division by 255 is what multiplication by 1 / 255 in double precision rounds to.
        self.divisor = 1 / processor.rescale_factor
        self.mean, self.std = (
            torch.tensor(values, dtype=torch.float32).view(3, 1, 1)
            for values in (processor.image_mean, processor.image_std)
        )

    @classmethod
    def of(cls, processor: Any) -> DirectPixels | None:
        """Return what equals a processor, or `None` where trying finds that this does not.

        Args:
            processor (`transformers.BaseImageProcessor`): Any image processor.
        """
        try:
            direct = cls(processor)
            expected = [processor(images=image, return_tensors="pt") for image in direct._probes()]
            found = direct(direct._probes())
            same = (
                set(other) == {"pixel_values"} and torch.equal(other["pixel_values"][0], own)
                for other, own in zip(expected, found, strict=True)
            )
            return direct if all(same) else None
        except Exception:  # Processors of other kinds differ in more than their numbers.
            return None

    def __call__(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Turn N images of mode `RGB` into `[N, 3, H, W]`, float32."""
        pixels = torch.empty(len(images), 3, *reversed(self.crop))
        for image, target in zip(images, pixels, strict=True):
            rows = torch.from_numpy(np.array(self._cut(image)))
            target.copy_(rows.permute(2, 0, 1)).div_(self.divisor).sub_(self.mean).div_(self.std)
        return pixels

    def _cut(self, image: Image.Image) -> Image.Image:
        if self.side is None:
            return image if image.size == self.crop else image.resize(self.crop, self.resample)
        short, long = sorted(image.size)
        long = int(self.side * long / short)
        size = (self.side, long) if image.width <= image.height else (long, self.side)
        if image.size != size:
            image = image.resize(size, self.resample)
        if size == self.crop:
            return image
        width, height = self.crop
        if width > size[0] or height > size[1]:
            raise ValueError("the processor pads")
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        return image.crop((left, top, left + width, top + height))

    def _probes(self) -> list[Image.Image]:
        """All values of a channel at the size of the result, and noise that is wide, tall, and of odd sides."""
        width, height = self.crop
        values = np.arange(width * height * 3, dtype=np.int64).reshape(height, width, 3)
        noise = np.random.default_rng(0).integers(0, 256, (61, 83, 3))
        arrays = [values // 3 % 256, noise, noise.transpose(1, 0, 2)]
        return [Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8)) for array in arrays]
