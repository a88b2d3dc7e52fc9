"""Dual encoders as they are trained in a chain: several captions an image, maps to the teacher's embedding size."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput, can_return_tuple

from hf_chain.adapters import check_no_adapter
from hf_chain.engine import builds_in_pieces
from hf_chain.errors import HfChainError
from hf_chain.families import FAMILIES, VISION_TEXT, Family, family_of
from hf_chain.growth.pad import Isometric
from hf_chain.loaded_weights import first_not_finite_of
from hf_chain.models.chain_clip.stock_clip import MAP_SUFFIX, TEACHER_MAPS_NAME, maps_beside
from hf_chain.models.saved_as_stock import SavedAsStock, TeacherMap
from hf_chain.models.token_dropping import dropped_tokens

STOCK = {"clip": "CLIPModel", "siglip": "SiglipModel", VISION_TEXT: "VisionTextDualEncoderModel"}
"""`model_type` of the dual encoders that are trained -> their class in transformers."""


@dataclass
class ChainCLIPOutput(ModelOutput):
    """L2-normalised embeddings of a batch, in float32.

    Args:
        image_embeds (`torch.Tensor`): shape `[B, D]`.
        text_embeds (`torch.Tensor`): shape `[B, K, D]`.
        logit_scale (`torch.Tensor`): shape `[1]`, the factor on the cosine.
        image_embeds_for_teacher (`torch.Tensor`): shape `[B, D_teacher]`, comparable with the teacher's; the
            embeddings themselves where the sizes agree.
        text_embeds_for_teacher (`torch.Tensor`): shape `[B, K, D_teacher]`, likewise.
        logit_bias (`torch.Tensor`, *optional*): shape `[1]`, what is added to the scaled cosine, where models have it.
    """

    image_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    logit_scale: torch.Tensor | None = None
    image_embeds_for_teacher: torch.Tensor | None = None
    text_embeds_for_teacher: torch.Tensor | None = None
    logit_bias: torch.Tensor | None = None


class MappedDualEncoder(PreTrainedModel):
    """What is beside the parts of a stock dual encoder, and its forward pass; a mixin before the stock class."""

    image_to_teacher: TeacherMap | None
    text_to_teacher: TeacherMap | None

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        kept_tokens: torch.Tensor | None = None,
    ) -> ChainCLIPOutput:
        """Embeds a batch of images and their captions.

        Args:
            pixel_values (`torch.Tensor`): shape `[B, 3, H, W]`.
            input_ids (`torch.Tensor`): shape `[B, K, L]`, K captions an image.
            attention_mask (`torch.Tensor`, *optional*): shape `[B, K, L]`; a SigLIP reads padding too.
            kept_tokens (`torch.Tensor`, *optional*): shape `[B, T]`, positions of the image tokens to see, of a CLIP;
                all of them by default.

        Returns:
            `ChainCLIPOutput`: a `tuple` with `return_dict=False`.

        Raises:
            HfChainError: for ids of another shape, such as a stock processor's.
        """
        if input_ids.dim() != 3:
            raise HfChainError(
                f"input_ids has shape {list(input_ids.shape)}, and takes [images, captions of each, tokens]: give"
                " input_ids.unsqueeze(1) and attention_mask.unsqueeze(1) for one caption an image, or use to_clip()"
            )
        model: Any = self
        with dropped_tokens(model.vision_model, kept_tokens):
            image = image_embeddings(model, pixel_values)
        text, bias = text_embeddings(model, input_ids, attention_mask), getattr(model, "logit_bias", None)
        return ChainCLIPOutput(
            image_embeds=image,
            text_embeds=text,
            logit_scale=model.logit_scale.float().exp().reshape(1),
            image_embeds_for_teacher=_mapped(image, self.image_to_teacher),
            text_embeds_for_teacher=_mapped(text, self.text_to_teacher),
            logit_bias=None if bias is None else bias.float(),
        )

    def load_teacher_maps(self, folder: str | os.PathLike[str]) -> None:
        """Reads the maps to the teacher that `save_pretrained` put beside the stock weights, where the model has some.

        Raises:
            HfChainError: when the file holds other maps than the model has, or maps that are not finite.
        """
        self._take_maps(maps_beside(os.fspath(folder)), str(Path(folder) / TEACHER_MAPS_NAME))

    def _take_maps(self, maps: dict[str, torch.Tensor], name: str) -> None:
        own = {name: weight.shape for name, weight in self.state_dict().items() if MAP_SUFFIX in name}
        if {name: weight.shape for name, weight in maps.items()} != own:
            raise HfChainError(f"{name} does not hold the model's maps to its teacher: go on from another checkpoint")
        if weight := first_not_finite_of(maps.items()):
            raise HfChainError(f"{weight} in {name} holds NaN or infinity: go on from another checkpoint")
        self.load_state_dict(maps, strict=False)

    def _map_names(self) -> set[str]:
        return {name for name in self.state_dict() if MAP_SUFFIX in name}


class ChainDualEncoder(SavedAsStock, MappedDualEncoder):
    """A stock dual encoder other than CLIP with what training in a chain needs, made by `around`.

    It is of the stock model's class too, and saved as it.
    """

    # Towers do, and the stock class of any two of them does not say so.
    supports_gradient_checkpointing = True

    @classmethod
    def around(cls, stock: PreTrainedModel, teacher_size: int | None = None) -> ChainDualEncoder:
        """Wraps a stock model, whose modules and weights it shares: what trains the one trains the other.

        Args:
            stock (`PreTrainedModel`): the member to train, of a class in `STOCK`.
            teacher_size (`int`, *optional*): the teacher's embedding size; maps are there where it is another than
                the model's. They start as the inverse of what growth does to embeddings.

        Raises:
            HfChainError: when it is quantised, or has an adapter or weights of its own, which would be left behind.
        """
        if not builds_in_pieces():
            check_no_adapter(stock, f"this {type(stock).__name__}")
        if getattr(stock, "is_quantized", False):
            raise HfChainError("the model to train is quantised: load it without quantization_config")
        model: Any = copy.copy(stock)
        kind: Any = type(stock)
        model.__class__ = _chain_class(kind)
        model._modules, model._parameters = dict(stock._modules), dict(stock._parameters)
        model._stock = (stock,)
        family = family_of(stock.config)
        size = family.embedding_size(stock.config)
        for name in ("image_to_teacher", "text_to_teacher"):
            setattr(model, name, None)
            if teacher_size is None or teacher_size == size:
                continue
            new = TeacherMap(size, teacher_size, bias=False, device=stock.device, dtype=stock.dtype)
            with torch.no_grad():
                new.weight.copy_(_first_map(family, size, teacher_size))
            setattr(model, name, new)
        made: ChainDualEncoder = model
        return made


@lru_cache
def _chain_class(stock: Any) -> type[ChainDualEncoder]:
    return type(f"Chain{stock.__name__}", (ChainDualEncoder, stock), {"__doc__": ChainDualEncoder.__doc__})


def _first_map(family: Family, size: int, teacher_size: int) -> torch.Tensor:
    """`[teacher_size, size]`: back from the embedding of a model that has just grown to that of its predecessor."""
    if family.embedding is None and size > teacher_size:
        turn = Isometric(teacher_size, size, torch.Generator())
        return turn.write(torch.eye(teacher_size, dtype=torch.float64)).T
    return torch.eye(teacher_size, size)


def _mapped(embeds: torch.Tensor, to_teacher: TeacherMap | None) -> torch.Tensor:
    return embeds if to_teacher is None else normalize(to_teacher(embeds.to(to_teacher.weight.dtype)).float(), dim=-1)


def image_embeddings(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """L2-normalised embeddings of images `[B, 3, H, W]` by a dual encoder, shape `[B, D]`, float32."""
    return normalize(model.get_image_features(pixel_values, return_dict=True).pooler_output.float(), dim=-1)


def text_embeddings(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """L2-normalised embeddings of captions by a dual encoder.

    Args:
        model (`PreTrainedModel`): the model.
        input_ids (`torch.Tensor`): shape `[B, K, L]`.
        attention_mask (`torch.Tensor`, *optional*): the same shape; not looked at where the family reads padding.

    Returns:
        `torch.Tensor`: shape `[B, K, D]`, float32.
    """
    family = FAMILIES.get(model.config.model_type)
    unmasked = family is not None and family.reads_padding
    mask = None if attention_mask is None or unmasked else attention_mask.flatten(0, 1)
    output = model.get_text_features(input_ids.flatten(0, 1), attention_mask=mask, return_dict=True)
    return normalize(output.pooler_output.float(), dim=-1).view(*input_ids.shape[:2], -1)
