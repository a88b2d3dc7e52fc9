"""Pixels are those of the image processor, bit for bit, whatever it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, ViTImageProcessorPil

from hf_chain.data.collator import DirectPixels, ImageCollator

SIZES = [(64, 64), (65, 64), (64, 97), (300, 201), (201, 300), (31, 47), (1000, 5), (7, 7), (128, 64), (1, 1)]


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def processor_of(side: int = 64, **options: object) -> CLIPImageProcessorPil:
    values = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}} | options
    return CLIPImageProcessorPil(**values)


@pytest.mark.parametrize(
    ("options", "direct"),
    [
        ({}, True),
        ({"side": 224}, True),
        ({"side": 33}, True),
        ({"size": {"shortest_edge": 80}}, True),
        ({"crop_size": {"height": 48, "width": 64}}, True),
        ({"resample": Image.Resampling.BILINEAR, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}, True),
        ({"size": {"shortest_edge": 48}}, False),
        ({"size": {"height": 64, "width": 64}}, True),
        ({"size": {"height": 80, "width": 80}}, False),
        ({"rescale_factor": 1 / 127.5}, True),
        ({"do_normalize": False}, False),
        ({"do_rescale": False}, False),
        ({"do_resize": False}, False),
    ],
)
def test_numbers_are_those_of_the_processor(options: dict[str, object], direct: bool) -> None:
    processor = processor_of(**options)
    assert (DirectPixels.of(processor) is not None) == direct
    collator = ImageCollator(processor)
    for size in SIZES:
        expected = processor(images=noise(*size), return_tensors="pt")["pixel_values"]
        assert torch.equal(collator.pixel_values([noise(*size)]), expected), size
    together = collator.pixel_values([noise(*size) for size in SIZES])
    assert torch.equal(together[-1:], expected) and together.dtype == torch.float32


def test_numbers_are_those_of_a_processor_that_resizes_to_one_shape() -> None:
    processor = ViTImageProcessorPil(size={"height": 48, "width": 64})
    assert DirectPixels.of(processor) is not None
    for size in SIZES:
        expected = processor(images=noise(*size), return_tensors="pt")["pixel_values"]
        assert torch.equal(ImageCollator(processor).pixel_values([noise(*size)]), expected), size


def test_images_of_other_modes_go_to_the_processor() -> None:
    processor, grey = processor_of(), noise(50, 40).convert("L")
    expected = processor(images=[grey, noise(9, 9)], return_tensors="pt")["pixel_values"]
    assert torch.equal(ImageCollator(processor).pixel_values([grey, noise(9, 9)]), expected)
