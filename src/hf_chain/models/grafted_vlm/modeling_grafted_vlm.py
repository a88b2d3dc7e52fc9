"""A vision encoder, an adapter and any decoder-only language model in one.

Source: Zero-Shot Vision Encoder Grafting via LLM Surrogates (arXiv 2505.22664), section 3.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
)
from transformers.utils import torch_compilable_check
from transformers.utils.generic import can_return_tuple

from hf_chain.engine import builds_in_pieces
from hf_chain.errors import HfChainError
from hf_chain.models.grafted_vlm.configuration_grafted_vlm import GraftedVLMConfig
from hf_chain.models.grafted_vlm.generation_grafted_vlm import (
    GraftedVLMGeneration,
    check_images_given,
    check_positions,
)
from hf_chain.models.grafted_vlm.image_half import GraftedVLMImageModel, initialized
from hf_chain.models.grafted_vlm.vision_towers import keeps_aspect_ratio


class Headless(nn.Module):
    """A language model without its head, whose weights keep their names.

    Args:
        decoder (`PreTrainedModel`): what makes hidden states of embeddings.
        base_model_prefix (`str`): its name within the language model.
    """

    def __init__(self, decoder: PreTrainedModel, base_model_prefix: str) -> None:
        super().__init__()
        self.base_model_prefix = base_model_prefix
        setattr(self, base_model_prefix, decoder)

    @property
    def base_model(self) -> PreTrainedModel:
        """The decoder."""
        return getattr(self, self.base_model_prefix)


class GraftedVLMModel(GraftedVLMImageModel):
    """A grafted model up to its last hidden state.

    Loads from the folder of a whole model, whose head it leaves out. `base_model` of a whole model is one.

    Args:
        config (`GraftedVLMConfig`): what to build.
        vision_tower (`PreTrainedModel`, *optional*): a tower to use as it is; a random one by default.
        language_model (`nn.Module`, *optional*): a decoder-only language model, likewise.
    """

    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    language_model: Any

    def __init__(
        self,
        config: GraftedVLMConfig,
        vision_tower: PreTrainedModel | None = None,
        language_model: nn.Module | None = None,
    ) -> None:
        super().__init__(config, vision_tower)
        if language_model is None:
            language_model = self._new_language_model(config)
        else:
            config.text_config = initialized(language_model).config
        self.language_model = language_model
        decoder = self.get_decoder()
        # transformers 5.24 renamed it.
        self._cache_name = "cache" if "cache" in inspect.signature(decoder.forward).parameters else "past_key_values"
        self._can_compile_fullgraph = getattr(decoder, "_can_compile_fullgraph", False)
        self.post_init()

    def _new_language_model(self, config: GraftedVLMConfig) -> nn.Module:
        prefix = MODEL_FOR_CAUSAL_LM_MAPPING[type(config.text_config)].base_model_prefix
        self._keys_to_ignore_on_load_unexpected = [rf"^language_model\.(?!{prefix}\.)"]
        return Headless(AutoModel.from_config(config.text_config), prefix)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.get_decoder().get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.get_decoder().set_input_embeddings(value)

    def get_decoder(self) -> PreTrainedModel:
        """The language model without its head."""
        return self.language_model.base_model

    def set_decoder(self, decoder: PreTrainedModel) -> None:
        """Puts another language model under the head, as it is."""
        setattr(self.language_model, self.language_model.base_model_prefix, decoder)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_attention_mask: torch.Tensor | None = None,
        spatial_shapes: torch.Tensor | None = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Gives the last hidden state at every position.

        Args:
            input_ids (`torch.Tensor`): shape `[B, L]`; this and the rest as in
                `GraftedVLMForConditionalGeneration.forward`.
            attention_mask (`torch.Tensor`, *optional*): shape `[B, L]`.
            pixel_values (`torch.Tensor`, *optional*): shape `[N, 3, H, W]`.
            position_ids (`torch.Tensor`, *optional*): shape `[B, L]`.
            past_key_values (`Cache`, *optional*): what `cache` was called before transformers 5.24.
            inputs_embeds (`torch.Tensor`, *optional*): shape `[B, L, D]`.
            pixel_attention_mask (`torch.Tensor`, *optional*): shape `[N, P]`, for NaFlex towers.
            spatial_shapes (`torch.Tensor`, *optional*): shape `[N, 2]`, for NaFlex towers.
            cache (`Cache`, *optional*): keys and values of the positions before.
            kwargs: handed to the language model.

        Returns:
            `BaseModelOutputWithPast`: the language model's own output, with `last_hidden_state` `[B, L, D]`.

        Raises:
            HfChainError: when images and placeholders do not fit each other.
        """
        cache = past_key_values if cache is None else cache
        embeds = self._embeds(input_ids, inputs_embeds, pixel_values, pixel_attention_mask, spatial_shapes, cache)
        options = kwargs if cache is None else kwargs | {self._cache_name: cache}
        return self.get_decoder()(
            inputs_embeds=embeds, attention_mask=attention_mask, position_ids=position_ids, **options
        )

    def _embeds(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        pixel_values: torch.Tensor | None,
        pixel_attention_mask: torch.Tensor | None,
        spatial_shapes: torch.Tensor | None,
        cache: Any,
    ) -> torch.Tensor:
        """What the language model reads, however it is given."""
        if (input_ids is None) == (inputs_embeds is None):
            raise HfChainError("give either input_ids or inputs_embeds: exactly one of them")
        if input_ids is not None:
            # A static cache keeps its length in a tensor, which a graph that is made cannot look at.
            begins = cache is None or (not torch.compiler.is_compiling() and cache.get_seq_length() == 0)
            return self.embed_prompt(input_ids, pixel_values, pixel_attention_mask, spatial_shapes, begins)
        if pixel_values is not None:
            raise HfChainError("pixel_values need input_ids, whose placeholders say where images stand")
        assert inputs_embeds is not None
        return inputs_embeds

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
            features = self.get_image_features(pixel_values, pixel_attention_mask, spatial_shapes, return_dict=True)
            images = torch.cat(features.pooler_output)
            self._check_placeholders(placeholders, images, len(pixel_values))
            # The table already scales where a family does (Gemma); images enter the stream as they are.
            return embeds.masked_scatter(placeholders.unsqueeze(-1), images.to(embeds.device, embeds.dtype))
        if begins:
            check_images_given(placeholders)
        if begins and self._images_take_part():
            blank = torch.cat(self.get_image_features(**self._blank_image(), return_dict=True).pooler_output).sum()
            embeds = embeds + 0 * blank.to(embeds.device, embeds.dtype)
        return embeds

    def _images_take_part(self) -> bool:
        """Whether a batch of text alone must run the image half, at no effect.

        Where one process has images and another has none, each would wait for the other's collectives for ever: for
        gradients in training, and under ZeRO-3 for the weights of every forward.
        """
        if builds_in_pieces():
            return True
        weights = (*self.vision_tower.parameters(), *self.adapter.parameters(), self.image_start, self.image_end)
        return self.training and torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)

    def _check_placeholders(self, placeholders: torch.Tensor, images: torch.Tensor, number: int) -> None:
        if torch.compiler.is_compiling():
            # No value is looked at while a graph is made; the graph itself checks the number.
            torch_compilable_check(placeholders.sum() == len(images), "images and placeholders differ in number")
            return
        each = 1 if keeps_aspect_ratio(self.config.vision_config) else max(1, len(images) // max(1, number))
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


class GraftedVLMForConditionalGeneration(GraftedVLMModel, GraftedVLMGeneration):
    """A language model that sees images through a vision tower and an adapter.

    Args:
        config (`GraftedVLMConfig`): what to build.
        vision_tower (`PreTrainedModel`, *optional*): a tower to use as it is; a random one by default.
        language_model (`PreTrainedModel`, *optional*): a decoder-only language model with its head, likewise.
    """

    _keys_to_ignore_on_load_unexpected = None

    def _new_language_model(self, config: GraftedVLMConfig) -> PreTrainedModel:
        return AutoModelForCausalLM.from_config(config.text_config)

    @property
    def base_model(self) -> GraftedVLMModel:
        """The same weights without the head: a view, made of the parts that the model has now."""
        headless = Headless(self.get_decoder(), self.language_model.base_model_prefix)
        view = GraftedVLMModel.__new__(GraftedVLMModel)
        view.__dict__ = self.__dict__ | {"_modules": self._modules | {"language_model": headless}}
        return view

    def get_encoder(self, modality: str | None = None) -> PreTrainedModel:
        """The vision tower for `"image"`; the model itself by default, as it has no encoder of text."""
        return self if modality is None else super().get_encoder(modality)

    def get_output_embeddings(self) -> nn.Linear:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def forward(  # type: ignore[override]
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
        cache = past_key_values if cache is None else cache
        embeds = self._embeds(input_ids, inputs_embeds, pixel_values, pixel_attention_mask, spatial_shapes, cache)
        if cache is not None:
            kwargs[self._cache_name] = cache
        return self.language_model(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )


AutoModel.register(GraftedVLMConfig, GraftedVLMModel, exist_ok=True)
AutoModelForImageTextToText.register(GraftedVLMConfig, GraftedVLMForConditionalGeneration, exist_ok=True)
AutoModelForMultimodalLM.register(GraftedVLMConfig, GraftedVLMForConditionalGeneration, exist_ok=True)
