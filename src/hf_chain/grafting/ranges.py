"""Ranges of layers that are replaced, as text and as data, and how small they make the surrogate."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from hf_chain.cost import human
from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from hf_chain.grafting.trajectory import Trajectory


_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True, order=True)
class LayerRange:
    """A run of decoder layers.

    Args:
        first (`int`): its first layer, counted from 0.
        last (`int`): its last layer, which belongs to it.
    """

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def __len__(self) -> int:
        return max(0, self.last - self.first + 1)

    @property
    def layers(self) -> range:
        """The layers of the range, in order."""
        return range(self.first, self.last + 1)


Replaced = str | LayerRange | range | Sequence[str | LayerRange | range]
"""Ranges as they may be given; see `as_ranges`."""


def parse_ranges(text: str) -> tuple[LayerRange, ...]:
    """Reads ranges from text.

    Args:
        text (`str`): ranges such as `"16-26"` or `"3-5,8-10"`, both ends belonging to them, counted from 0.

    Returns:
        `tuple[LayerRange]`: the ranges, in the order of the text.

    Raises:
        HfChainError: when the text has another form.
    """
    ranges = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise HfChainError(
                f"layer range {part.strip()!r} cannot be read: write FIRST-LAST, such as 16-26, or 3-5,8-10"
            )
        ranges.append(LayerRange(int(match[1]), int(match[2] or match[1])))
    return tuple(ranges)


def as_ranges(replaced: Replaced) -> tuple[LayerRange, ...]:
    """Ranges as they may be given: as text, one alone, or several.

    Args:
        replaced (`str`, `LayerRange`, `range` or a sequence of them): such as `"16-26"`, `LayerRange(16, 26)`,
            `range(16, 27)`, whose end does not belong to it, or `["3-5", "8-10"]`.

    Returns:
        `tuple[LayerRange]`: the ranges, in the order given.

    Raises:
        HfChainError: when something of it does not name ranges.
    """
    if isinstance(replaced, str):
        return parse_ranges(replaced)
    if isinstance(replaced, LayerRange):
        return (replaced,)
    if isinstance(replaced, range) and replaced.step == 1:
        return (LayerRange(replaced.start, replaced.stop - 1),)
    if isinstance(replaced, (list, tuple)) and all(isinstance(part, (str, LayerRange, range)) for part in replaced):
        return tuple(span for part in replaced for span in as_ranges(part))
    raise HfChainError(f"layer range {replaced!r} cannot be read: write FIRST-LAST, such as 16-26, or 3-5,8-10")


def check_ranges(ranges: Sequence[LayerRange], num_layers: int, translators: int = 1) -> tuple[LayerRange, ...]:
    """Refuses ranges that make no surrogate.

    Args:
        ranges (`Sequence[LayerRange]`): the replaced ranges.
        num_layers (`int`): the target's number of layers.
        translators (`int`): layers of each range that stay as its translator.

    Returns:
        `tuple[LayerRange]`: the ranges, from the first layer to the last.

    Raises:
        HfChainError: when there is no range, or when one is empty, reaches outside of the model, overlaps another,
            leaves no layer after it, or has no more layers than translators.
    """
    if not ranges:
        raise HfChainError("no layer range is given: name the layers to replace, such as 16-26")
    if translators < 1:
        raise HfChainError(f"translators={translators}: a replaced range keeps at least 1 layer as its translator")
    ordered = tuple(sorted(ranges))
    for span in ordered:
        if not span:
            raise HfChainError(
                f"layer range {span} is empty, it ends before it starts: did you mean {span.last}-{span.first}?"
            )
        if span.first < 0 or span.last >= num_layers:
            raise HfChainError(
                f"layer range {span} reaches outside of the model, which has {num_layers} layers: stay in"
                f" 0-{num_layers - 1}"
            )
        if span.last == num_layers - 1:
            raise HfChainError(
                f"layer range {span} replaces the model's last layer, which the surrogate keeps: end at"
                f" {num_layers - 2} or before"
            )
        if len(span) <= translators:
            raise HfChainError(
                f"layer range {span} has {len(span)} layers for translators={translators}, so nothing is dropped:"
                f" take a longer range or fewer translators"
            )
    for before, after in zip(ordered, ordered[1:], strict=False):
        if after.first <= before.last:
            raise HfChainError(f"layer ranges {before} and {after} overlap: give ranges that share no layer")
    return ordered


def kept_layers(ranges: Sequence[LayerRange], num_layers: int, translators: int = 1) -> tuple[int, ...]:
    """The target's layers that stay in the surrogate, in order.

    Args:
        ranges (`Sequence[LayerRange]`): checked ranges.
        num_layers (`int`): the target's number of layers.
        translators (`int`): layers of each range that stay, its first ones.

    Returns:
        `tuple[int]`: their numbers in the target.
    """
    dropped = {layer for span in ranges for layer in span.layers[translators:]}
    return tuple(layer for layer in range(num_layers) if layer not in dropped)


def translator_layers(ranges: Sequence[LayerRange], num_layers: int, translators: int = 1) -> tuple[int, ...]:
    """Where the translators stand in the surrogate: indices of its own layers, in order.

    Args:
        ranges (`Sequence[LayerRange]`): checked ranges.
        num_layers (`int`): the target's number of layers.
        translators (`int`): layers of each range that stay, its first ones.

    Returns:
        `tuple[int]`: their numbers in the surrogate.
    """
    stand_in = {layer for span in ranges for layer in span.layers[:translators]}
    return tuple(
        index for index, layer in enumerate(kept_layers(ranges, num_layers, translators)) if layer in stand_in
    )


@dataclass(frozen=True)
class Budget:
    """The most that a surrogate may be, by one of three measures.

    Args:
        parameters (`int`, *optional*): parameters, embeddings and head included.
        macs_share (`float`, *optional*): share, in (0, 1), of the target's forward MACs on a sample of mean length.
        layers (`int`, *optional*): layers, translators included.

    Raises:
        HfChainError: when not exactly one of them is given, or its value is impossible.
    """

    parameters: int | None = None
    macs_share: float | None = None
    layers: int | None = None

    def __post_init__(self) -> None:
        given = [part.name for part in fields(self) if getattr(self, part.name) is not None]
        if len(given) != 1:
            names = " and ".join(given) or "nothing"
            raise HfChainError(
                f"a budget has one measure, but {names} is given: choose parameters, macs_share or layers"
            )
        value, share = getattr(self, given[0]), given[0] == "macs_share"
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # A value that is not a number is above nothing.
        if not number or not value > 0 or (share and value >= 1):
            allowed = "a share between 0 and 1" if share else "a number above 0"
            raise HfChainError(f"budget {given[0]}={value!r} is impossible: give {allowed}")

    def __str__(self) -> str:
        if self.parameters is not None:
            return f"{human(self.parameters)} parameters"
        return f"{self.layers} layers" if self.macs_share is None else f"{self.macs_share:.0%} of the MACs"

    def allows(self, trajectory: Trajectory, kept: Collection[int]) -> bool:
        """Whether a surrogate is within the budget.

        Args:
            trajectory (`Trajectory`): of the target.
            kept (`Collection[int]`): the target's layers that the surrogate has.

        Returns:
            `bool`: whether it is.
        """
        if self.parameters is not None:
            return trajectory.parameters(kept) <= self.parameters
        if self.macs_share is not None:
            return trajectory.sample_macs(kept) <= self.macs_share * trajectory.sample_macs()
        return self.layers is None or len(kept) <= self.layers
