"""Which successor shapes growth accepts, in which of them it is exact, and the nearest shape in which it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hf_chain.errors import HfChainError
from hf_chain.growth.axes import CLIP, Tower
from hf_chain.growth.growth import embedding_size

if TYPE_CHECKING:
    from transformers import CLIPConfig, PreTrainedConfig

# Fields that say what goes in and how it is computed; a grown model keeps them.
_KEPT = {
    "text_config": ("vocab_size", "max_position_embeddings", "eos_token_id", "hidden_act"),
    "vision_config": ("image_size", "patch_size", "num_channels", "hidden_act"),
}
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def check_shapes(old: CLIPConfig, new: CLIPConfig, keep_heads: bool) -> None:
    """Refuse a successor that growth cannot reach.

    Args:
        old (`CLIPConfig`): the predecessor's configuration.
        new (`CLIPConfig`): the successor's.
        keep_heads (`bool`): the operator keeps the function of every head, so a head must not get smaller.

    Raises:
        HfChainError: when something shrinks, when the input or the activation differs, or when heads do not fit.
    """
    _check_grows("projection_dim", embedding_size(old), embedding_size(new))
    for part, kept in _KEPT.items():
        before, after = getattr(old, part), getattr(new, part)
        for field in kept:
            _check_kept(f"{part}.{field}", getattr(before, field), getattr(after, field))
        for field in _SIZES:
            _check_grows(f"{part}.{field}", getattr(before, field), getattr(after, field))
        if after.hidden_size % after.num_attention_heads:
            raise HfChainError(
                f"{part}.hidden_size={after.hidden_size} is not a multiple of"
                f" num_attention_heads={after.num_attention_heads}: choose a number of heads that divides the width"
            )
        if keep_heads and _head_size(after) < _head_size(before):
            raise HfChainError(
                f"{part}.num_attention_heads={after.num_attention_heads} makes heads of size {_head_size(after)},"
                f" smaller than the predecessor's {_head_size(before)}: use at most"
                f" {after.hidden_size // _head_size(before)} heads, or operator 'copy'"
            )


def inexact_towers(old: CLIPConfig, new: CLIPConfig, towers: Sequence[Tower] = CLIP) -> Iterator[Tower]:
    """The towers whose width cannot grow exactly: a norm before the first block and a width that is no multiple."""
    for tower in towers:
        before, after = (tower.config_of(config).hidden_size for config in (old, new))
        if tower.first_norm and after % before:
            yield tower


def nearest_exact_config(old: CLIPConfig, new: CLIPConfig) -> CLIPConfig:
    """The configuration closest to `new` in which exact growth from `old` is exact.

    Args:
        old (`CLIPConfig`): the predecessor's configuration.
        new (`CLIPConfig`): the wished successor's.

    Returns:
        `CLIPConfig`: a copy of `new` in which a width that had no exact rule is the nearest multiple of the
        predecessor's (at least twice it, the larger of two equally near), heads keep their size and the MLP its ratio.
    """
    config = copy.deepcopy(new)
    for tower in inexact_towers(old, new):
        before, after = tower.config_of(old), tower.config_of(config)
        wished = after.hidden_size
        copies = max(2, (2 * wished + before.hidden_size) // (2 * before.hidden_size))
        after.hidden_size = copies * before.hidden_size
        after.num_attention_heads = copies * before.num_attention_heads
        after.intermediate_size = max(
            before.intermediate_size, round(after.intermediate_size * after.hidden_size / wished)
        )
    return config


def _head_size(config: PreTrainedConfig) -> int:
    return config.hidden_size // config.num_attention_heads


def _check_kept(field: str, old: object, new: object) -> None:
    if old != new:
        raise HfChainError(f"{field}={new!r} differs from the predecessor's {old!r}: growth keeps it, use {old!r}")


def _check_grows(field: str, old: int, new: int) -> None:
    if new < old:
        raise HfChainError(f"{field}={new} is smaller than the predecessor's {old}: use {old} or more")
