"""The weights by which a layer writes to the residual stream: what a linear map folds into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import decoder_family, text_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Write:
    """How one half of a layer, attention or MLP, writes.

    Args:
        projection (`str`): its last linear map.
        norm (`str`, *optional*): a norm between that map and the residual stream.
        norm_offset (`float`): what this norm adds to its weight before it multiplies by it.
        experts (`str`, *optional*): of a mixture, the parameter `[experts, d, f]` with every expert's last linear map.
        mixture (`str`, *optional*): the module that adds up the experts.
        factor (`float`): what is written is multiplied with (Granite).
    """

    projection: str
    norm: str | None = None
    norm_offset: float = 0.0
    experts: str | None = None
    mixture: str | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class LayerWrites:
    """Both halves of a layer."""

    attention: Write
    mlp: Write


def layer_writes(config: PreTrainedConfig) -> LayerWrites:
    """How the layers of a model write, as its family describes their weights.

    Args:
        config (`PreTrainedConfig`): the model's configuration; of a composite one, its decoder counts.

    Returns:
        `LayerWrites`: both halves.

    Raises:
        HfChainError: when a layer normalises the residual stream itself, or holds experts in another layout.
    """
    config = text_config(config)
    if getattr(config, "do_layer_norm_before", True) is False:
        raise HfChainError(
            "closed_form cannot fold into layers with do_layer_norm_before=False, which normalise the residual stream"
            " itself: use method 'train'"
        )
    stream = decoder_family(config).streams[0]
    attention = mlp = experts = None
    for name, weight in stream.block.items():
        if weight.role != "write" or len(weight.axes) < 2:
            continue
        module = name.removesuffix(".weight")
        if "context" in weight.axes:
            attention = module
        elif weight.axes[0] != "expert":
            mlp = module
        elif weight.axes == ("expert", "residual", "mlp"):
            experts = name
        else:
            raise HfChainError(
                f"closed_form does not know how the experts of {config.model_type!r} write: use method 'train'"
            )
    if getattr(config, "n_shared_experts", 0):
        raise HfChainError(
            f"closed_form does not know how the shared experts of {config.model_type!r} write: use method 'train'"
        )
    factor = getattr(config, "residual_multiplier", 1.0)
    norms = [name.removesuffix(".weight") for name, weight in stream.block.items() if weight.role == "post_gain"]
    first, second = norms or (None, None)
    mixture = experts.split(".")[0] if experts else None
    return LayerWrites(
        Write(str(attention), first, stream.gain_offset if first else 0.0, factor=factor),
        Write(str(mlp), second, stream.gain_offset if second else 0.0, experts, mixture, factor),
    )
