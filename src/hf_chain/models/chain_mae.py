"""ViT-MAE as it is trained in a chain: its loss, and the tokens that it sees in the teacher's width."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import normalize
from transformers import ViTMAEForPreTraining
from transformers.utils.generic import ModelOutput

from hf_chain.data.randomness import sample_random
from hf_chain.errors import HfChainError
from hf_chain.models.chain_clip.stock_clip import MAP_SUFFIX, TEACHER_MAPS_NAME
from hf_chain.models.saved_as_stock import SavedAsStock, TeacherMap


@dataclass
class ChainMAEOutput(ModelOutput):
    """What a batch gives.

    Args:
        loss (`torch.Tensor`): mean squared error over the pixels of hidden patches, a scalar.
        logits (`torch.Tensor`): shape `[B, patches, pixels of a patch]`.
        mask (`torch.Tensor`): shape `[B, patches]`, 1 where a patch is hidden.
        tokens_for_teacher (`torch.Tensor`): shape `[B, seen patches, D_teacher]`, L2-normalised, float32.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    tokens_for_teacher: torch.Tensor | None = None


class ChainMAEModel(SavedAsStock, ViTMAEForPreTraining):
    """A `ViTMAEForPreTraining` with a linear map to its teacher's width, all of it inside one trainable module.

    Args:
        config (`ViTMAEConfig`): of the stock model.
        teacher_size (`int`, *optional*): the teacher's width; a map is there where it is another than the model's.
    """

    def __init__(self, config: Any, teacher_size: int | None = None) -> None:
        super().__init__(config)
        self.tokens_to_teacher: TeacherMap | None = None
        if teacher_size not in (None, config.hidden_size):
            self.tokens_to_teacher = TeacherMap(config.hidden_size, teacher_size, bias=False)

    @classmethod
    def around(cls, stock: ViTMAEForPreTraining, teacher_size: int | None = None) -> ChainMAEModel:
        """Wraps a stock model, whose modules and weights it shares: what trains the one trains the other.

        Args:
            stock (`ViTMAEForPreTraining`): the member to train.
            teacher_size (`int`, *optional*): the teacher's width.
        """
        with torch.device("meta"):
            model = cls(stock.config, teacher_size)
        model.vit, model.decoder, model.config = stock.vit, stock.decoder, stock.config
        if model.tokens_to_teacher is not None:
            model.tokens_to_teacher.to_empty(device=stock.device)
            # Growth puts the predecessor's channels first.
            nn.init.eye_(model.tokens_to_teacher.weight)
        model._stock = (stock,)
        model.training = stock.training
        return model

    def forward(self, pixel_values: torch.Tensor, noise: torch.Tensor | None = None, **kwargs: Any) -> ChainMAEOutput:
        """Reconstructs the hidden patches of a batch.

        Args:
            pixel_values (`torch.Tensor`): shape `[B, C, H, W]`.
            noise (`torch.Tensor`, *optional*): shape `[B, patches]`; the patches with the least of it are seen.
            kwargs: as for the stock model.
        """
        encoded: list[torch.Tensor] = []
        handle = self.vit.register_forward_hook(lambda _, __, output: encoded.append(output.last_hidden_state))
        try:
            output = super().forward(pixel_values, noise=noise, **kwargs | {"return_dict": True})
        finally:
            handle.remove()
        tokens = encoded[0][:, 1:]
        if (to_teacher := self.tokens_to_teacher) is not None:
            tokens = to_teacher(tokens.to(to_teacher.weight.dtype))
        return ChainMAEOutput(output.loss, output.logits, output.mask, normalize(tokens.float(), dim=-1))

    def load_teacher_map(self, folder: str | os.PathLike[str]) -> None:
        """Reads the map that `save_pretrained` put beside the stock weights, where the model has one.

        Raises:
            HfChainError: when there is none, or one of other sizes.
        """
        if self.tokens_to_teacher is None:
            return
        path, weight = Path(folder, TEACHER_MAPS_NAME), self.tokens_to_teacher.weight
        found = load_file(path) if path.exists() else {}
        name = f"tokens{MAP_SUFFIX}weight"
        if name not in found or found[name].shape != weight.shape:
            raise HfChainError(f"{path} does not hold the model's map to its teacher: go on from another checkpoint")
        with torch.no_grad():
            weight.copy_(found[name])


def mask_noise(images: Iterable[int], patches: int, seed: int = 0, step: int = 0) -> torch.Tensor:
    """Noise that says which patches of an image are seen: the same for the same image, seed and step everywhere.

    Args:
        images (`Iterable[int]`): numbers of the images' rows.
        patches (`int`): patches of an image.
        seed (`int`): of the training.
        step (`int`): optimiser steps done.

    Returns:
        `torch.Tensor`: shape `[images, patches]`, float32, in [0, 1).
    """
    seeds = (sample_random("mask", seed, step, image).getrandbits(63) for image in images)
    return torch.stack([torch.rand(patches, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
