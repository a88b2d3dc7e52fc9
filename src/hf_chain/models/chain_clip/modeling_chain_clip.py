"""CLIP as it is trained in a chain: several captions an image, token dropping, a map to the teacher's size."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from hf_chain.models.chain_clip.configuration_chain_clip import ChainCLIPConfig
from hf_chain.models.token_dropping import dropped_tokens

MAX_LOGIT_SCALE = math.log(100)
"""Largest logarithm of the logit scale (CLIP, arXiv 2103.00020, section 2.5)."""

MAP_SUFFIX = "_to_teacher."
TEACHER_MAPS_NAME = "teacher_maps.safetensors"


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
    """

    image_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    logit_scale: torch.Tensor | None = None
    image_embeds_for_teacher: torch.Tensor | None = None
    text_embeds_for_teacher: torch.Tensor | None = None


class TeacherMap(nn.Linear):
    """Linear map from the member's to the teacher's embedding size.

    It starts by taking the leading coordinates, which is where growth puts the predecessor's embedding.
    """


class ChainCLIPModel(CLIPModel):
    """A `CLIPModel` with what training in a chain needs, all of it inside one trainable module.

    Its parameters are those of the stock model, except that the logit scale has shape `[1]` (0-d parameters break
    DeepSpeed and FSDP2) and that two maps to the teacher's embedding size join where sizes differ. `to_clip` gives the
    stock model back.
    """

    config: ChainCLIPConfig
    config_class = ChainCLIPConfig

    def __init__(self, config: ChainCLIPConfig) -> None:
        super().__init__(config)
        self.logit_scale = nn.Parameter(torch.tensor([float(config.logit_scale_init_value)]))
        self.image_to_teacher: TeacherMap | None = None
        self.text_to_teacher: TeacherMap | None = None
        size = config.teacher_projection_dim
        if size is not None and size != config.projection_dim:
            self.image_to_teacher = TeacherMap(config.projection_dim, size, bias=False)
            self.text_to_teacher = TeacherMap(config.projection_dim, size, bias=False)
        self.register_load_state_dict_pre_hook(self._accept_stock_logit_scale)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, TeacherMap):
            init.eye_(module.weight)

    @classmethod
    def from_clip(cls, model: CLIPModel, teacher_projection_dim: int | None = None) -> ChainCLIPModel:
        """Wraps the weights of a stock model (copied, in their dtype).

        Args:
            model (`CLIPModel`): the member to train.
            teacher_projection_dim (`int`, *optional*): the teacher's embedding size.
        """
        values = {k: v for k, v in model.config.to_dict().items() if k not in ("model_type", "architectures")}
        config = ChainCLIPConfig(**values, teacher_projection_dim=teacher_projection_dim)
        config._attn_implementation = model.config._attn_implementation
        chain_model = cls(config).to(model.dtype)
        chain_model.load_state_dict(model.state_dict(), strict=False)
        return chain_model

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> ChainCLIPModel:
        """Loads any stock CLIP folder or repository, with the maps to the teacher where a checkpoint holds them."""
        stock = CLIPModel.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        path = Path(pretrained_model_name_or_path) / TEACHER_MAPS_NAME
        maps = load_file(path) if path.exists() else {}
        model = cls.from_clip(stock, next(iter(maps.values())).shape[0] if maps else None)
        model.load_state_dict(maps, strict=False)
        return model

    def to_clip(self) -> CLIPModel:
        """The stock `CLIPModel` with these weights, in evaluation mode: 0-d logit scale, no maps to the teacher."""
        config = self._stock_config()
        config._attn_implementation = self.config._attn_implementation
        model = CLIPModel(config).to(self.dtype)
        model.load_state_dict(_stock_state(self.state_dict()))
        return model.to(self.device).eval()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        max_shard_size: int | str = "50GB",
        **kwargs: Any,
    ) -> None:
        """Writes a folder that `CLIPModel.from_pretrained` loads, and the maps to the teacher beside it.

        Args:
            save_directory (`str` or `os.PathLike`): the folder, made when it does not exist.
            is_main_process (`bool`): other processes write nothing.
            state_dict (`dict`, *optional*): full weights to write, for engines that shard the module's own.
            max_shard_size (`int` or `str`): size above which the weights are split over several files.
            kwargs: accepted for compatibility with the Trainer, unused.
        """
        if not is_main_process:
            return
        state = self.state_dict() if state_dict is None else state_dict
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        # No CLIPModel is built here: under ZeRO-3 that would be a collective, and only one process saves.
        stock = _stock_state(state)
        config = self._stock_config()
        config.architectures = [CLIPModel.__name__]
        config.dtype = next(iter(stock.values())).dtype
        config.save_pretrained(folder)
        save_torch_state_dict(stock, folder, max_shard_size=max_shard_size)
        maps = {name: weight.contiguous() for name, weight in state.items() if MAP_SUFFIX in name}
        if maps:
            save_file(maps, folder / TEACHER_MAPS_NAME)

    def load_teacher_maps(self, folder: str | os.PathLike[str]) -> None:
        """Reads the maps to the teacher that `save_pretrained` put beside the stock weights, if there are any."""
        path = Path(folder) / TEACHER_MAPS_NAME
        if path.exists():
            self.load_state_dict(load_file(path), strict=False)

    def _stock_config(self) -> CLIPConfig:
        dropped = ("model_type", "architectures", "teacher_projection_dim", "transformers_version")
        return CLIPConfig(**{key: value for key, value in self.config.to_dict().items() if key not in dropped})

    @staticmethod
    def _accept_stock_logit_scale(module: nn.Module, state: dict[str, torch.Tensor], prefix: str, *_: Any) -> None:
        """Lets `load_state_dict` take the stock model's 0-d logit scale; under ZeRO-3 there is none to reshape."""
        name = f"{prefix}logit_scale"
        if name in state and state[name].dim() == 0:
            state[name] = state[name].reshape(1)

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
            attention_mask (`torch.Tensor`, *optional*): shape `[B, K, L]`.
            kept_tokens (`torch.Tensor`, *optional*): shape `[B, T]`, positions of the image tokens to see; all of them
                by default.
        """
        captions = input_ids.shape[:2]
        mask = None if attention_mask is None else attention_mask.flatten(0, 1)
        with dropped_tokens(self.vision_model, kept_tokens):
            image = self.get_image_features(pixel_values).pooler_output.float()
        text = self.get_text_features(input_ids.flatten(0, 1), attention_mask=mask).pooler_output.float()
        image, text = normalize(image, dim=-1), normalize(text, dim=-1).view(*captions, -1)
        return ChainCLIPOutput(
            image_embeds=image,
            text_embeds=text,
            logit_scale=self.logit_scale.float().exp(),
            image_embeds_for_teacher=_mapped(image, self.image_to_teacher),
            text_embeds_for_teacher=_mapped(text, self.text_to_teacher),
        )

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Limits the logit scale to 100, as CLIP does after every step."""
        self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)


def _mapped(embeds: torch.Tensor, to_teacher: TeacherMap | None) -> torch.Tensor:
    return embeds if to_teacher is None else normalize(to_teacher(embeds).float(), dim=-1)


def _stock_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    stock = {name: weight for name, weight in state.items() if MAP_SUFFIX not in name}
    return stock | {"logit_scale": stock["logit_scale"].reshape(()).clamp(max=MAX_LOGIT_SCALE)}
