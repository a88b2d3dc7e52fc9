"""Depth: which predecessor block each successor block comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hf_chain.families import Stream


@dataclass(frozen=True)
class Origin:
    """Where a successor's block comes from.

    Args:
        block (`int`): the predecessor's block.
        inserted (`int`): 0 for a block that works as it did; n for the n-th new block behind it, which adds nothing to
            the residual stream at the start because its writes are zero.
    """

    block: int
    inserted: int = 0


DepthRule = Callable[[int, int], list[Origin]]


def origins(rule: DepthRule, stream: Stream, old: Any, new: Any) -> list[Origin]:
    """Where the blocks of a stream come from; those that take turns come together.

    Args:
        rule (`Callable`): A depth rule.
        stream (`Stream`): The stream.
        old (`PreTrainedConfig`): The predecessor's configuration.
        new (`PreTrainedConfig`): The successor's.
    """
    before, after = stream.depth_of(old), stream.depth_of(new)
    period = stream.period if before != after else 1
    return [
        replace(origin, block=origin.block * period + turn)
        for origin in rule(before // period, after // period)
        for turn in range(period)
    ]


def interpolated(old: int, new: int) -> list[Origin]:
    """Successor block l′ is a copy of block ⌊l′·L/L′⌋ (CoM-PT: ViT-B's block l becomes ViT-L's blocks 2l and 2l+1)."""
    return [Origin(block * old // new) for block in range(new)]


def stacked(old: int, new: int) -> list[Origin]:
    """Successor block l′ is a copy of block l′ mod L, the whole stack again and again (StackBERT, G_stack)."""
    return [Origin(block % old) for block in range(new)]


def inserted(old: int, new: int) -> list[Origin]:
    """As `interpolated`, but only the first copy of a block works; the others start as identity (LLaMA Pro)."""
    blocks = [origin.block for origin in interpolated(old, new)]
    return [Origin(block, inserted=place - blocks.index(block)) for place, block in enumerate(blocks)]
