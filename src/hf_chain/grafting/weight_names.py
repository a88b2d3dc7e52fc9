"""What a weight of the target is called in the surrogate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from hf_chain.errors import HfChainError
from hf_chain.families import COMPOSITES
from hf_chain.grafting.anatomy import layer_prefix, num_layers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def surrogate_names(config: PreTrainedConfig, places: Mapping[int, int], names: Iterable[str]) -> dict[str, str]:
    """Which weights of the target the surrogate holds, and what it calls them.

    Args:
        config (`PreTrainedConfig`): the target's configuration, of a composite model too.
        places (`Mapping[int, int]`): number of a kept layer in the target -> its number in the surrogate.
        names (`Iterable[str]`): the names in the target's checkpoint or state dict.

    Returns:
        `dict[str, str]`: the target's name of a kept weight -> the surrogate's. Layers are renumbered; other towers of
        a composite model are left out.

    Raises:
        HfChainError: when a kept layer has no weights, or there are more layers than the configuration says.
    """
    # Checkpoints of the model without its head call `transformer.h.0` just `h.0`.
    *outer, layers = layer_prefix(config).rstrip(".").split(".")
    pattern = re.compile("".join(rf"(?:{part}\.)?" for part in outer) + rf"{layers}\.(\d+)\.")
    found = {}
    without_weights = set(places)
    for name in names:
        own = decoder_name(config, name)
        if own is None:
            continue
        match = pattern.match(own)
        if match is None:
            found[name] = own
        elif int(match[1]) >= num_layers(config):
            raise HfChainError(
                f"the target holds {name}, but its configuration ends at layer {num_layers(config) - 1}: put its"
                " config.json right"
            )
        elif int(match[1]) in places:
            without_weights.discard(int(match[1]))
            found[name] = with_number(own, match, places[int(match[1])])
    if without_weights:
        raise HfChainError(
            f"the target holds no weights of its layer {min(without_weights)}, which its configuration announces:"
            " give a whole model"
        )
    return found


def target_name(config: PreTrainedConfig, places: Mapping[int, int], name: str) -> str:
    """What the target's decoder calls a weight of the surrogate, for messages about it.

    Args:
        config (`PreTrainedConfig`): the target's configuration.
        places (`Mapping[int, int]`): number of a kept layer in the target -> its number in the surrogate.
        name (`str`): the name in the surrogate.

    Returns:
        `str`: the name in the target.
    """
    match = re.match(rf"{re.escape(layer_prefix(config))}(\d+)", name)
    return name if match is None else with_number(name, match, list(places)[int(match[1])])


def decoder_name(config: PreTrainedConfig, name: str) -> str | None:
    """What the decoder on its own calls a weight of the whole model; `None` when another tower holds it.

    Args:
        config (`PreTrainedConfig`): the target's configuration.
        name (`str`): the name in the whole model.

    Returns:
        `str`, *optional*: the decoder's own name.
    """
    composite = COMPOSITES.get(config.model_type)
    prefixes = composite.prefixes if composite else ()
    if not prefixes:
        return name
    return next((own + name.removeprefix(whole) for whole, own in prefixes if name.startswith(whole)), None)


def with_number(name: str, match: re.Match[str], number: int) -> str:
    """A name with another number in place of the one that a match holds as its first group."""
    return f"{name[: match.start(1)]}{number}{name[match.end(1) :]}"
