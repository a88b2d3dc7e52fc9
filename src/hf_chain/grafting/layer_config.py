"""What a decoder that keeps some of its layers calls its weights, modules and fields."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from hf_chain.errors import HfChainError
from hf_chain.families import COMPOSITES
from hf_chain.grafting.anatomy import decoder_family, layer_prefix, num_layers, text_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def surrogate_names(config: PreTrainedConfig, kept: Mapping[int, int], names: Iterable[str]) -> dict[str, str]:
    """Which weights of the target the surrogate holds, and what it calls them.

    Args:
        config (`PreTrainedConfig`): the target's configuration, of a composite model too.
        kept (`Mapping[int, int]`): number of a kept layer in the target -> its number in the surrogate.
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
    without_weights = set(kept)
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
        elif int(match[1]) in kept:
            without_weights.discard(int(match[1]))
            found[name] = with_number(own, match, kept[int(match[1])])
    if without_weights:
        raise HfChainError(
            f"the target holds no weights of its layer {min(without_weights)}, which its configuration announces:"
            " give a whole model"
        )
    return found


def target_name(config: PreTrainedConfig, kept: Mapping[int, int], name: str) -> str:
    """What the target's decoder calls a weight of the surrogate, for messages about it.

    Args:
        config (`PreTrainedConfig`): the target's configuration.
        kept (`Mapping[int, int]`): number of a kept layer in the target -> its number in the surrogate.
        name (`str`): the name in the surrogate.

    Returns:
        `str`: the name in the target.
    """
    match = re.match(rf"{re.escape(layer_prefix(config))}(\d+)", name)
    return name if match is None else with_number(name, match, list(kept)[int(match[1])])


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


_MARK = re.compile(r"(re|\+|-):")
_PATTERN = re.compile(r"(re|\+|-):|.*[*?\[\](){}|^$\\]")
_NUMBER = re.compile(r"(?<![\w\\])(\d+)(?=\\?\.|\$?$)")
"""A number that is a whole part of a name."""
_NUMERIC = re.compile(r"(?<!\w)\d|\\d|\[")
"""What may speak of some numbers."""
_OF_AN_EXPERT = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")


def surrogate_module(config: PreTrainedConfig, kept: Mapping[int, int], module: str) -> str | None:
    """What the surrogate calls a module, or a pattern of modules, that a configuration names.

    Args:
        config (`PreTrainedConfig`): the target's configuration.
        kept (`Mapping[int, int]`): number of a kept layer in the target -> its number in the surrogate.
        module (`str`): such as `model.layers.3.mlp`, `*layers.3.*` or `lm_head`.

    Returns:
        `str`, *optional*: the name in the surrogate; `None` when its layer is dropped.

    Raises:
        HfChainError: when a pattern speaks of some layers, and not provably of one.
    """
    own = decoder_name(config, f"{module}.")
    name = module if own is None else own.removesuffix(".")
    word = layer_prefix(config).rstrip(".").rpartition(".")[2]
    numbers = list(re.finditer(rf"(?<!\w){word}\\?\.(\d+)(?=\\?\.|\$?$)", name))
    if not _PATTERN.match(name):
        return _renumbered(name, numbers[0], kept) if numbers else name
    numbers = numbers or list(_NUMBER.finditer(name))
    spoken = _spoken_of(config, name)
    composite = COMPOSITES.get(config.model_type)
    if composite and composite.decoder.rpartition(".")[2] in name:
        numbers = []  # It speaks of the decoder by a name that the surrogate does not have.
    elif not spoken.some and (spoken.of_all or not _NUMERIC.search(name)):
        return name
    if len(numbers) == 1 and _is_one_layer(name, numbers[0], spoken):
        found = _renumbered(name, numbers[0], kept)
        if found is None and not spoken.others:
            return None
        if found is not None and _spoken_of(config, found).some <= {kept[int(numbers[0][1])]}:
            return found
    raise HfChainError(
        f"quantization_config names layers by the pattern {module!r}, which cannot be renumbered: write one entry for"
        " each layer"
    )


def _renumbered(name: str, match: re.Match[str], kept: Mapping[int, int]) -> str | None:
    number = kept.get(int(match[1]))
    return None if number is None else with_number(name, match, number)


@dataclass
class _Spoken:
    """What a pattern speaks of.

    Attributes:
        some (`set[int]`): layers of which it says what it does not say of all.
        of_all (`bool`): whether it says something of all layers.
        others (`bool`): whether it speaks of modules outside of the layers.
    """

    some: set[int]
    of_all: bool
    others: bool


def _is_one_layer(name: str, number: re.Match[str], spoken: _Spoken) -> bool:
    if spoken.some or spoken.of_all:
        return spoken.some == {int(number[1])} and not spoken.of_all
    # It fits no module that is known, such as one that a library fuses: its only number has to be the layer's.
    return not _NUMERIC.search(name[: number.start(1)] + name[number.end(1) :])


