"""MACs from residual streams: each matrix times the tokens that pass it, and attention between them.

The sizes are those of a configuration's fields where a plan may start no torch, and else those of the stock class on
torch's meta device, which knows them for every model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hf_chain.errors import HfChainError, reason
from hf_chain.families import FAMILIES, Family, Stream, Weight, family_of, value_of

Sized = tuple[int | None, Weight, tuple[int, ...]]
"""The block of a weight, what it is, and its shape."""


@dataclass(frozen=True)
class StreamMACs:
    """What one token of a stream costs.

    Attributes:
        entry (`int`): MACs that put a patch, or an embedding of another size, into the stream.
        blocks (`tuple[int, ...]`): MACs of a token in the matrices of each block; of experts the share that is chosen.
        exit (`int`): MACs of a token that is read at the end.
        attention (`int`): MACs of a pair of tokens in one block, in all heads.
    """

    entry: int
    blocks: tuple[int, ...]
    exit: int
    attention: int

    def of_blocks(self, tokens: int, blocks: Iterable[int] | None = None) -> int:
        """MACs of tokens that all attend to each other.

        Args:
            tokens (`int`): Their number.
            blocks (`Iterable[int]`, *optional*): Blocks that are run; all of them by default.

        Returns:
            `int`: Multiply-accumulate operations.
        """
        run = [self.blocks[block] for block in blocks] if blocks is not None else self.blocks
        return tokens * sum(run) + tokens**2 * self.attention * len(run)


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
    macs = _decoder(_key(config.get_text_config() if hasattr(config, "get_text_config") else config))
    run = range(len(macs.blocks)) if layers is None else list(layers)
    entry = macs.entry if 0 in run else 0
    return macs.of_blocks(tokens, run) + tokens * (entry + (macs.exit if head else 0))


def encoder_macs(config: Any, *, layers: Iterable[int] | None = None, tokens: int | None = None) -> int:
    """Counts the forward MACs of a vision transformer on one image, from its patches to its last layer.

    Args:
        config (`PreTrainedConfig`): A vision configuration, or a composite one with a `vision_config`, whose own size
            of images counts where it has one.
        layers (`Iterable[int]`, *optional*): Layers that are run; all of them by default.
        tokens (`int`, *optional*): Tokens that they see, where some patches are hidden; all of them by default.

    Returns:
        `int`: Multiply-accumulate operations, on the largest image where a tower keeps the aspect ratio.

    Raises:
        HfChainError: when no family describes it, or its image passes several streams.
    """
    vision = getattr(config, "vision_config", config)
    if hasattr(vision, "depths"):
        return counted_macs(vision)
    macs = _encoder(_key(vision))
    return image_patches(config) * macs.entry + macs.of_blocks(tokens or image_tokens(config), layers)


def classifier_macs(config: Any) -> tuple[int, int]:
    """Counts the forward MACs of an image classifier on one image.

    Args:
        config (`PreTrainedConfig`): The model.

    Returns:
        `tuple[int, int]`: Multiply-accumulate operations of the encoder, and of the head.

    Raises:
        HfChainError: when no family describes it, or it is no image classifier.
    """
    return encoder_macs(config), _head(_key(config))


def counted_macs(config: Any, tokens: int | None = None) -> int:
    """Counts the forward MACs of a tower as a whole, pooling included, while it runs without weights.

    Args:
        config (`PreTrainedConfig`): That of the tower itself.
        tokens (`int`, *optional*): Length of the text that it reads; an image without.

    Returns:
        `int`: Multiply-accumulate operations.
    """
    return _counted(_key(config), tokens)


def masked_image_macs(config: Any) -> tuple[int, int]:
    """Counts the forward MACs of a ViT-MAE on one image: the encoder sees a part of the patches, the decoder all.

    Args:
        config (`ViTMAEConfig`): The model.

    Returns:
        `tuple[int, int]`: Multiply-accumulate operations of the encoder, and of the decoder.
    """
    patches = image_patches(config)
    seen = 1 + int(patches * (1 - config.mask_ratio))
    width, layers = config.decoder_hidden_size, config.decoder_num_hidden_layers
    block = 4 * width**2 + 2 * width * config.decoder_intermediate_size
    decoder = StreamMACs(
        entry=config.hidden_size * width,
        blocks=(block,) * layers,
        exit=width * config.num_channels * config.patch_size**2,
        attention=2 * width,
    )
    everything = decoder.of_blocks(patches + 1) + (patches + 1) * decoder.exit
    return encoder_macs(config, tokens=seen), seen * decoder.entry + everything


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
    vision = getattr(config, "vision_config", config)
    return image_patches(config) + _image_stream(vision).prefix_tokens(vision)


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
    for part in (decoder, model):
        for module in part.modules() if part is not None else ():
            if isinstance(module, nn.ModuleList) and len(module) == depth:
                return module
    raise HfChainError(f"{type(model).__name__} has no list of {depth} layers, which its cost and predictions are of")


def by_fields(family: Family, stream: Stream, config: Any) -> Iterator[Sized]:
    """The weights of a stream with the shapes that the fields of a configuration give them, without torch.

    Args:
        family (`Family`): Whose stream it is.
        stream (`Stream`): A stream all of whose weights every model has.
        config (`PreTrainedConfig`): The model, or what a recipe says of it.
    """
    part, heads = stream.config_of(config), stream.heads_of(config)
    sizes = dict.fromkeys(("query", "context"), heads.number * heads.size)
    sizes |= dict.fromkeys(("key", "value"), heads.key_value * heads.size)
    # A tower alone has no embedding to project to.
    sizes |= {"embedding": value_of(config, family.embedding) if family.embedding else 0}
    sizes |= {"residual": stream.width_of(config), "mlp": getattr(part, stream.mlp)}
    if stream is family.image:
        rows, columns = _pair(part.patch_size)
        sizes |= {"colour": part.num_channels, "row": rows, "column": columns}
        sizes["grid"] = image_patches(part) + stream.class_tokens
    else:
        sizes |= {"vocab": part.vocab_size, "position": part.max_position_embeddings}
        sizes["rotated"] = getattr(part, "projection_size", 0)
    blocks = [(block, weight) for block in range(stream.depth_of(config)) for weight in stream.block.values()]
    for number, weight in [*((None, weight) for weight in stream.outer.values()), *blocks]:
        shape = tuple(sizes[axis] for axis in weight.axes)
        if all(shape):
            yield number, weight, shape


def stream_macs(weights: Iterable[Sized], chosen: int = 1) -> StreamMACs:
    """What one token of a stream costs.

    Args:
        weights (`Iterable[tuple]`): Its weights, block by block in their order.
        chosen (`int`): Experts that a token passes.

    Returns:
        `StreamMACs`: Attention is counted where there are queries.
    """
    entry = leave = 0
    blocks: dict[int, int] = {}
    sizes: dict[str, int] = {}
    for number, weight, shape in weights:
        if number is not None:
            blocks.setdefault(number, 0)
        if not _multiplies(weight):
            continue
        sizes |= zip(weight.axes, shape, strict=False)
        macs = math.prod(shape)
        if weight.axes[0] == "expert" and len(weight.axes) == 3:
            macs = macs * chosen // shape[0]
        if number is not None:
            blocks[number] += macs
        elif weight.role == "embed":
            entry += macs
        else:
            leave += macs
    context = sizes.get("context", 0)
    return StreamMACs(entry, tuple(blocks.values()), leave, sizes.get("query", context) + context)


def _multiplies(weight: Weight) -> bool:
    """Whether tokens are multiplied with a weight: it has an input and an output, and is not looked up."""
    axes = set(weight.axes) - ({"expert"} if weight.role == "write" else set())
    if weight.role == "embed":
        return "colour" in axes
    return weight.role in ("read", "raw_read", "write", "keep") and len(axes) > 1


def _pair(size: Any) -> tuple[int, int]:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _key(config: Any) -> tuple[type, str]:
    return type(config), config.to_json_string(use_diff=False)


def _image_stream(config: Any) -> Stream:
    stream = family_of(config).image
    if stream is None:
        raise HfChainError(
            f"the cost of model_type {config.model_type!r} cannot be counted: no single stream takes its patches"
        )
    return stream


@lru_cache(maxsize=64)
def _decoder(key: tuple[type, str]) -> StreamMACs:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    config, model = _built(MODEL_FOR_CAUSAL_LM_MAPPING, key)
    family = FAMILIES.get(config.model_type)
    stream = family.streams[0] if family else _guessed(model, config)
    macs = stream_macs(_by_class(stream, model), getattr(config, "num_experts_per_tok", None) or 1)
    # A few OPT models embed in another size than that of their layers.
    projections = (getattr(model.get_decoder(), name, None) for name in ("project_in", "project_out"))
    entry, leave = (0 if projection is None else projection.weight.numel() for projection in projections)
    attention = macs.attention if family else 2 * _attention_width(config)
    return StreamMACs(entry, macs.blocks, macs.exit + leave, attention)


@lru_cache(maxsize=64)
def _encoder(key: tuple[type, str]) -> StreamMACs:
    from transformers import MODEL_MAPPING

    config, model = _built(MODEL_MAPPING, key)
    return stream_macs(_by_class(_image_stream(config), model))


@lru_cache(maxsize=64)
def _head(key: tuple[type, str]) -> int:
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    _, model = _built(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, key)
    return sum(weight.numel() for weight in model.classifier.parameters() if weight.ndim > 1)


@lru_cache(maxsize=256)
def _counted(key: tuple[type, str], tokens: int | None) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import MODEL_MAPPING

    config, model = _built(MODEL_MAPPING, key)
    inputs: dict[str, Any] = {"input_ids": torch.zeros(1, tokens or 1, dtype=torch.long, device="meta")}
    if tokens is None:
        inputs = {"pixel_values": torch.empty(1, config.num_channels, *_pair(config.image_size), device="meta")}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs)
    return int(counter.get_total_flops()) // 2


def _by_class(stream: Stream, model: Any) -> Iterator[Sized]:
    """The weights of a stream in a model, tied ones at every place."""
    for name, weight in model.named_parameters(remove_duplicate=False):
        slot, block = stream.slot(name), stream.block_of(name)
        if slot is not None:
            yield slot.block, slot.weight, tuple(weight.shape)
        elif block is not None and weight.ndim > 1 and "norm" not in name:
            # Of what no family describes, every token passes every matrix.
            yield block, Weight("keep", ("expert", "out", "in")[-weight.ndim :]), tuple(weight.shape)


def _guessed(model: Any, config: Any) -> Stream:
    """The stream of a language model that no family describes."""
    layers, head = layer_list(model, config.num_hidden_layers), model.get_output_embeddings().weight
    names = (name for name, weight in model.named_parameters(remove_duplicate=False) if weight is head)
    blocks = next(name for name, module in model.named_modules() if module is layers)
    return Stream(outer={next(names): Weight("read", ("vocab", "residual"))}, block={}, blocks=f"{blocks}.")


def _attention_width(config: Any) -> int:
    heads = getattr(config, "num_attention_heads", None)
    if heads is None:
        raise HfChainError(f"model_type {config.model_type!r} has no attention heads: its cost cannot be counted")
    if getattr(config, "kv_lora_rank", None):
        # Keys are longer than values where they come from one latent vector.
        sizes = (config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim)
        return int(heads * sum(sizes) / 2)
    return int(heads * (getattr(config, "head_dim", None) or config.hidden_size // heads))


def _built(classes: Any, key: tuple[type, str]) -> tuple[Any, Any]:
    """Configuration and model without weights; not by the Auto class, which hands them to DeepSpeed under ZeRO-3."""
    import json

    import torch

    kind, text = key
    try:
        config = kind(**json.loads(text))
        found = classes[type(config)]
        with torch.device("meta"):
            return config, (found[0] if isinstance(found, tuple) else found)(config)
    except Exception as error:  # Every family has its own.
        raise HfChainError(f"the cost of a {kind.__name__} cannot be counted: {reason(error, 120)}") from error
