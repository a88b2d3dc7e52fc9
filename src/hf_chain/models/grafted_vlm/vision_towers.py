"""What is particular about each family of vision towers: one row a family, read as data."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_LAYER = re.compile(r"(?:\w+\.)*?layers?\.(\d+)\.")
_BESIDE = re.compile(
    r"text_model\.|text_projection|visual_projection|logit_(?:scale|bias)|(?:\w+\.)?"
    r"(?:head|pooler|classifier|decoder|embeddings\.mask_token)\b"
)
"""Text towers and heads in an encoder's files, by the names of the families below."""


@dataclass(frozen=True)
class VisionTower:
    """One family of vision towers.

    Args:
        norm (`str`): the name of the norm after the last layer.
        output_is_normed (`bool`): whether `last_hidden_state` has passed that norm.
        class_tokens (`int`): class tokens in front of the patches.
        any_size (`bool`): whether images of another size than the configuration's are taken.
        flexible (`bool`): whether images keep their aspect ratio and come as padded lists of patches (NaFlex).
        settings (`dict`): fields of the configuration to set, so that nothing is built that a grafted model leaves
            unused: an unused weight has no gradient, which distributed training does not forgive.
        build (`dict`): arguments of the tower's class, for the same reason.
        unused (`str`, *optional*): a weight that is built all the same; it is kept, and kept out of training.
    """

    norm: str = "post_layernorm"
    output_is_normed: bool = True
    class_tokens: int = 0
    any_size: bool = False
    flexible: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    build: dict[str, Any] = field(default_factory=dict)
    unused: str | None = None


VISION_TOWERS: dict[str, VisionTower] = {
    "clip_vision_model": VisionTower(output_is_normed=False, class_tokens=1),
    "siglip_vision_model": VisionTower(settings={"vision_use_head": False}),
    "siglip2_vision_model": VisionTower(flexible=True, settings={"vision_use_head": False}),
    "dinov2": VisionTower("layernorm", class_tokens=1, any_size=True, settings={"use_mask_token": False}),
    "dinov2_with_registers": VisionTower("layernorm", class_tokens=1, any_size=True, unused="embeddings.mask_token"),
    "vit": VisionTower("layernorm", class_tokens=1, build={"add_pooling_layer": False}),
}
"""`model_type` of the vision configuration -> its row. SigLIP-2 of a fixed size has SigLIP's `model_type`."""


def tower_family(config: PreTrainedConfig) -> VisionTower:
    """The row of a tower.

    Args:
        config (`PreTrainedConfig`): the tower's configuration.

    Returns:
        `VisionTower`: what is particular about its family.

    Raises:
        HfChainError: when the family is not in the table.
    """
    row = VISION_TOWERS.get(config.model_type)
    if row is None:
        raise HfChainError(
            f"vision model_type {config.model_type!r} is not known: use one of {', '.join(VISION_TOWERS)}, or add a"
            " row to VISION_TOWERS in hf_chain/models/grafted_vlm/vision_towers.py"
        )
    return row


def prefix_tokens(config: PreTrainedConfig) -> int:
    """Tokens in front of the patches: class tokens and registers."""
    return tower_family(config).class_tokens + getattr(config, "num_register_tokens", 0)


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
    layers = config.num_hidden_layers
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
    return type(config)(**(values | {"num_hidden_layers": layers}))


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
    return _BESIDE.match(weight) is not None or (layer is not None and kept <= int(layer[1]) < layers)


def build_vision_tower(config: PreTrainedConfig) -> PreTrainedModel:
    """A random tower of this configuration, as the Auto class builds it."""
    from transformers import AutoModel

    return AutoModel.from_config(config, **tower_family(config).build)
