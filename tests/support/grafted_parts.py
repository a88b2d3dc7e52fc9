"""Tiny vision towers, a tokenizer that chats, and the models made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    CLIPImageProcessorPil,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Siglip2ImageProcessorPil,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_chain.models.grafted_vlm import GraftedVLMForConditionalGeneration, GraftedVLMProcessor, from_parts
from support.decoders import tiny_decoder

IMAGE_SIZE, PATCH = 16, 8

_TOWER = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH,
    "initializer_range": 0.3,
}
_DINO = _TOWER | {"mlp_ratio": 2}
_FIELDS: dict[str, dict[str, Any]] = {
    "clip": {"vision_config": _TOWER, "text_config": {"hidden_size": 16, "num_attention_heads": 2}},
    "clip_vision_model": _TOWER,
    "siglip_vision_model": _TOWER,
    "dinov2": _DINO,
    "dinov2_with_registers": _DINO | {"num_register_tokens": 2},
    "vit": _TOWER,
    "deit": _TOWER,
    "siglip2_vision_model": {key: value for key, value in _TOWER.items() if key != "image_size"} | {"num_patches": 16},
}
"""`model_type` -> fields of a vision tower's configuration; `clip` is a dual encoder."""
NAFLEX = "siglip2_vision_model"
"""The tower whose images keep their shape."""
TOWERS = [name for name in _FIELDS if name != NAFLEX]
"""Those that take images of one size."""

_SHALLOW: dict[str, dict[str, Any]] = {"gpt2": {"n_layer": 3}, "gemma3": {}}

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] | trim + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
_WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<user>", "<assistant>", "what", "is", "this", "a", "goldfish", "\n"]


def tiny_tokenizer(chat_template: str | None = CHAT_TEMPLATE, words: list[str] | None = None) -> Any:
    """A tokenizer of few words; the decoder's vocabulary has rows to spare for more."""
    vocabulary = {word: number for number, word in enumerate(words or _WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.add_special_tokens({"additional_special_tokens": ["<user>", "<assistant>"]})
    fast.chat_template = chat_template
    return fast


def tiny_tower(model_type: str = "clip_vision_model", seed: int = 0, **fields: Any) -> PreTrainedModel:
    """A vision tower, or a dual encoder, with uneven weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(CONFIG_MAPPING[model_type](**(_FIELDS[model_type] | fields)))
        with torch.no_grad():
            for weight in model.parameters():
                weight += torch.randn_like(weight) * 0.1
    return model.eval()


def image_processor(size: int = IMAGE_SIZE) -> CLIPImageProcessorPil:
    """One that makes square images of `size` pixels."""
    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def tiny_parts(
    tower: str = "clip_vision_model",
    decoder: str = "llama",
    decoder_fields: dict[str, Any] | None = None,
    tower_fields: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[GraftedVLMForConditionalGeneration, GraftedVLMProcessor]:
    """A model and its processor, with an adapter whose output matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return from_parts(
            tiny_tower(tower, **(tower_fields or {})),
            tiny_decoder(decoder, **(_SHALLOW.get(decoder, {"num_hidden_layers": 3}) | (decoder_fields or {}))),
            tiny_tokenizer(),
            Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=16) if tower == NAFLEX else image_processor(),
            **options,
        )


def photos(number: int, seed: int = 0) -> list[Image.Image]:
    """Images of noise, wider than high."""
    random = np.random.default_rng(seed)
    return [Image.fromarray(random.integers(0, 255, (20, 28, 3), dtype=np.uint8)) for _ in range(number)]


def processed(processor: GraftedVLMProcessor, prompts: list[str], **options: Any) -> dict[str, torch.Tensor]:
    """A padded batch of prompts with an image for each image token."""
    images = photos(sum(prompt.count("<image>") for prompt in prompts))
    return dict(processor(text=prompts, images=images or None, padding=True, return_tensors="pt", **options))
