"""Pooled features of vision towers: what their families' own heads read of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel

from hf_chain.cost.macs import encoder_macs
from hf_chain.data.captions import with_stored_images
from hf_chain.errors import HfChainError
from hf_chain.evaluation.embed import image_batches
from hf_chain.families import Family, family_of
from hf_chain.images import MAX_IMAGE_PIXELS
from hf_chain.module_modes import evaluation_mode


@dataclass(frozen=True)
class ImageTower:
    """The vision tower of a model, and what is read of it.

    Args:
        model (`PreTrainedModel`): The tower, sharing its weights with the model that it is of.
        family (`Family`): Its family.
        macs (`int`): Multiply-accumulate operations of an image.
    """

    model: PreTrainedModel
    family: Family
    macs: int

    def pooled(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Features of a batch `[B, D]`.

        That is the `pooler_output` of CLIP, SigLIP, DINOv2, Swin and ConvNeXt, the class token behind the last norm of
        ViT, DeiT and ViT-MAE, whose own classifiers read that, and the mean of the tokens where there is neither.
        """
        output = self.model(**inputs)
        pooled: torch.Tensor | None = getattr(output, "pooler_output", None)
        # The pooler of a ViT is a layer that most checkpoints leave untrained.
        if pooled is not None and self.family.pooled != "units":
            return pooled.flatten(1)
        tokens: torch.Tensor = output.last_hidden_state
        image = self.family.image
        return tokens[:, 0] if image is not None and image.class_tokens else tokens.mean(1)


def image_tower(model: Any) -> ImageTower:
    """The vision tower of a model: of a CLIP or another dual encoder, a vision model with a head or without.

    A ViT-MAE gives its encoder as a ViT, which sees all patches.

    Args:
        model (`PreTrainedModel`): The model.

    Raises:
        HfChainError: for a model without a vision tower, or one whose images are lists of patches (NaFlex).
    """
    tower = None
    if isinstance(model, PreTrainedModel):
        family = family_of(model.config)
        tower = getattr(model, "vision_model", None) if family.kind == "dual" else model.base_model
    if tower is None or not has_vision_tower(tower.config):
        raise HfChainError(f"the model is a {type(model).__name__}, which has no vision tower: give a CLIP or a ViT")
    if getattr(tower.config, "image_size", None) is None:
        raise HfChainError(
            f"the model is a {type(model).__name__}, which takes lists of patches: give one of fixed size"
        )
    if tower.config.model_type == "vit_mae":
        tower = _as_vit(tower)
    return ImageTower(tower, family_of(tower.config), encoder_macs(tower.config))


def has_vision_tower(config: Any) -> bool:
    """Whether images enter a model of a family.

    Args:
        config (`PreTrainedConfig`): Its configuration.

    Raises:
        HfChainError: when no family describes it.
    """
    weights = (weight for stream in family_of(config).streams for weight in stream.outer.values())
    return any("colour" in weight.axes for weight in weights)


def _as_vit(encoder: PreTrainedModel) -> PreTrainedModel:
    from transformers import ViTConfig, ViTModel

    own = encoder.config.to_dict()
    config = ViTConfig(**{name: own[name] for name in ViTConfig().to_dict() if name in own and name != "model_type"})
    with torch.device("meta"):
        tower: PreTrainedModel = ViTModel(config, add_pooling_layer=False)
    tower.load_state_dict(encoder.state_dict(), assign=True)
    return tower.train(encoder.training)


def embed_images(
    tower: ImageTower,
    image_processor: Any,
    dataset: Dataset,
    rows: Sequence[int],
    *,
    image_column: str = "image",
    batch_size: int = 256,
    device: torch.device | str | None = None,
    bf16: bool = False,
    max_image_pixels: int | None = MAX_IMAGE_PIXELS,
    head: nn.Module | None = None,
) -> torch.Tensor:
    """Pooled features of rows, each image embedded once, without gradients and in evaluation mode.

    Args:
        tower (`ImageTower`): The tower.
        image_processor (`BaseImageProcessor` or `ProcessorMixin`): What was saved with the model.
        dataset (`datasets.Dataset`): A split; its images are read as in training.
        rows (`Sequence[int]`): Numbers of its rows.
        image_column (`str`): Column of images.
        batch_size (`int`): Images in one forward.
        device (`torch.device`, *optional*): Where the tower is; default: `tower.model.device`.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.
        max_image_pixels (`int`, *optional*): Pixels above which an image is not read; `None` for any number.
        head (`nn.Module`, *optional*): What is put on top of the features.

    Returns:
        `torch.Tensor`: float32, shape `[len(rows), D]`, on the device.

    Raises:
        HfChainError: when an image cannot be read, naming its row, or features are not finite.
    """
    device = torch.device(device if device is not None else tower.model.device)
    dataset = with_stored_images(dataset.with_format(None), image_column)
    processor = getattr(image_processor, "image_processor", image_processor)
    batches = []
    with evaluation_mode(tower.model), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for images in image_batches(dataset, image_column, rows, batch_size, max_image_pixels, "Embedding images"):
            pixels = processor(images=images, return_tensors="pt")["pixel_values"].to(device)
            features = tower.pooled(pixel_values=pixels)
            batches.append((features if head is None else head(features)).float())
    found = torch.cat(batches)
    if not torch.isfinite(found).all():
        raise HfChainError("The features of the images are not finite: the model's training diverged; give another")
    return found
