"""A grafted model from an encoder, a decoder and the tokenizer and image processor that belong to them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AddedToken,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    GenerationConfig,
    PreTrainedModel,
)

from hf_chain.adapters import check_model_files, check_no_adapter
from hf_chain.errors import HfChainError
from hf_chain.loaded_weights import check_loaded, read_model, require_finite
from hf_chain.models.grafted_vlm.configuration_grafted_vlm import GraftedVLMConfig
from hf_chain.models.grafted_vlm.fingerprint import tokenizer_fingerprint
from hf_chain.models.grafted_vlm.image_half import GraftedVLMImageModel
from hf_chain.models.grafted_vlm.language_models import load_language_model, load_tokenizer, named_errors
from hf_chain.models.grafted_vlm.modeling_grafted_vlm import GraftedVLMForConditionalGeneration
from hf_chain.models.grafted_vlm.processing_grafted_vlm import GraftedVLMProcessor
from hf_chain.models.grafted_vlm.vision_towers import (
    build_vision_tower,
    building,
    is_left_out,
    keeps_aspect_ratio,
    tower_stream,
)

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedTokenizerBase


def from_parts(
    encoder: str | Path | PreTrainedModel,
    decoder: str | Path | PreTrainedModel,
    tokenizer: str | Path | PreTrainedTokenizerBase | None = None,
    image_processor: str | Path | BaseImageProcessor | None = None,
    *,
    vision_layer: int = -1,
    class_token: bool = True,
    post_layernorm: bool = True,
    adapter_layers: int = 2,
    adapter_hidden_size: int | None = None,
    image_token: str = "<image>",
    chat_template: str | None = None,
    dtype: torch.dtype | None = None,
    attn_implementation: str | None = None,
) -> tuple[GraftedVLMForConditionalGeneration, GraftedVLMProcessor]:
    """Joins an encoder and a decoder by a new adapter and new image-start and image-end embeddings.

    Args:
        encoder (`str`, `Path` or `PreTrainedModel`): a CLIP, SigLIP, SigLIP-2, DINOv2, ViT or DeiT, or a member of a
            chain; of a dual encoder its vision tower. A model in memory is copied.
        decoder (`str`, `Path` or `PreTrainedModel`): a decoder-only language model with its head, such as a surrogate.
            A model in memory is used as it is, not copied.
        tokenizer (`str`, `Path` or `PreTrainedTokenizerBase`, *optional*): the decoder's folder by default.
        image_processor (`str`, `Path` or `BaseImageProcessor`, *optional*): the encoder's folder by default.
        vision_layer (`int`): the encoder's hidden state that is used; layers after it are left out.
        class_token (`bool`): whether class and register tokens are handed on.
        post_layernorm (`bool`): whether all tokens pass the encoder's last norm.
        adapter_layers (`int`): linear layers of the adapter.
        adapter_hidden_size (`int`, *optional*): its inner size; the decoder's embedding size by default.
        image_token (`str`): what stands for an image in a prompt; added to the tokenizer where it is not known.
        chat_template (`str`, *optional*): for tokenizers without one.
        dtype (`torch.dtype`, *optional*): of all weights; the decoder's by default.
        attn_implementation (`str`, *optional*): for parts that are loaded here.

    Returns:
        The model in evaluation mode, and its processor.

    Raises:
        HfChainError: when a part cannot be loaded, does not fit the others, has an adapter, or has weights that are
            missing, too many or not finite.
    """
    loading = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    language_model = load_language_model(decoder, dtype, **loading)
    dtype = dtype or language_model.dtype
    words = _tokenizer(tokenizer, decoder)
    add_image_token(words, image_token)
    check_at_hand(language_model)
    check_tokens(words, len(language_model.get_input_embeddings().weight), image_token)
    vision = _vision_config(encoder)
    config = GraftedVLMConfig(
        vision_config=vision,
        text_config=language_model.config,
        vision_layer=vision_layer,
        class_token=class_token,
        post_layernorm=post_layernorm,
        adapter_layers=adapter_layers,
        adapter_hidden_size=adapter_hidden_size,
        image_token_id=words.convert_tokens_to_ids(image_token),
        tokenizer_fingerprint=tokenizer_fingerprint(words, image_token),
    )
    pixels = image_processor_of(encoder, image_processor)
    config.image_size = processed_size(pixels, config)
    processor = GraftedVLMProcessor(
        pixels, words, chat_template, image_token=image_token, tokens_per_image=config.tokens_per_image
    )
    tower = _vision_tower(encoder, config.vision_config, vision.num_hidden_layers, dtype, loading)
    return join(config, tower, language_model).eval(), processor


def join(
    config: GraftedVLMConfig, vision_tower: PreTrainedModel, language_model: PreTrainedModel
) -> GraftedVLMForConditionalGeneration:
    """A model of two parts as they are, with a new adapter and new image-start and image-end embeddings.

    Args:
        config (`GraftedVLMConfig`): fits the parts.
        vision_tower (`PreTrainedModel`): moved to where the language model embeds its tokens.
        language_model (`PreTrainedModel`): stays where it is, on several devices too.
    """
    model = GraftedVLMForConditionalGeneration(config, vision_tower, language_model)
    like = {"device": language_model.get_input_embeddings().weight.device, "dtype": language_model.dtype}
    model.vision_tower.to(**like)
    model.adapter.to(**like)
    model.image_start.data, model.image_end.data = model.image_start.to(**like), model.image_end.to(**like)
    model.generation_config = copy.deepcopy(language_model.generation_config)
    if config.image_token_id < config.text_config.vocab_size:
        # Vocabularies are often padded, and then the new token has a row that could be generated.
        suppress(model.generation_config, config.image_token_id)
    return model


def suppress(generation_config: GenerationConfig, *tokens: int) -> None:
    """Adds tokens to those that are never generated."""
    known = generation_config.suppress_tokens or []
    generation_config.suppress_tokens = [*known, *(token for token in tokens if token not in known)]


def with_image_half(
    config: GraftedVLMConfig, images: GraftedVLMImageModel, language_model: PreTrainedModel
) -> GraftedVLMForConditionalGeneration:
    """A copy of a trained image half on another language model, in evaluation mode.

    Args:
        config (`GraftedVLMConfig`): fits both.
        images (`GraftedVLMImageModel`): vision tower, adapter, image-start and image-end embeddings.
        language_model (`PreTrainedModel`): becomes part of the model.
    """
    model = join(config, copy.deepcopy(images.vision_tower), language_model)
    with torch.no_grad():
        model.adapter.load_state_dict(images.adapter.state_dict())
        model.image_start.copy_(images.image_start)
        model.image_end.copy_(images.image_end)
    for part in (model.vision_tower, model.adapter):
        require_finite(part, f"the image half in {language_model.dtype}")
    # Training on the surrogate froze what it pleased; the graft starts anew.
    model.vision_tower.requires_grad_(True)
    return model.eval()


def _vision_config(encoder: str | Path | PreTrainedModel) -> PreTrainedConfig:
    if isinstance(encoder, PreTrainedModel):
        check_no_adapter(encoder, f"encoder {type(encoder).__name__}")
        config = encoder.config
    elif not isinstance(encoder, (str, Path)):
        raise HfChainError(
            f"the encoder is a {type(encoder).__name__}: give a transformers model, its folder or its Hub name"
        )
    else:
        check_model_files(encoder)
        with named_errors("encoder", encoder):
            config = AutoConfig.from_pretrained(str(encoder))
    config = getattr(config, "vision_config", config)
    tower_stream(config)
    return config


def _vision_tower(
    encoder: str | Path | PreTrainedModel,
    config: PreTrainedConfig,
    layers: int,
    dtype: torch.dtype,
    loading: dict[str, Any],
) -> PreTrainedModel:
    if not isinstance(encoder, PreTrainedModel):
        return _load_tower(str(encoder), config, layers, dtype=dtype, **building(config), **loading)
    tower = build_vision_tower(config).to(dtype)
    state = getattr(encoder, "vision_model", encoder).state_dict()
    if any(weight.numel() == 0 for weight in state.values()):
        raise HfChainError("the encoder's weights are empty, as ZeRO-3 leaves them: give its folder instead")
    missing = tower.load_state_dict({name: state[name] for name in tower.state_dict() if name in state}, strict=False)
    if missing.missing_keys:
        raise HfChainError(
            f"the encoder {type(encoder).__name__} lacks {missing.missing_keys[0]} of a {config.model_type}: give the"
            " vision model itself, or the folder it was saved in"
        )
    require_finite(tower, f"the encoder {type(encoder).__name__}")
    tower.set_attn_implementation(encoder.config._attn_implementation)
    return tower


def _tokenizer(
    tokenizer: str | Path | PreTrainedTokenizerBase | None, decoder: str | Path | PreTrainedModel
) -> PreTrainedTokenizerBase:
    if tokenizer is not None and not isinstance(tokenizer, (str, Path)):
        return copy.deepcopy(tokenizer)
    if tokenizer is None and isinstance(decoder, PreTrainedModel):
        raise HfChainError("a decoder in memory brings no tokenizer: give tokenizer=, a folder or a tokenizer")
    return load_tokenizer(decoder if tokenizer is None else tokenizer)


def add_image_token(tokenizer: PreTrainedTokenizerBase, image_token: str) -> None:
    """Makes what stands for an image a token of its own.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the language model's, which is changed.
        image_token (`str`): such as `<image>`.

    Raises:
        HfChainError: when texts hold it anyway.
    """
    check_image_token(tokenizer, image_token)
    if image_token not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(image_token, special=True, normalized=False)], special_tokens=True)
    if tokenizer.pad_token is None:
        # Padded positions are masked, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token


def check_image_token(tokenizer: PreTrainedTokenizerBase, image_token: str) -> None:
    """Refuses an image token that texts hold anyway: what is blank, a mark, or a word of the vocabulary.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the language model's.
        image_token (`str`): what is to stand for an image.

    Raises:
        HfChainError: naming the token.
    """
    marks = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    word = image_token in tokenizer.get_vocab() and image_token not in tokenizer.get_added_vocab()
    if not image_token.strip() or image_token in marks or word:
        raise HfChainError(
            f"image_token={image_token!r} stands in texts without an image: give a token of its own, such as '<image>'"
        )


def check_tokens(tokenizer: PreTrainedTokenizerBase, rows: int, image_token: str) -> None:
    """Refuses a tokenizer with tokens that a language model has no embedding for; the image's needs none.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the language model's.
        rows (`int`): tokens that it embeds.
        image_token (`str`): what stands for an image.

    Raises:
        HfChainError: naming the token.
    """
    numbers = {number: token for token, number in tokenizer.get_vocab().items() if token != image_token}
    if (last := max(numbers)) >= rows:
        raise HfChainError(
            f"the tokenizer's {numbers[last]!r} has the number {last}, but the language model embeds {rows} tokens:"
            " give its own tokenizer, or resize its embeddings"
        )


def check_at_hand(language_model: PreTrainedModel) -> None:
    """Refuses a language model whose token embeddings are offloaded: images go where they are.

    Raises:
        HfChainError: naming the model.
    """
    if language_model.get_input_embeddings().weight.is_meta:
        name = language_model.name_or_path or type(language_model).__name__
        raise HfChainError(
            f"the token embeddings of {name} are offloaded, and images go where they are: keep them on a device, such"
            " as by a device_map of your own"
        )


def _load_tower(name: str, config: PreTrainedConfig, layers: int, **loading: Any) -> PreTrainedModel:
    with named_errors("encoder", name):
        tower, found = read_model(AutoModel, name, config=config, **loading)
    check_loaded(
        tower, found, f"encoder {name}", left_out=lambda weight: is_left_out(weight, config.num_hidden_layers, layers)
    )
    return tower


def image_processor_of(encoder: str | Path | PreTrainedModel, image_processor: Any = None) -> BaseImageProcessor:
    """The image processor that belongs to an encoder.

    Args:
        encoder (`str`, `Path` or `PreTrainedModel`): whose folder holds it by default.
        image_processor (`str`, `Path` or `BaseImageProcessor`, *optional*): another folder, or one that is used as it
            is.

    Raises:
        HfChainError: when it is not there or cannot be loaded.
    """
    if image_processor is not None and not isinstance(image_processor, (str, Path)):
        return image_processor
    if image_processor is None and isinstance(encoder, PreTrainedModel):
        raise HfChainError("an encoder in memory brings no image processor: give image_processor=, a folder or one")
    name = encoder if image_processor is None else image_processor
    with named_errors("image processor", name):
        return AutoImageProcessor.from_pretrained(str(name))


def processed_size(image_processor: BaseImageProcessor, config: GraftedVLMConfig) -> int | None:
    """Height and width of what the image processor makes, for towers that take any size.

    Args:
        image_processor (`BaseImageProcessor`): is asked for an oblong image.
        config (`GraftedVLMConfig`): of the model with the tower.

    Returns:
        `int`, *optional*: pixels, for `GraftedVLMConfig.image_size`; `None` where the tower's own size holds.

    Raises:
        HfChainError: when the tower takes images of another size only.
    """
    if keeps_aspect_ratio(config.vision_config):
        return None
    oblong = Image.fromarray(np.zeros((30, 50, 3), dtype=np.uint8))
    _, height, width = np.asarray(image_processor(oblong, return_tensors="np")["pixel_values"][0]).shape
    if tower_stream(config.vision_config).any_size and height == width:
        return int(height)
    if (height, width) != config.image_height_and_width:
        raise HfChainError(
            f"the image processor makes images of {height}x{width} pixels, the encoder takes"
            f" {config.image_height_and_width[0]}x{config.image_height_and_width[1]}: set its size and crop_size"
        )
    return None
