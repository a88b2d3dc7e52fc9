"""A vision encoder, an adapter and any decoder-only language model in one.

Source: Zero-Shot Vision Encoder Grafting via LLM Surrogates (arXiv 2505.22664), section 3.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModelForCausalLM, AutoModelForImageTextToText

from hf_chain.errors import HfChainError
from hf_chain.models.grafted_vlm.configuration_grafted_vlm import GraftedVLMConfig
from hf_chain.models.grafted_vlm.generation_grafted_vlm import (
    GraftedVLMGeneration,
    check_images_given,
    check_positions,
)
from hf_chain.models.grafted_vlm.vision_towers import build_vision_tower, prefix_tokens, tower_family


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
        row = tower_family(config.vision_config)
        if not config.post_layernorm:
            setattr(vision_tower, row.norm, nn.Identity())
        if row.unused is not None:
            owner, _, name = row.unused.rpartition(".")
            weight = vision_tower.get_submodule(owner)._parameters.pop(name, None)
            if weight is not None:
                vision_tower.get_submodule(owner).register_buffer(name, weight.detach())
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

    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_shapes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings of images, each between image start and image end.

        Args:
            pixel_values (`torch.Tensor`): shape `[N, 3, H, W]`; `[N, P, patch pixels]` for NaFlex towers.
            pixel_attention_mask (`torch.Tensor`, *optional*): shape `[N, P]`, real patches of a NaFlex tower.
            spatial_shapes (`torch.Tensor`, *optional*): shape `[N, 2]`, rows and columns of patches, likewise.

        Returns:
            `torch.Tensor`: shape `[all tokens of all images, D]`, in the order of the images.

        Raises:
            HfChainError: when the pixels have another shape than the vision tower takes.
        """
        config, row = self.config, tower_family(self.config.vision_config)
        self._check_pixels(pixel_values)
        masks = {"pixel_attention_mask": pixel_attention_mask, "spatial_shapes": spatial_shapes}
        pixels = pixel_values.to(self.image_start.dtype)
        tokens = self.vision_tower(pixels, **(masks if row.flexible else {})).last_hidden_state
        if not row.output_is_normed:
            tokens = getattr(self.vision_tower, row.norm)(tokens)
        if not config.class_token:
            tokens = tokens[:, prefix_tokens(config.vision_config) :]
        tokens = self.adapter(tokens)
        start, end = (edge.to(tokens).expand(len(tokens), 1, -1) for edge in (self.image_start, self.image_end))
        images = torch.cat([start, tokens, end], dim=1)
        if not row.flexible or pixel_attention_mask is None:
            return images.flatten(0, 1)
        edge = pixel_attention_mask.new_ones(len(tokens), 1)
        return images[torch.cat([edge, pixel_attention_mask, edge], dim=1).bool()]

    def _check_pixels(self, pixel_values: torch.Tensor) -> None:
        row = tower_family(self.config.vision_config)
        if row.flexible or row.any_size:
            return
        wanted = (self.config.vision_config.num_channels, *self.config.image_height_and_width)
        if pixel_values.dim() != 4 or tuple(pixel_values.shape[1:]) != wanted:
            raise HfChainError(
                f"pixel_values has shape {list(pixel_values.shape)}; the vision tower takes [images, {wanted[0]},"
                f" {wanted[1]}, {wanted[2]}]: use the processor of this model"
            )

    def _blank_image(self) -> dict[str, torch.Tensor]:
        """The smallest batch of images that runs every weight once."""
        config, device = self.config.vision_config, self.image_start.device
        if not tower_family(config).flexible:
            shape = (1, config.num_channels, *self.config.image_height_and_width)
            return {"pixel_values": torch.zeros(shape, device=device)}
        patch = config.num_channels * config.patch_size**2
        return {
            "pixel_values": torch.zeros(1, 1, patch, device=device),
            "pixel_attention_mask": torch.ones(1, 1, dtype=torch.long, device=device),
            "spatial_shapes": torch.ones(1, 2, dtype=torch.long, device=device),
        }


