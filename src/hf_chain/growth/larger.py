"""The configuration of a larger model from a few sizes, and what will grow by which rule."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from hf_chain.errors import HfChainError
from hf_chain.families import Stream, family_of, value_of

Config = TypeVar("Config")

_ALIKE: dict[type, tuple[type, ...]] = {float: (int, float), list: (list, tuple), tuple: (list, tuple)}

_MEMBERS = {"vocab_size": "new words start as the mean of the old ones", "image_size": "positions are interpolated"}
_MEMBERS |= {"max_position_embeddings": "what is beyond the old context starts as its last position"}


def larger_config(config: Config, changes: Mapping[str, Any]) -> Config:
    """A configuration with some sizes changed, and those that follow from them.

    Heads keep their size, groups of query heads theirs, and MLPs their ratio to the width; what `changes` names stays.

    Args:
        config (`PreTrainedConfig`): The predecessor's; not changed.
        changes (`Mapping[str, Any]`): Field, behind its part and a dot where it is not in the configuration itself,
            such as `vision_config.hidden_size`, to its value.

    Returns:
        `PreTrainedConfig`: A copy.

    Raises:
        HfChainError: When there is no such field, its value is of another type, or a width does not fit whole heads.
    """
    family, new = family_of(config), copy.deepcopy(config)
    for path, value in changes.items():
        _set(new, path, value, of_user=True)
    for stream in {(stream.part, stream.stage): stream for stream in family.streams}.values():
        _follow_width(stream, config, new, changes)
    for name, other in family.linked:
        if name not in changes and value_of(config, name) == value_of(config, other):
            _set(new, name, value_of(new, other))
    return new


def _follow_width(stream: Stream, old: Any, new: Any, changes: Mapping[str, Any]) -> None:
    before, after = stream.width_of(old), stream.width_of(new)
    if before == after:
        return
    if stream.width_again:
        setattr(stream.config_of(new), stream.width_again, after)
    heads, part = stream.heads_of(old), stream.config_of(new)
    number = heads.number
    if stream.heads and stream.field(stream.heads) not in changes:
        if heads.number * heads.size == before:
            if after % heads.size:
                wider = after - after % heads.size + heads.size
                raise HfChainError(
                    f"{stream.field(stream.width)}={after} is not a multiple of the head size {heads.size}: choose"
                    f" {wider}, or set {stream.field(stream.heads)} as well"
                )
            number = after // heads.size
        stream.resize(new, stream.heads, number)
    groups = stream.key_value_heads
    if getattr(part, groups, None) and stream.field(groups) not in changes:
        number, group = getattr(part, stream.heads), heads.number // heads.key_value
        setattr(part, groups, number // group if number % group == 0 else number)
    mlp = getattr(part, stream.mlp, None)
    # A ratio follows by itself.
    if isinstance(mlp, int) and not stream.mlp.endswith("_ratio") and stream.field(stream.mlp) not in changes:
        setattr(part, stream.mlp, mlp * after // before)


def _set(config: Any, path: str, value: Any, of_user: bool = False) -> None:
    *parts, name = path.split(".")
    for part in parts:
        config = getattr(config, part, None)
    if not hasattr(config, name):
        raise HfChainError(f"{path} is no field of the configuration: name one that its config.json has")
    now = getattr(config, name)
    alike = isinstance(value, _ALIKE.get(type(now), type(now)))
    if alike and isinstance(now, (list, tuple)):
        alike = all(isinstance(item, type(now[0])) for item in value)
    if of_user and now is not None and not alike:
        raise HfChainError(f"{path}={value!r} is of another kind than its present {now!r}: give one of the same")
    if of_user and isinstance(now, (list, tuple)) and len(value) != len(now):
        raise HfChainError(f"{path}={value!r} has another number of stages than its present {now!r}: give {len(now)}")
    setattr(config, name, float(value) if isinstance(now, float) else value)


def growing(old: Any, new: Any) -> list[tuple[str, Any, Any, str]]:
    """What grows: the field, its old and its new value, and the rule in a few words.

    Args:
        old (`PreTrainedConfig`): The predecessor's configuration.
        new (`PreTrainedConfig`): The successor's.

    Returns:
        `list[tuple[str, Any, Any, str]]`: In the order of the streams, empty where nothing grows.
    """
    from hf_chain.growth.exact import width_rule

    family = family_of(old)
    found: dict[str, str] = {}
    # The rule that is told of stages is that of the first that gets wider.
    for stream in sorted(family.streams, key=lambda stream: stream.width_of(old) == stream.width_of(new)):
        rules = {
            stream.width: width_rule(family, stream, old, new).how,
            stream.depth: "new blocks start as identity",
            stream.heads: "new heads write zeros",
            stream.key_value_heads: "groups of heads are added, or share copies",
            stream.mlp: "new units write zeros",
            "num_local_experts": "experts are copied",
            "num_experts": "experts are copied",
            **_MEMBERS,
        }
        for name, how in rules.items():
            found.setdefault(stream.field(name), how)
    found |= {family.embedding: "new coordinates start at zero"} if family.embedding else {}
    values = {name: (value_of(old, name), value_of(new, name)) for name in found}
    return [(name, *values[name], how) for name, how in found.items() if values[name][0] != values[name][1]]
