"""The half of a grafted model that makes embeddings of images.

Source: Zero-Shot Vision Encoder Grafting via LLM Surrogates (arXiv 2505.22664), section 3.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from hf_chain.errors import HfChainError
from hf_chain.models.grafted_vlm.configuration_grafted_vlm import GraftedVLMConfig
from hf_chain.models.grafted_vlm.vision_towers import (
    build_vision_tower,
    keeps_aspect_ratio,
    tower_norm,
    tower_stream,
    unused_weights,
)


class Adapter(nn.Sequential):
    """Linear layers with GELU between them, from the vision tower's size to the language model's embedding size.

    Args:
        config (`GraftedVLMConfig`): number of layers and all sizes.
    """

    def __init__(self, config: GraftedVLMConfig) -> None:
        inner = config.adapter_hidden_size or config.embedding_size
        sizes = [config.vision_config.hidden_size, *[inner] * (config.adapter_layers - 1), config.embedding_size]
        layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
        for before, after in zip(sizes[1:-1], sizes[2:], strict=True):
            layers += [nn.GELU(), nn.Linear(before, after)]
        super().__init__(*layers)

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers with weights."""
        return [layer for layer in self if isinstance(layer, nn.Linear)]


class GraftedVLMImageModel(PreTrainedModel):
    """The half that makes embeddings of images: what a graft takes from one language model to the other.

    Loads from the folder of a whole model and reads only its own weights.

    Args:
        config (`GraftedVLMConfig`): the whole model's.
        vision_tower (`PreTrainedModel`, *optional*): a tower to use as it is; a random one by default.
    """

    config: GraftedVLMConfig
    config_class = GraftedVLMConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    input_modalities: tuple[str, ...] = ("image",)
    supports_gradient_checkpointing = True
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _keys_to_ignore_on_load_unexpected: list[str] | None = [r"^language_model\."]

    vision_tower: PreTrainedModel
    adapter: Adapter
    image_start: nn.Parameter
    image_end: nn.Parameter

    def __init__(self, config: GraftedVLMConfig, vision_tower: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if vision_tower is None:
            vision_tower = build_vision_tower(config.vision_config)
        else:
            config.vision_config = initialized(vision_tower).config
        if not config.post_layernorm:
            vision_tower.set_submodule(str(tower_stream(config.vision_config).last_norm), nn.Identity())
        for weight in unused_weights(vision_tower):
            owner, _, name = weight.rpartition(".")
            module = vision_tower.get_submodule(owner)
            module.register_buffer(name, module._parameters.pop(name).detach())
        self.vision_tower = vision_tower
        self.adapter = Adapter(config)
        self.image_start = nn.Parameter(torch.empty(config.embedding_size))
        self.image_end = nn.Parameter(torch.empty(config.embedding_size))
        if type(self) is GraftedVLMImageModel:
            self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            # Torch's own start: its spread follows the input size, where a fixed 0.02 is far too small for a narrow
            # tower and too large for a wide one.
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, GraftedVLMImageModel):
            std = module.config.embedding_size**-0.5
            init.normal_(module.image_start, std=std)
            init.normal_(module.image_end, std=std)

    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_shapes: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """The same as `get_image_features`."""
        return self.get_image_features(pixel_values, pixel_attention_mask, spatial_shapes, **kwargs)

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_shapes: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Embeddings of images, each between image start and image end.

        Args:
            pixel_values (`torch.Tensor`): shape `[N, 3, H, W]`; `[N, P, patch pixels]` for NaFlex towers.
            pixel_attention_mask (`torch.Tensor`, *optional*): shape `[N, P]`, real patches of a NaFlex tower.
            spatial_shapes (`torch.Tensor`, *optional*): shape `[N, 2]`, rows and columns of patches, likewise.
            kwargs: for the vision tower, such as `output_hidden_states`; `return_dict=False` makes a `tuple`.

        Returns:
            `BaseModelOutputWithPooling`: the tower's output, whose `pooler_output` is a list with the embeddings
                of each image, `[its tokens + 2, D]`: what takes the place of its placeholders.

        Raises:
            HfChainError: when the pixels have another shape than the vision tower takes.
        """
        config, flexible = self.config, keeps_aspect_ratio(self.config.vision_config)
        stream = tower_stream(config.vision_config)
        self._check_pixels(pixel_values)
        masks = {"pixel_attention_mask": pixel_attention_mask, "spatial_shapes": spatial_shapes}
        pixels = pixel_values.to(self.image_start.dtype)
        output = self.vision_tower(pixels, return_dict=True, **(masks if flexible else {}), **kwargs)
        tokens = output.last_hidden_state
        if not stream.output_is_normed:
            tokens = tower_norm(self.vision_tower)(tokens)
        if not config.class_token:
            tokens = tokens[:, stream.prefix_tokens(config.vision_config) :]
        tokens = self.adapter(tokens)
        start, end = (edge.to(tokens).expand(len(tokens), 1, -1) for edge in (self.image_start, self.image_end))
        images = torch.cat([start, tokens, end], dim=1)
        output.pooler_output = list(images)
        if flexible and pixel_attention_mask is not None:
            edge = pixel_attention_mask.new_ones(len(tokens), 1)
            real = torch.cat([edge, pixel_attention_mask, edge], dim=1).bool()
            output.pooler_output = [image[mask] for image, mask in zip(images, real, strict=True)]
        return output

    def _check_pixels(self, pixel_values: torch.Tensor) -> None:
        vision = self.config.vision_config
        if keeps_aspect_ratio(vision) or tower_stream(vision).any_size:
            return
        wanted = (vision.num_channels, *self.config.image_height_and_width)
        if pixel_values.dim() != 4 or tuple(pixel_values.shape[1:]) != wanted:
            raise HfChainError(
                f"pixel_values has shape {list(pixel_values.shape)}; the vision tower takes [images, {wanted[0]},"
                f" {wanted[1]}, {wanted[2]}]: use the processor of this model"
            )

    def _blank_image(self) -> dict[str, torch.Tensor]:
        """The smallest batch of images that runs every weight once."""
        config, device = self.config.vision_config, self.image_start.device
        if not keeps_aspect_ratio(config):
            shape = (1, config.num_channels, *self.config.image_height_and_width)
            return {"pixel_values": torch.zeros(shape, device=device)}
        patch = config.num_channels * config.patch_size**2
        return {
            "pixel_values": torch.zeros(1, 1, patch, device=device),
            "pixel_attention_mask": torch.ones(1, 1, dtype=torch.long, device=device),
            "spatial_shapes": torch.ones(1, 2, dtype=torch.long, device=device),
        }


def initialized(part: Any) -> Any:
    """Marks a model's weights as initialised, so that the model it becomes a part of leaves them as they are."""
    for module in part.modules():
        module._is_hf_initialized = True
    return part
