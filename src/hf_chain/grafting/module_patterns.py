"""What the surrogate calls modules that a quantisation configuration names, one by one or by patterns.

Libraries read patterns as regular expressions, searched, matched or matched in full, or as globs. Whichever way it is
read, a pattern is handed on where it says the same of every layer, and renumbered where it speaks of one alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from hf_chain.errors import HfChainError
from hf_chain.families import COMPOSITES
from hf_chain.grafting.anatomy import layer_prefix, text_config
from hf_chain.grafting.weight_names import decoder_name, with_number

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_MARK = re.compile(r"(re|\+|-):")
_PATTERN = re.compile(r"(re|\+|-):|.*[*?\[\](){}|^$\\]")
_NUMBER = re.compile(r"(?<![\w\\])(\d+)(?=\\?\.|\$?$)")
"""A number that is a whole part of a name."""
_NUMERIC = re.compile(r"(?<!\w)\d|\\d|\[")
"""What may speak of some numbers."""
_OF_AN_EXPERT = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")


def surrogate_module(config: PreTrainedConfig, places: Mapping[int, int], module: str) -> str | None:
    """What the surrogate calls a module, or a pattern of modules, that a configuration names.

    Args:
        config (`PreTrainedConfig`): the target's configuration.
        places (`Mapping[int, int]`): number of a kept layer in the target -> its number in the surrogate.
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
        return _renumbered(name, numbers[0], places) if numbers else name
    numbers = numbers or list(_NUMBER.finditer(name))
    spoken = _spoken_of(config, name)
    composite = COMPOSITES.get(config.model_type)
    if composite and composite.decoder.rpartition(".")[2] in name:
        numbers = []  # It speaks of the decoder by a name that the surrogate does not have.
    elif not spoken.some and (spoken.of_all or not _NUMERIC.search(name)):
        return name
    if len(numbers) == 1 and _is_one_layer(name, numbers[0], spoken):
        found = _renumbered(name, numbers[0], places)
        if found is None and not spoken.others:
            return None
        if found is not None and _spoken_of(config, found).some <= {places[int(numbers[0][1])]}:
            return found
    raise HfChainError(
        f"quantization_config names layers by the pattern {module!r}, which cannot be renumbered: write one entry for"
        " each layer"
    )


def _renumbered(name: str, number: re.Match[str], places: Mapping[int, int]) -> str | None:
    place = places.get(int(number[1]))
    return None if place is None else with_number(name, number, place)


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
