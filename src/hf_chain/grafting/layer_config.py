"""The configuration of a decoder that keeps some of its layers: every field that goes by a layer's number."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import decoder_family, text_config
from hf_chain.grafting.module_patterns import surrogate_module

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_OF_THE_WHOLE = ("dtype", "tie_word_embeddings", "quantization_config")
"""Fields that a composite model sets for all of its parts."""


def surrogate_config(config: PreTrainedConfig, places: Mapping[int, int]) -> PreTrainedConfig:
    """The configuration of the decoder with some of its layers.

    Args:
        config (`PreTrainedConfig`): the target's configuration, of a composite model too; left as it is.
        places (`Mapping[int, int]`): number of a kept layer in the target -> its number in the surrogate, in order.

    Returns:
        `PreTrainedConfig`: a configuration of the decoder's own class.

    Raises:
        HfChainError: when what a layer computes depends on its number in a way no field can say.
    """
    old = text_config(config)
    if getattr(old, "scale_attn_by_inverse_layer_idx", False):
        raise HfChainError(
            "scale_attn_by_inverse_layer_idx=True scales attention by the layer's number, which a surrogate changes:"
            " take a target without it"
        )
    new = copy.deepcopy(old)
    for field in _OF_THE_WHOLE:
        value = getattr(config, field, None)
        if value is not None:
            setattr(new, field, copy.deepcopy(value))
    new.num_hidden_layers = len(places)
    for field in decoder_family(config).per_layer:
        entries = getattr(old, field, None)
        if entries:
            setattr(new, field, [entries[layer] for layer in places])
    if getattr(old, "layer_types", None):
        # The period that once made the list need not fit the shorter one; engines must read the list.
        _forget(new, "sliding_window_pattern")
    if hasattr(old, "first_k_dense_replace"):
        # Layers before this number have no experts.
        new.first_k_dense_replace = sum(layer < old.first_k_dense_replace for layer in places)
    if hasattr(old, "max_window_layers"):
        # Layers from this number on have a sliding window.
        new.max_window_layers = sum(layer < old.max_window_layers for layer in places)
    if hasattr(old, "decoder_sparse_step"):
        new.decoder_sparse_step = 1
        new.mlp_only_layers = [
            place
            for layer, place in places.items()
            if layer in old.mlp_only_layers or (layer + 1) % old.decoder_sparse_step
        ]
    # The surrogate is of the stock class; files of remote code are not copied.
    _forget(new, "auto_map")
    quantization = getattr(new, "quantization_config", None)
    if quantization is not None:
        values = quantization if isinstance(quantization, dict) else quantization.to_dict()
        new.quantization_config = _renamed(values, config, places)
    return new


def _forget(config: PreTrainedConfig, field: str) -> None:
    if hasattr(config, field):
        delattr(config, field)


def _renamed(value: Any, config: PreTrainedConfig, places: Mapping[int, int]) -> Any:
    """A quantisation configuration with the surrogate's names of modules, as keys and in lists."""
    if isinstance(value, dict):
        names = {name: surrogate_module(config, places, name) for name in value}
        return {names[name]: _renamed(item, config, places) for name, item in value.items() if names[name] is not None}
    if isinstance(value, (list, tuple)):
        renamed = [surrogate_module(config, places, item) if isinstance(item, str) else item for item in value]
        return [_renamed(item, config, places) for item in renamed if item is not None]
    return value
