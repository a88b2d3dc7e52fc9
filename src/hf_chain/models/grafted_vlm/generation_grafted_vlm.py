"""Generation: images are looked at once, and stay with their prompts where prompts are copied."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation import CandidateGenerator, GenerationMixin
from transformers.utils import torch_compilable_check

from hf_chain.errors import HfChainError
from hf_chain.models.grafted_vlm.configuration_grafted_vlm import GraftedVLMConfig

IMAGE_INPUTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes")

_NEUTRAL = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "prompt_lookup_num_tokens": None,
}
"""Settings that look up the logit of tokens of the prompt, and the value at which they do not."""


class GraftedVLMGeneration(PreTrainedModel, GenerationMixin):
    """What a grafted model does differently from other generating models."""

    config: GraftedVLMConfig

    def generate(self, inputs: Any = None, generation_config: GenerationConfig | None = None, **kwargs: Any) -> Any:
        """Continues prompts, as `GenerationMixin.generate` does.

        To go on from a returned cache, give all of `input_ids`, and only those images that are not in the cache yet.

        Args:
            inputs (`torch.Tensor`, *optional*): shape `[B, L]`, the prompts, also as `input_ids`.
            generation_config (`GenerationConfig`, *optional*): the model's own by default.
            kwargs: those of `forward` and of `GenerationMixin.generate`.

        Raises:
            HfChainError: for settings that look up the placeholder's logit, such as a repetition penalty, where the
                placeholder is no token of the language model.
        """
        size = self.config.text_config.vocab_size
        for name, neutral in _NEUTRAL.items():
            value = kwargs.get(name, getattr(generation_config or self.generation_config, name, None))
            if value not in (None, neutral) and self.config.image_token_id >= size:
                raise HfChainError(
                    f"{name}={value} needs an image token within the vocabulary of {size}: give from_parts a reserved"
                    " token as image_token"
                )
        return super().generate(inputs, generation_config, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        *args: Any,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Hands images on in the first step only: afterwards they are in the cache.

        As an assistant of another model, no step is said to be the first; then the one with an empty cache is.
        """
        inputs = super().prepare_inputs_for_generation(
            input_ids, *args, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        cache = kwargs.get("cache", kwargs.get("past_key_values"))
        looks = is_first_iteration or cache is None or cache.get_seq_length() == 0
        for name in IMAGE_INPUTS:
            inputs.pop(name, None)
            if looks and kwargs.get(name) is not None:
                inputs[name] = kwargs[name]
        prompt = inputs.get("input_ids")
        if is_first_iteration and prompt is not None and inputs.get("pixel_values") is None:
            check_images_given(torch.eq(prompt, self.config.image_token_id))
        return inputs

    def _get_candidate_generator(
        self, *args: Any, model_kwargs: dict[str, Any], assistant_model: Any = None, **kwargs: Any
    ) -> CandidateGenerator:
        """Lets a language model assist that sees no images: its guesses are checked, so they may be blind."""
        blind = (
            assistant_model is not None and "pixel_values" not in inspect.signature(assistant_model.forward).parameters
        )
        if blind:
            model_kwargs = {name: value for name, value in model_kwargs.items() if name not in IMAGE_INPUTS}
        found = super()._get_candidate_generator(
            *args, model_kwargs=model_kwargs, assistant_model=assistant_model, **kwargs
        )
        return _BlindCandidates(found, self.config.image_token_id) if blind else found

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Copies prompts, each with all its images; the base class would copy image by image."""
        images = {name: model_kwargs.pop(name) for name in IMAGE_INPUTS if model_kwargs.get(name) is not None}
        if images and expand_size > 1 and input_ids is not None:
            numbers = self._images_by_prompt(input_ids, images)
            for name, values in images.items():
                blocks = [block for block in values.split(numbers) for _ in range(expand_size)]
                images[name] = torch.cat(blocks)
        ids, expanded = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        return ids, expanded | images

    def _images_by_prompt(self, input_ids: torch.Tensor, images: dict[str, torch.Tensor]) -> list[int]:
        """How many of the images each prompt has, by the positions that images take and prompts give."""
        given = torch.eq(input_ids, self.config.image_token_id).sum(1).cumsum(0)
        total, number = int(given[-1]), len(images["pixel_values"])
        if "spatial_shapes" in images:
            taken = images["spatial_shapes"].prod(-1) + 2
        else:
            taken = given.new_full((number,), total // number)
        check_positions(total, int(taken.sum()), number)
        prompts = torch.bucketize(taken.cumsum(0).to(given.device), given)
        return torch.bincount(prompts, minlength=len(input_ids)).tolist()


class _BlindCandidates(CandidateGenerator):
    """The guesses of a language model that may have no row for the placeholder."""

    def __init__(self, inner: CandidateGenerator, image_token_id: int) -> None:
        self.inner, self.image_token_id = inner, image_token_id

    def get_candidates(self, input_ids: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As the language model guesses, after the prompt as it is."""
        words = input_ids.masked_fill(torch.eq(input_ids, self.image_token_id), 0)
        found, logits = self.inner.get_candidates(words, **kwargs)
        return torch.cat([input_ids, found[:, input_ids.shape[1] :].to(input_ids.device)], dim=1), logits

    def update_candidate_strategy(self, input_ids: torch.Tensor, scores: torch.Tensor, num_matches: int) -> None:
        """Learns from what was right."""
        self.inner.update_candidate_strategy(input_ids, scores, num_matches)


def check_images_given(placeholders: torch.Tensor) -> None:
    """Raises `HfChainError` where a prompt without images has placeholders."""
    if torch.compiler.is_compiling():
        torch_compilable_check(placeholders.logical_not().all(), "image placeholders without pixel_values")
    elif placeholders.any():
        raise HfChainError(
            f"input_ids hold {int(placeholders.sum())} image placeholders but pixel_values is missing: give the"
            " images, or remove the image token from the prompt"
        )


def check_positions(found: int, wanted: int, images: int) -> None:
    """Raises `HfChainError` where placeholders and positions of images differ in number."""
    if found != wanted:
        fewer = "fewer" if found < wanted else "more"
        raise HfChainError(
            f"the prompt has {found} image positions, {fewer} than the {wanted} of {images} images: make input_ids"
            " with the processor, and do not truncate it within an image"
        )
