"""Vision towers: the image streams of families, as far as a graft uses them."""

from __future__ import annotations

import re
from inspect import signature
from typing import TYPE_CHECKING, Any, cast

from hf_chain.errors import HfChainError
from hf_chain.families import FAMILIES, Family, Stream

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

_LAYER = re.compile(r"(?:\w+\.)*?layers?\.(\d+)\.")


def tower_stream(config: PreTrainedConfig) -> Stream:
    """The stream of a tower.

    Args:
        config (`PreTrainedConfig`): the tower's configuration.

    Returns:
        `Stream`: as its family describes it.

    Raises:
        HfChainError: when no family does, or a graft cannot use it.
    """
    family = FAMILIES.get(config.model_type)
    stream = _tower(family) if family else None
    if stream is None:
        why = f"cannot be grafted, as {family.no_tower}" if family and family.no_tower else "is not known"
        raise HfChainError(
            f"vision model_type {config.model_type!r} {why}: use one of"
            f" {', '.join(name for name, known in FAMILIES.items() if _tower(known))}, or add a family"
            " (docs/families.md)"
        )
    return stream


def _tower(family: Family) -> Stream | None:
    return None if family.image is None or family.image.part or family.no_tower else family.image


def keeps_aspect_ratio(config: PreTrainedConfig) -> bool:
    """Whether images keep their aspect ratio and come as padded lists of patches (NaFlex)."""
    return getattr(config, "image_size", None) is None


def tower_layers(tower: PreTrainedModel) -> nn.ModuleList:
    """The layers of a tower."""
    return cast("nn.ModuleList", tower.get_submodule(tower_stream(tower.config).blocks.rstrip(".")))


def tower_norm(tower: PreTrainedModel) -> nn.Module:
    """The norm behind the last layer of a tower; `nn.Identity` in a model that was made without."""
    return tower.get_submodule(str(tower_stream(tower.config).last_norm))


def unused_weights(tower: PreTrainedModel) -> list[str]:
    """Names of weights that are built whatever the configuration says, and that no graft uses."""
    slots = {name: tower_stream(tower.config).slot(name) for name, _ in tower.named_parameters()}
    return [name for name, slot in slots.items() if slot is not None and "mask" in slot.weight.axes]


def cut_config(config: PreTrainedConfig, vision_layer: int) -> PreTrainedConfig:
    """The configuration of a tower that ends at a layer.

    Args:
        config (`PreTrainedConfig`): the whole tower's; not changed.
        vision_layer (`int`): whose output is wanted, as in `hidden_states`: `1` is the first layer's, `-1` the last's,
            `-2` that of the layer before.

    Returns:
        `PreTrainedConfig`: a copy.

    Raises:
        HfChainError: when there is no such layer.
    """
    layers = tower_stream(config).depth_of(config)
    kept = vision_layer if vision_layer >= 0 else layers + 1 + vision_layer
    if not 1 <= kept <= layers:
        raise HfChainError(
            f"vision_layer={vision_layer} is outside of a tower with {layers} layers: use -{layers} … -1"
        )
    return with_layers(config, kept)


def with_layers(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """A copy of a tower's configuration with another number of layers."""
    values = config.to_dict()
    # Some families list their layers by name, and make the list themselves.
    for derived in ("stage_names", "out_features", "out_indices"):
        values.pop(derived, None)
    return type(config)(**(values | {tower_stream(config).depth: layers}))


def is_left_out(weight: str, kept: int, layers: int) -> bool:
    """Whether a weight in an encoder's files is left out on purpose.

    Args:
        weight (`str`): its name.
        kept (`int`): layers of the tower that are used.
        layers (`int`): layers that the encoder's configuration says it has.

    Returns:
        `bool`: true for text towers, heads and layers after the one that is used.
    """
    layer = _LAYER.match(weight)
    return (layer is not None and kept <= int(layer[1]) < layers) or any(
        _is_beside(weight, family.image, [stream for stream in family.streams if stream is not family.image])
        or re.fullmatch(family.outside, weight)
        for family in FAMILIES.values()
        if family.image is not None
    )


def _is_beside(weight: str, image: Stream, others: list[Stream]) -> bool:
    slot = image.slot(weight)
    head = slot is not None and slot.block is None and slot.weight.role in ("read", "bias")
    mask = slot is not None and "mask" in slot.weight.axes
    return head or mask or any(re.match(stream.prefix, weight) for stream in others)


def building(config: PreTrainedConfig) -> dict[str, Any]:
    """Arguments of a tower's class that keep a pooler from being built: what a grafted model leaves unused has no
    gradient, which distributed training does not forgive."""
    from transformers import MODEL_MAPPING

    known = signature(MODEL_MAPPING[type(config)].__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in known else {}


def build_vision_tower(config: PreTrainedConfig) -> PreTrainedModel:
    """A random tower of this configuration, as the Auto class builds it."""
    from transformers import AutoModel

    return AutoModel.from_config(config, **building(config))
