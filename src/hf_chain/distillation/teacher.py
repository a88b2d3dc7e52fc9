"""The frozen predecessor whose embeddings the successor learns from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn.functional import normalize
from transformers import CLIPModel

from hf_chain.models.token_dropping import dropped_tokens


@dataclass
class TeacherFeatures:
    """L2-normalised teacher embeddings of a batch: image `[B, D]`, text `[B, K, D]`, float32."""

    image: torch.Tensor
    text: torch.Tensor


class FeatureSource(Protocol):
    """Whatever gives the teacher's features of a batch: the live model or a cache of them."""

    embedding_size: int

    def features(self, batch: dict[str, torch.Tensor]) -> TeacherFeatures:
        """Teacher features of `batch` (the collator's dictionary)."""


class Teacher:
    """A `CLIPModel` in evaluation mode whose parameters take no gradient.

    Args:
        model (`CLIPModel`): the predecessor. It is frozen in place.
    """

    def __init__(self, model: CLIPModel) -> None:
        self.model = model.eval().requires_grad_(False)
        self.embedding_size: int = model.config.projection_dim

    @torch.no_grad()
    def features(self, batch: dict[str, torch.Tensor]) -> TeacherFeatures:
        """Runs the teacher on `pixel_values` `[B, 3, H, W]` and `input_ids` `[B, K, L]`.

        Where the batch has `kept_tokens` `[B, T]`, the teacher sees the image tokens that the student sees.
        """
        with dropped_tokens(self.model.vision_model, batch.get("kept_tokens")):
            image = self.image_features(batch["pixel_values"])
        return TeacherFeatures(image, self.text_features(batch))

    @torch.no_grad()
    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """L2-normalised image embeddings, shape `[B, D]`."""
        return normalize(self.model.get_image_features(pixel_values).pooler_output.float(), dim=-1)

    @torch.no_grad()
    def text_features(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """L2-normalised caption embeddings, shape `[B, K, D]`, of `input_ids` and `attention_mask` `[B, K, L]`."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        output = self.model.get_text_features(ids.flatten(0, 1), attention_mask=mask.flatten(0, 1))
        return normalize(output.pooler_output.float(), dim=-1).view(*ids.shape[:2], -1)


def weights_hash(model: torch.nn.Module) -> str:
    """SHA-256 over names, shapes and values of all parameters, as a hexadecimal string."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