def _spoken_of(config: PreTrainedConfig, pattern: str) -> _Spoken:
    text = text_config(config)
    layered, outside = _modules((type(text), text.to_json_string(use_diff=False)))
    spoken = _Spoken(set(), False, False)
    for fits in _readings(pattern):
        spoken.others = spoken.others or any(map(fits, outside))
        for names in layered:
            found = {layer for layer, name in names if fits(name)}
            if len(found) == len(names):
                spoken.of_all = True
            else:
                spoken.some |= found
    return spoken


def _readings(pattern: str) -> list[Callable[[str], Any]]:
    """The ways to read a pattern: whether it fits a name."""
    mark = _MARK.match(pattern)
    text = pattern[mark.end() :] if mark else pattern
    readings: list[Callable[[str], Any]] = []
    try:
        expression = re.compile(text)
        readings += [expression.match, expression.search, expression.fullmatch]
    except re.error:
        pass
    return readings if mark else readings + [re.compile(translate(glob)).match for glob in (text, f"*{text}*")]


@lru_cache(maxsize=4)
def _modules(key: tuple[type, str]) -> tuple[list[list[tuple[int, str]]], list[str]]:
    """Names of a decoder's modules: those in layers, together with that of other layers, and those outside."""
    kind, values = key
    config = kind(**json.loads(values))
    prefix = layer_prefix(config)
    layered: dict[str, list[tuple[int, str]]] = {}
    outside = []
    with torch.device("meta"):
        names = [name for name, _ in MODEL_FOR_CAUSAL_LM_MAPPING[kind](config).named_modules() if name]
    for name in names:
        if not name.startswith(prefix):
            outside.append(name)
            continue
        layer, _, rest = name.removeprefix(prefix).partition(".")
        # In checkpoints experts are modules of their own; in the model they are one.
        inner = (
            [f".{number}.{part}" for number in (0, 1) for part in _OF_AN_EXPERT] if rest.endswith("experts") else []
        )
        for end in ("", *inner):
            layered.setdefault(rest + end, []).append((int(layer), name + end))
    return list(layered.values()), outside


_OF_THE_WHOLE = ("dtype", "tie_word_embeddings", "quantization_config")
"""Fields that a composite model sets for all of its parts."""


def surrogate_config(config: PreTrainedConfig, kept: Mapping[int, int]) -> PreTrainedConfig:
    """The configuration of the decoder with some of its layers.

    Args:
        config (`PreTrainedConfig`): the target's configuration, of a composite model too; left as it is.
        kept (`Mapping[int, int]`): number of a kept layer in the target -> its number in the surrogate, in order.

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
    new.num_hidden_layers = len(kept)
    for field in decoder_family(config).per_layer:
        entries = getattr(old, field, None)
        if entries:
            setattr(new, field, [entries[layer] for layer in kept])
    if getattr(old, "layer_types", None):
        # The period that once made the list need not fit the shorter one; engines must read the list.
        _forget(new, "sliding_window_pattern")
    if hasattr(old, "first_k_dense_replace"):
        # Layers before this number have no experts.
        new.first_k_dense_replace = sum(layer < old.first_k_dense_replace for layer in kept)
    if hasattr(old, "max_window_layers"):
        # Layers from this number on have a sliding window.
        new.max_window_layers = sum(layer < old.max_window_layers for layer in kept)
    if hasattr(old, "decoder_sparse_step"):
        new.decoder_sparse_step = 1
        new.mlp_only_layers = [
            number
            for layer, number in kept.items()
            if layer in old.mlp_only_layers or (layer + 1) % old.decoder_sparse_step
        ]
    # The surrogate is of the stock class; files of remote code are not copied.
    _forget(new, "auto_map")
    quantization = getattr(new, "quantization_config", None)
    if quantization is not None:
        values = quantization if isinstance(quantization, dict) else quantization.to_dict()
        new.quantization_config = _renamed(values, config, kept)
    return new


def _forget(config: PreTrainedConfig, field: str) -> None:
    if hasattr(config, field):
        delattr(config, field)


def _renamed(value: Any, config: PreTrainedConfig, kept: Mapping[int, int]) -> Any:
    """A quantisation configuration with the surrogate's names of modules, as keys and in lists."""
    if isinstance(value, dict):
        names = {name: surrogate_module(config, kept, name) for name in value}
        return {names[name]: _renamed(item, config, kept) for name, item in value.items() if names[name] is not None}
    if isinstance(value, (list, tuple)):
        renamed = [surrogate_module(config, kept, item) if isinstance(item, str) else item for item in value]
        return [_renamed(item, config, kept) for item in renamed if item is not None]
    return value