class GraftedVLMForConditionalGeneration(GraftedVLMImageModel, GraftedVLMGeneration):
    """A language model that sees images through a vision tower and an adapter.

    Args:
        config (`GraftedVLMConfig`): what to build.
        vision_tower (`PreTrainedModel`, *optional*): a tower to use as it is; a random one by default.
        language_model (`PreTrainedModel`, *optional*): a decoder-only language model with its head, likewise.
    """

    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    _keys_to_ignore_on_load_unexpected = None

    def __init__(
        self,
        config: GraftedVLMConfig,
        vision_tower: PreTrainedModel | None = None,
        language_model: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config, vision_tower)
        if language_model is None:
            language_model = AutoModelForCausalLM.from_config(config.text_config)
        else:
            config.text_config = initialized(language_model).config
        self.language_model = language_model
        # transformers 5.24 renamed it.
        arguments = inspect.signature(language_model.forward).parameters
        self._cache_name = "cache" if "cache" in arguments else "past_key_values"
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_shapes: torch.Tensor | None = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Predicts the next token at every position.

        Args:
            input_ids (`torch.Tensor`): shape `[B, L]`, with a run of placeholders for every image, as the processor
                makes it.
            attention_mask (`torch.Tensor`, *optional*): shape `[B, L]`.
            pixel_values (`torch.Tensor`, *optional*): shape `[N, 3, H, W]`, all images of the batch in the order of
                their placeholders; absent for text alone.
            position_ids (`torch.Tensor`, *optional*): shape `[B, L]`; starts anew at each sample of a packed row.
            past_key_values (`Cache`, *optional*): what `cache` was called before transformers 5.24; either will do.
            inputs_embeds (`torch.Tensor`, *optional*): shape `[B, L, D]`, instead of `input_ids` and images.
            labels (`torch.Tensor`, *optional*): shape `[B, L]`, -100 where no loss is wanted.
            logits_to_keep (`int` or `torch.Tensor`): how many last positions get logits, 0 for all of them; or which
                positions, int64 of shape `[K]`.
            pixel_attention_mask (`torch.Tensor`, *optional*): shape `[N, P]`, for NaFlex towers.
            spatial_shapes (`torch.Tensor`, *optional*): shape `[N, 2]`, for NaFlex towers.
            cache (`Cache`, *optional*): keys and values of the positions before.
            kwargs: handed to the language model, such as `use_cache` and `num_items_in_batch`.

        Returns:
            `CausalLMOutputWithPast`: the language model's own output.

        Raises:
            HfChainError: when images and placeholders do not fit each other.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise HfChainError("give either input_ids or inputs_embeds: exactly one of them")
        cache = past_key_values if cache is None else cache
        if cache is not None:
            kwargs[self._cache_name] = cache
        if input_ids is not None:
            begins = cache is None or cache.get_seq_length() == 0
            inputs_embeds = self.embed_prompt(input_ids, pixel_values, pixel_attention_mask, spatial_shapes, begins)
        elif pixel_values is not None:
            raise HfChainError("pixel_values need input_ids, whose placeholders say where images stand")
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def embed_prompt(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_shapes: torch.Tensor | None = None,
        begins: bool = True,
    ) -> torch.Tensor:
        """What the language model reads: embeddings of words, and of images in place of their placeholders.

        Args:
            input_ids (`torch.Tensor`): shape `[B, L]`; this and the images as in `forward`.
            pixel_values (`torch.Tensor`, *optional*): shape `[N, 3, H, W]`.
            pixel_attention_mask (`torch.Tensor`, *optional*): shape `[N, P]`.
            spatial_shapes (`torch.Tensor`, *optional*): shape `[N, 2]`.
            begins (`bool`): whether no position of the prompt is in a cache yet.

        Returns:
            `torch.Tensor`: shape `[B, L, D]`.

        Raises:
            HfChainError: when images and placeholders do not fit each other.
        """
        placeholders = torch.eq(input_ids, self.config.image_token_id)
        # The placeholder's id may lie outside of the table; which row stands in for it does not matter.
        embeds = self.get_input_embeddings()(input_ids.masked_fill(placeholders, 0))
        if pixel_values is not None:
            images = self.get_image_features(pixel_values, pixel_attention_mask, spatial_shapes)
            self._check_placeholders(placeholders, images, len(pixel_values))
            # The table already scales where a family does (Gemma); images enter the stream as they are.
            return embeds.masked_scatter(placeholders.unsqueeze(-1), images.to(embeds.device, embeds.dtype))
        if begins:
            check_images_given(placeholders)
        if begins and self._images_take_part():
            blank = self.get_image_features(**self._blank_image()).sum()
            embeds = embeds + 0 * blank.to(embeds.device, embeds.dtype)
        return embeds

    def _images_take_part(self) -> bool:
        """Whether a batch of text alone must run the image half, at no effect.

        Where one process has images and another has none, each would wait for the other's collectives for ever: for
        gradients in training, and under ZeRO-3 for the weights of every forward.
        """
        if is_deepspeed_zero3_enabled():
            return True
        weights = (*self.vision_tower.parameters(), *self.adapter.parameters(), self.image_start, self.image_end)
        return self.training and torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)

    def _check_placeholders(self, placeholders: torch.Tensor, images: torch.Tensor, number: int) -> None:
        each = 1 if tower_family(self.config.vision_config).flexible else max(1, len(images) // max(1, number))
        place = placeholders.flatten().cumsum(0).view_as(placeholders) - 1
        begins = placeholders & ~functional.pad(placeholders[:, :-1], (1, 0))
        # Brought over at once: a device is waited for once.
        found, broken = torch.stack([placeholders.sum(), (begins & (place % each != 0)).sum()]).tolist()
        check_positions(found, len(images), number)
        if broken:
            raise HfChainError(
                f"the {each} positions of an image are torn apart in input_ids: make input_ids with the processor, and"
                " do not truncate it within an image"
            )


def initialized(part: PreTrainedModel) -> PreTrainedModel:
    """Marks a model's weights as initialised, so that the model it becomes a part of leaves them as they are."""
    for module in part.modules():
        module._is_hf_initialized = True
    return part


AutoModelForImageTextToText.register(GraftedVLMConfig, GraftedVLMForConditionalGeneration, exist_ok=True)
