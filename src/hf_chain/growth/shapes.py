"""Which successor shapes growth accepts, in which of them it is exact, and the nearest shape in which it is."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from hf_chain.errors import HfChainError
from hf_chain.families import Family, Stream, family_of, value_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Config = TypeVar("Config", bound="PreTrainedConfig")

EXACT_IN_WIDTH = ("exact", "stack", "interpolate")
"""Operators that keep the function of the width, and so of every head."""

_FREE = re.compile(
    r"(?:\w+_config\.)?(?:_\w+|architectures|transformers_version|dtype|torch_dtype|attn_implementation|\w*drop\w*|init\w*"
    r"|(?:bos|pad|sep|cls|mask|unk)_token_id|id2label|label2id|num_labels|problem_type|use_cache|output_\w+|return_dict"
    r"|out_features|out_indices|stage_names|max_window_layers|is_decoder|model_type|task_specific_params)"
)
"""Fields that no output depends on, or that follow from the sizes; every other field that is no size stays."""

_EXPERTS = ("num_local_experts", "num_experts", "num_experts_per_tok", "moe_intermediate_size")

_INPUTS = ("vocab_size", "max_position_embeddings", "image_size", "num_patches")
"""Fields of the input that may grow: words are added, positions interpolated."""


def check_shapes(old: PreTrainedConfig, new: PreTrainedConfig, keep_heads: bool) -> None:
    """Refuse a successor that growth cannot reach.

    Args:
        old (`PreTrainedConfig`): The predecessor's configuration.
        new (`PreTrainedConfig`): The successor's.
        keep_heads (`bool`): The operator keeps the function of every head, so a head must not get smaller.

    Raises:
        HfChainError: When the families differ or are unknown, something shrinks, the input or the activation differs,
            or heads do not fit.
    """
    if old.model_type != new.model_type:
        raise HfChainError(f"the configuration is a {type(new).__name__}: give a {type(old).__name__}")
    family = family_of(old)
    for stream in family.streams:
        before, after = (value_of(config, stream.field("model_type")) for config in (old, new))
        if before and after and before != after:
            raise HfChainError(f"{stream.field('model_type')}={after!r} differs: give the predecessor's {before!r}")
    if family.cut_only:
        raise HfChainError(f"{old.model_type} models cannot grow: {family.cut_only}")
    for name, value, reason in family.refused:
        if value_of(old, name) == value:
            raise HfChainError(f"{name}={value!r} cannot grow: {reason}")
    if family.embedding:
        _check_grows(old, new, family.embedding)
    free = {family.embedding, *(name for name, _ in family.linked), *_sizes(family, old)}
    # A CLIP's text tower is read at its end token.
    free |= {"eos_token_id"} if family.kind == "language" else set()
    free |= {"text_config.eos_token_id"} if family.reads_padding else set()
    for name, before, after in _differences(old, new):
        fixed = family.fixed is not None and name.startswith(f"{family.fixed}.")
        if (fixed or name not in free) and not _FREE.fullmatch(name):
            why = ", as norms on the stream cannot grow" if fixed else ""
            raise HfChainError(
                f"{name}={after!r} differs from the predecessor's {before!r}: growth keeps it{why}, use {before!r}"
            )
    for name, other in family.linked:
        value, wanted = value_of(new, name), value_of(new, other)
        # No weight depends on what CLIP's towers say of the embedding.
        if other != family.embedding and value_of(old, name) == value_of(old, other) and value != wanted:
            raise HfChainError(f"{name}={value} differs from {other}={wanted}: set it to {wanted}")
    for stream in family.streams:
        for name in (*_INPUTS, stream.width, stream.mlp, stream.depth, stream.heads, stream.key_value_heads):
            _check_grows(old, new, stream.field(name))
        _check_turns(stream, old, new)
        _check_heads(stream, old, new, keep_heads)
        _check_experts(stream, old, new)


def inexact_streams(old: PreTrainedConfig, new: PreTrainedConfig) -> Iterator[Stream]:
    """The streams whose width cannot grow exactly.

    A norm before the first block, or norms that do not stand on the stream alone, and a width that is no multiple.
    """
    for stream in family_of(old).streams:
        if (stream.first_norm or stream.multiples) and stream.width_of(new) % stream.width_of(old):
            yield stream


def nearest_exact_config(old: Config, new: Config) -> Config:
    """The configuration closest to `new` in which exact growth from `old` is exact.

    Args:
        old (`PreTrainedConfig`): The predecessor's configuration.
        new (`PreTrainedConfig`): The wished successor's.

    Returns:
        `PreTrainedConfig`: A copy of `new` in which a width that had no exact rule is the nearest multiple of the
        predecessor's (at least twice it, the larger of two equally near), heads keep their size and the MLP its ratio.
    """
    config = copy.deepcopy(new)
    for stream in inexact_streams(old, new):
        width, wished = stream.width_of(old), stream.width_of(new)
        copies = max(2, (2 * wished + width) // (2 * width))
        stream.resize(config, stream.width, copies * width // stream.width_times)
        if stream.width_again:
            setattr(stream.config_of(config), stream.width_again, copies * width)
        if stream.heads:
            stream.resize(config, stream.heads, copies * stream.size_of(old, stream.heads))
        if stream.mlp and not stream.mlp.endswith("_ratio"):
            mlp = round(stream.size_of(new, stream.mlp) * copies * width / wished)
            stream.resize(config, stream.mlp, max(stream.size_of(old, stream.mlp), mlp))
    return config


def _sizes(family: Family, config: Any) -> Iterator[str]:
    """Fields that may grow or that growth sets, by their names in a `config.json`."""
    for stream in family.streams:
        sizes = (stream.width, stream.width_again, stream.depth, stream.mlp)
        heads = (stream.heads, stream.key_value_heads, stream.head_size)
        stored = getattr(stream.config_of(config), "attribute_map", {})
        for name in (*sizes, *heads, *_INPUTS, *_EXPERTS, *family.per_layer, stream.epsilon):
            if name:
                yield stream.field(stored.get(name, name))


def _differences(old: Any, new: Any, part: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Fields in which two configurations differ: their names behind their part, and both values."""
    before, after = (config.to_dict() if hasattr(config, "to_dict") else vars(config) for config in (old, new))
    # A shape that is only counted has a few of the fields.
    whole = hasattr(old, "to_dict") and hasattr(new, "to_dict")
    for name in before.keys() | after.keys() if whole else before.keys() & after.keys():
        if name.endswith("_config") and hasattr(getattr(old, name, None), "__dict__"):
            yield from _differences(getattr(old, name), getattr(new, name), f"{name}.")
        elif before.get(name) != after.get(name):
            yield f"{part}{name}", before.get(name), after.get(name)


