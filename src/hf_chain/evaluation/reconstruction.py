"""Evaluates one ViT-MAE on one split."""

from __future__ import annotations

import math
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, ViTMAEForPreTraining

from hf_chain.cost import masked_image_macs
from hf_chain.cost.macs import image_patches
from hf_chain.data.captions import with_stored_images
from hf_chain.errors import HfChainError
from hf_chain.evaluation.embed import image_batches
from hf_chain.evaluation.evaluate import Evaluation, require_columns, spread
from hf_chain.evaluation.zero_shot import check_rows
from hf_chain.images import MAX_IMAGE_PIXELS
from hf_chain.models.chain_mae import mask_noise
from hf_chain.module_modes import evaluation_mode


def evaluate_reconstruction(
    model: PreTrainedModel,
    image_processor: Any,
    dataset: Dataset,
    *,
    image_column: str = "image",
    batch_size: int = 256,
    max_samples: int | None = None,
    device: torch.device | str | None = None,
    bf16: bool = False,
    max_image_pixels: int | None = MAX_IMAGE_PIXELS,
) -> Evaluation:
    """Measures how well the pixels of hidden patches are drawn; which are hidden depends on the row alone.

    Runs without gradients and leaves every module in the mode it was in.

    Args:
        model (`PreTrainedModel`): A `ViTMAEForPreTraining`.
        image_processor (`BaseImageProcessor`): The image processor saved with the model.
        dataset (`datasets.Dataset`): The split; its images are read as in training.
        image_column (`str`): Column of images.
        batch_size (`int`): Images in one forward.
        max_samples (`int`, *optional*): Evaluate this many rows, spread evenly over the split.
        device (`torch.device`, *optional*): Where the model is; default: `model.device`.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.
        max_image_pixels (`int`, *optional*): Pixels above which an image is not read; `None` for any number.

    Returns:
        `Evaluation`: `reconstruction`, the mean of the model's own loss, of which less is better, and the cost.

    Raises:
        HfChainError: when an argument cannot be used, the column is missing, the loss is not finite, or an image
            cannot be read.
    """
    if not isinstance(model, ViTMAEForPreTraining):
        raise HfChainError(f"the model is a {type(model).__name__}: give a ViTMAEForPreTraining, which draws pixels")
    check_rows(dataset, batch_size, max_samples)
    require_columns(dataset, [image_column])
    rows = spread(len(dataset), max_samples)
    # Plain rows, whatever format the data set is set to.
    dataset = with_stored_images(dataset.with_format(None), image_column)
    device = torch.device(device if device is not None else model.device)
    total, done, patches = 0.0, 0, image_patches(model.config)
    with evaluation_mode(model), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for images in image_batches(dataset, image_column, rows, batch_size, max_image_pixels, "Drawing images"):
            inputs = image_processor(images=images, return_tensors="pt").to(device)
            noise = mask_noise(rows[done : done + len(images)], patches).to(device)
            total += len(images) * float(model(pixel_values=inputs["pixel_values"], noise=noise).loss)
            done += len(images)
    if not math.isfinite(total):
        raise HfChainError("The loss is not finite: training diverged; lower learning_rate or raise warmup_steps")
    macs = len(rows) * sum(masked_image_macs(model.config))
    return Evaluation({"reconstruction": total / len(rows)}, macs=macs, trials={"reconstruction": len(rows)})
