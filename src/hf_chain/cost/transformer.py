"""MACs of any transformer of the library, counted from the shapes of its weights on torch's meta device.

Language models differ too much for one formula: gated and plain MLPs, grouped keys, experts. Their weights do not: a
token goes once through every matrix of a layer, and through the chosen ones among its experts.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from hf_chain.errors import HfChainError, reason


def decoder_macs(config: Any, tokens: int, *, layers: Iterable[int] | None = None, head: bool = True) -> int:
    """Counts the forward MACs of a decoder-only language model on one sequence.

    Attention is counted in full, also where it is causal or windowed, as `torch.utils.flop_counter` does.

    Args:
        config (`PreTrainedConfig`): The model, or a composite one with a `text_config`.
        tokens (`int`): Length of the sequence.
        layers (`Iterable[int]`, *optional*): Layers that are run; all of them by default.
        head (`bool`): Whether the language-model head is run on every token.

    Returns:
        `int`: Multiply-accumulate operations; FLOPs are twice that.
    """
    config = _text_config(config)
    per_layer, head_weights = _decoder_weights(_key(config))
    run = range(len(per_layer)) if layers is None else layers
    attention = 2 * tokens**2 * _attention_width(config)
    return sum(tokens * per_layer[layer] + attention for layer in run) + (tokens * head_weights if head else 0)


def encoder_macs(config: Any, *, layers: Iterable[int] | None = None) -> int:
    """Counts the forward MACs of a vision transformer on one image, from its patches to its last layer.

    Args:
        config (`PreTrainedConfig`): A vision configuration, or a composite one with a `vision_config`, whose own size
            of images counts where it has one.
        layers (`Iterable[int]`, *optional*): Layers that are run; all of them by default.

    Returns:
        `int`: Multiply-accumulate operations, on the largest image where a tower keeps the aspect ratio.
    """
    vision = getattr(config, "vision_config", config)
    if hasattr(vision, "depths"):
        return _counted_macs(_key(vision))
    per_layer, patch_weights = _encoder_weights(_key(vision))
    patches, tokens = image_patches(config), image_tokens(config)
    attention = 2 * tokens**2 * _attention_width(vision)
    run = range(len(per_layer)) if layers is None else layers
    return patches * patch_weights + sum(tokens * per_layer[layer] + attention for layer in run)


def image_patches(config: Any) -> int:
    """Patches of one image; of the largest one where a tower keeps the aspect ratio (NaFlex).

    Args:
        config (`PreTrainedConfig`): As for `encoder_macs`.

    Returns:
        `int`: Their number.
    """
    vision = getattr(config, "vision_config", config)
    if getattr(vision, "image_size", None) is None:
        return int(vision.num_patches)
    height, width = getattr(config, "image_height_and_width", None) or _pair(vision.image_size)
    rows, columns = _pair(vision.patch_size)
    return (height // rows) * (width // columns)


def image_tokens(config: Any) -> int:
    """Tokens of one image inside a vision transformer: patches, class token and register tokens.

    Args:
        config (`PreTrainedConfig`): As for `encoder_macs`.

    Returns:
        `int`: Their number.
    """
    return image_patches(config) + _prefix_tokens(_key(getattr(config, "vision_config", config)))


def layer_list(model: Any, depth: int) -> Any:
    """The layers of a transformer: the first list of that length, in its decoder where it says which that is.

    Args:
        model (`PreTrainedModel`): A transformer, with a head or without.
        depth (`int`): Its layers.

    Returns:
        `nn.ModuleList`: The layers themselves.

    Raises:
        `HfChainError`: Where there is no such list.
    """
    from torch import nn

    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    for place in (decoder, model):
        for module in place.modules() if place is not None else ():
            if isinstance(module, nn.ModuleList) and len(module) == depth:
                return module
    raise HfChainError(f"{type(model).__name__} has no list of {depth} layers, which its cost and predictions are of")


def _pair(size: Any) -> tuple[int, int]:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _text_config(config: Any) -> Any:
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _key(config: Any) -> tuple[type, str]:
    return type(config), config.to_json_string(use_diff=False)


def _attention_width(config: Any) -> int:
    heads = getattr(config, "num_attention_heads", None)
    if heads is None:
        raise HfChainError(f"model_type {config.model_type!r} has no attention heads: its cost cannot be counted")
    if getattr(config, "kv_lora_rank", None):
        # Keys are longer than values where they come from one latent vector (DeepSeek).
        sizes = (config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim)
        return int(heads * sum(sizes) / 2)
    return int(heads * (getattr(config, "head_dim", None) or config.hidden_size // heads))


@lru_cache(maxsize=64)
def _decoder_weights(key: tuple[type, str]) -> tuple[list[int], int]:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    config, model = _built(MODEL_FOR_CAUSAL_LM_MAPPING, key)
    layers, head = _layer_weights(model, config), model.get_output_embeddings().weight.numel()
    # A few OPT models embed in another size than that of their layers. The first layer always runs, the head may not.
    into, out = (getattr(model.get_decoder(), name, None) for name in ("project_in", "project_out"))
    layers[0] += 0 if into is None else into.weight.numel()
    return layers, head + (0 if out is None else out.weight.numel())


@lru_cache(maxsize=64)
def _encoder_weights(key: tuple[type, str]) -> tuple[list[int], int]:
    from torch import nn
    from transformers import MODEL_MAPPING

    config, model = _built(MODEL_MAPPING, key)
    # Patches come first; NaFlex towers get them cut out already.
    patches = next(module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear)))
    return _layer_weights(model, config), patches.weight.numel()


@lru_cache(maxsize=64)
def _prefix_tokens(key: tuple[type, str]) -> int:
    """Tokens that are no patches."""
    import torch
    from transformers import MODEL_MAPPING

    config, model = _built(MODEL_MAPPING, key)
    if getattr(config, "image_size", None) is None:
        return 0
    with torch.no_grad():
        pixels = torch.empty(1, config.num_channels, *_pair(config.image_size), device="meta")
        tokens = model(pixel_values=pixels).last_hidden_state.shape[1]
    return int(tokens) - image_patches(config)


@lru_cache(maxsize=64)
def _counted_macs(key: tuple[type, str]) -> int:
    """MACs of a model of stages, whose layers see fewer and fewer places: counted while it runs without weights."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import MODEL_MAPPING

    config, model = _built(MODEL_MAPPING, key)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixel_values=torch.empty(1, config.num_channels, *_pair(config.image_size), device="meta"))
    return int(counter.get_total_flops()) // 2


def _built(classes: Any, key: tuple[type, str]) -> tuple[Any, Any]:
    """Configuration and model without weights; not by the Auto class, which hands them to DeepSpeed under ZeRO-3."""
    import json

    import torch

    kind, text = key
    try:
        config = kind(**json.loads(text))
        with torch.device("meta"):
            return config, classes[type(config)](config)
    except Exception as error:  # Every family has its own.
        raise HfChainError(f"the cost of a {kind.__name__} cannot be counted: {reason(error, 120)}") from error


def _layer_weights(model: Any, config: Any) -> list[int]:
    """Weights a token meets in each layer: every matrix, of the experts the share that is chosen."""
    layers = layer_list(model, config.num_hidden_layers)
    named = ("num_local_experts", "num_experts", "n_routed_experts")
    experts = next((number for name in named if (number := getattr(config, name, None))), 1)
    chosen = getattr(config, "num_experts_per_tok", None) or 1

    def met(name: str, weight: Any) -> int:
        if weight.ndim < 2:
            return 0
        return int(weight.numel()) * chosen // experts if ".experts." in f".{name}" else int(weight.numel())

    return [sum(met(name, weight) for name, weight in layer.named_parameters()) for layer in layers]