def _check_grows(old: PreTrainedConfig, new: PreTrainedConfig, name: str) -> None:
    before, after = value_of(old, name), value_of(new, name)
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        if len(before) != len(after):
            raise HfChainError(
                f"{name}={after} is of {len(after)} stages: the predecessor has {len(before)}, use as many"
            )
        if any(larger < smaller for smaller, larger in zip(before, after, strict=True)):
            raise HfChainError(
                f"{name}={after} is smaller than the predecessor's {before} in a stage: use as much or more"
            )
    elif isinstance(before, (int, float)) and isinstance(after, (int, float)) and after < before:
        raise HfChainError(f"{name}={after} is smaller than the predecessor's {before}: use {before} or more")


def _check_turns(stream: Stream, old: PreTrainedConfig, new: PreTrainedConfig) -> None:
    before, after = stream.depth_of(old), stream.depth_of(new)
    if before == after or before % stream.period == after % stream.period == 0:
        return
    name = stream.field_of(new, stream.depth)
    if before % stream.period:
        raise HfChainError(f"{name}={after} of {before}: blocks take turns by {stream.period}, so use {before}")
    raise HfChainError(
        f"{name}={after} is not a multiple of {stream.period}, by which blocks take turns: use"
        f" {after + stream.period - after % stream.period}"
    )


def _check_heads(stream: Stream, old: PreTrainedConfig, new: PreTrainedConfig, keep_heads: bool) -> None:
    before, after, width = stream.heads_of(old), stream.heads_of(new), stream.width_of(new)
    name = stream.field_of(new, stream.heads)
    if not getattr(stream.config_of(new), stream.head_size, None) and width % after.number:
        raise HfChainError(
            f"{stream.field(stream.width)}={width} is not a multiple of {stream.heads}={after.number}:"
            " choose a number of heads that divides the width"
        )
    groups = stream.field(stream.key_value_heads)
    if after.number % after.key_value:
        raise HfChainError(f"{name}={after.number} is not a multiple of {groups}={after.key_value}: choose one")
    if not keep_heads:
        return
    if after.size < before.size:
        raise HfChainError(
            f"{name}={after.number} makes heads of size {after.size}, smaller than the predecessor's {before.size}:"
            f" use at most {width // before.size} heads, or operator 'copy'"
        )
    if (stream.rotary or stream.cosine) and after.size != before.size:
        other = f", or set {stream.field(stream.head_size)}={before.size}" if stream.head_size else ""
        why = "rotary positions need" if stream.rotary else "cosines of queries and keys need"
        raise HfChainError(
            f"{name}={after.number} makes heads of size {after.size} of {before.size}, and {why} the size:"
            f" use {width // before.size} heads{other}"
        )
    needed = before.key_value * -(-(before.number // before.key_value) // (after.number // after.key_value))
    if after.key_value < needed:
        raise HfChainError(
            f"{groups}={after.key_value} is too few for {name}={after.number}, as every key–value head serves"
            f" {after.number // after.key_value} of them: use {needed} or more"
        )


def _check_experts(stream: Stream, old: PreTrainedConfig, new: PreTrainedConfig) -> None:
    for name in ("num_local_experts", "num_experts"):
        before, after = (value_of(config, stream.field(name)) for config in (old, new))
        if not isinstance(before, int):
            continue
        chosen = [value_of(config, stream.field("num_experts_per_tok")) for config in (old, new)]
        if after % before or chosen[0] * after != chosen[1] * before:
            raise HfChainError(
                f"{name}={after} with num_experts_per_tok={chosen[1]} cannot be reached from {before} with"
                f" {chosen[0]}: multiply both by the same whole number"
            )
