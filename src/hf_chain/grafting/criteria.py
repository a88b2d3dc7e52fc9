"""Which layers the surrogate replaces: criteria that read a trajectory, and the choice by one of them.

A range's first layers stay as its translator, the rest of it is dropped, and what comes after it stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers.utils import logging

from hf_chain.errors import HfChainError
from hf_chain.grafting.ranges import Budget, LayerRange, Replaced, as_ranges, check_ranges, kept_layers
from hf_chain.grafting.trajectory import Trajectory

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class TwoSegments:
    """Two straight segments that meet at a knot.

    Attributes:
        start (`int`): x of the first value.
        knot (`int`): x where the segments meet.
        slopes (`tuple[float, float]`): of the segment before the knot and of the one after it.
        values (`list[float]`): the segments at x = start, start + 1, …
    """

    start: int
    knot: int
    slopes: tuple[float, float]
    values: list[float]

    @property
    def falls_at_knot(self) -> bool:
        """Whether the second segment falls, and faster than the first."""
        return self.slopes[1] < min(0, self.slopes[0])


def fit_two_segments(values: Sequence[float], start: int = 0) -> TwoSegments:
    """Fits y = a + b·x + c·max(0, x − k) for each inner x as k and takes the k with the least squared error.

    Args:
        values (`Sequence[float]`): y, at least three values.
        start (`int`, *optional*, defaults to 0): x of the first value; the others follow in steps of 1.

    Returns:
        `TwoSegments`: the best fit.

    Raises:
        ValueError: when there are fewer than three finite values.
    """
    x = start + np.arange(len(values), dtype=np.float64)
    y = np.asarray(values, dtype=np.float64)
    best, least = None, np.inf
    for knot in range(start + 1, start + len(values) - 1):
        design = np.stack([np.ones_like(x), x, np.maximum(0, x - knot)], axis=1)
        coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
        fitted = design @ coefficients
        error = float(((fitted - y) ** 2).sum())
        if error < least:
            least = error
            before, bend = float(coefficients[1]), float(coefficients[2])
            best = TwoSegments(start, knot, (before, before + bend), fitted.tolist())
    if best is None:
        raise ValueError(f"two segments need three finite values at least, not {list(values)}")
    return best


SpliceErrors = Callable[[LayerRange], float] | Mapping[LayerRange, float]
"""Regression error at the splice of a range: a function that measures it, or what was measured."""


@dataclass(frozen=True)
class CutRequest:
    """What a criterion chooses from; the fields are the arguments of `choose_ranges`."""

    trajectory: Trajectory
    budget: Budget | None = None
    translators: int = 1
    keep_last: int = 1
    ranges: Replaced | None = None
    splice_errors: SpliceErrors | None = None

    @property
    def end(self) -> int:
        """The last layer that may be replaced."""
        return self.trajectory.num_layers - 1 - self.keep_last

    def dropped(self, span: LayerRange) -> range:
        """Layers of a range that the surrogate lacks.

        Args:
            span (`LayerRange`): the range.

        Returns:
            `range`: numbers of the target's layers.
        """
        return span.layers[self.translators :]

    def fits(self, *ranges: LayerRange) -> bool:
        """Whether the surrogate without these ranges is within the budget.

        Args:
            ranges (`LayerRange`): all of its ranges.

        Returns:
            `bool`: true without a budget.
        """
        kept = kept_layers(ranges, self.trajectory.num_layers, self.translators)
        return self.budget is None or self.budget.allows(self.trajectory, kept)

    def possible(self) -> list[LayerRange]:
        """Ranges that drop a layer at least and meet the budget.

        Returns:
            `list[LayerRange]`: by first layer, then by last.

        Raises:
            HfChainError: when there is none.
        """
        firsts = range(self.end - self.translators + 1)
        spans = [LayerRange(first, last) for first in firsts for last in range(first + self.translators, self.end + 1)]
        fitting = [span for span in spans if self.fits(span)]
        if not fitting:
            wanted = "drops a layer" if self.budget is None else f"leaves {self.budget}"
            raise HfChainError(
                f"no range of the target's {self.trajectory.num_layers} layers {wanted} with translators="
                f"{self.translators} and keep_last={self.keep_last}: give a larger budget or a deeper target"
            )
        return fitting

    def shortest(self) -> list[LayerRange]:
        """Of the possible ranges, the shortest from each first layer.

        Returns:
            `list[LayerRange]`: by first layer.

        Raises:
            HfChainError: when there is no budget, or no range that meets it.
        """
        if self.budget is None:
            raise HfChainError(
                "this criterion compares ranges of one size: give a budget in parameters, macs_share or layers"
            )
        shortest: dict[int, LayerRange] = {}
        for span in self.possible():
            shortest.setdefault(span.first, span)
        return list(shortest.values())


def by_two_segments(request: CutRequest) -> tuple[LayerRange, ...]:
    """From the break of the prediction distance to the last layer that may be replaced; the default.

    The break is where two joined straight segments that fit the median trajectory meet; in the paper's targets the
    distance begins to fall there. A budget that this range does not meet moves its beginning to an earlier layer.

    Args:
        request (`CutRequest`): trajectory, budget and the other arguments of `choose_ranges`.

    Returns:
        `tuple[LayerRange]`: one range.

    Raises:
        HfChainError: when no range meets the budget, or there are too few layers for a fit.
    """
    latest = max(span.first for span in request.possible() if span.last == request.end)
    fit = fit_trajectory(request.trajectory, request.keep_last)
    if not fit.falls_at_knot:
        logger.warning(
            f"the prediction distance of {request.trajectory.model} has no plateau that ends in a fall: its break, at"
            f" layer {fit.knot}, is where it begins to fall more slowly; compare with other criteria"
        )
    return (LayerRange(min(fit.knot, latest), request.end),)


def by_block_influence(request: CutRequest) -> tuple[LayerRange, ...]:
    """The range whose dropped layers change the hidden state least, of the size that meets the budget (ShortGPT).

    Args:
        request (`CutRequest`): trajectory, budget and the other arguments of `choose_ranges`.

    Returns:
        `tuple[LayerRange]`: one range.

    Raises:
        HfChainError: without a budget, or when no range meets it.
    """
    influence = request.trajectory.block_influence
    return (min(request.shortest(), key=lambda span: sum(influence[layer] for layer in request.dropped(span))),)


def by_splice_error(request: CutRequest) -> tuple[LayerRange, ...]:
    """The range with the least regression error at the splice for each layer it drops.

    Of measured errors those of ranges within the budget count. A function measures ranges of the size that meets it.

    Args:
        request (`CutRequest`): trajectory, budget and the other arguments of `choose_ranges`.

    Returns:
        `tuple[LayerRange]`: one range.

    Raises:
        HfChainError: without errors, or when none of theirs is of a possible range.
    """
    errors = request.splice_errors
    if errors is None:
        raise HfChainError("criterion 'splice_error' has no errors to compare: give splice_errors")
    if isinstance(errors, Mapping):
        possible = set(request.possible())
        measured = {span: error for span, error in errors.items() if span in possible}
    else:
        measured = {span: errors(span) for span in request.shortest()}
    if not measured:
        raise HfChainError(
            "no range in splice_errors meets the budget, drops a layer and keeps the last ones: measure others"
        )
    return (min(measured, key=lambda span: measured[span] / len(request.dropped(span))),)


def as_given(request: CutRequest) -> tuple[LayerRange, ...]:
    """The ranges that are given.

    Args:
        request (`CutRequest`): trajectory, budget and the other arguments of `choose_ranges`.

    Returns:
        `tuple[LayerRange]`: checked, in order.

    Raises:
        HfChainError: when there are none, or they do not fit the target or the budget.
    """
    if request.ranges is None:
        raise HfChainError("criterion 'explicit' has nothing to take: give ranges, such as 16-26")
    checked = check_ranges(as_ranges(request.ranges), request.trajectory.num_layers, request.translators)
    if not request.fits(*checked):
        raise HfChainError(
            f"ranges {', '.join(map(str, checked))} leave more than {request.budget}: give longer ranges or no budget"
        )
    return checked


CRITERIA: dict[str, Callable[[CutRequest], tuple[LayerRange, ...]]] = {
    "two_segment": by_two_segments,
    "block_influence": by_block_influence,
    "splice_error": by_splice_error,
    "explicit": as_given,
}
"""Name of each criterion and the function that chooses."""


def choose_ranges(
    trajectory: Trajectory,
    criterion: str = "two_segment",
    *,
    budget: Budget | None = None,
    translators: int = 1,
    keep_last: int = 1,
    ranges: Replaced | None = None,
    splice_errors: SpliceErrors | None = None,
) -> tuple[LayerRange, ...]:
    """Chooses the layers that the surrogate replaces.

    Args:
        trajectory (`Trajectory`): of the target.
        criterion (`str`, *optional*, defaults to `"two_segment"`): one of `CRITERIA`.
        budget (`Budget`, *optional*): the most that the surrogate may be; `block_influence` needs one.
        translators (`int`, *optional*, defaults to 1): layers of a range that stay as its translator.
        keep_last (`int`, *optional*, defaults to 1): layers that stay at the end, whose number `explicit` says itself.
        ranges (`str` or `Sequence[LayerRange]`, *optional*): what `explicit` takes, such as `"16-26"`.
        splice_errors (`Callable[[LayerRange], float]` or `Mapping[LayerRange, float]`, *optional*): what
            `splice_error` compares; a function needs a budget.

    Returns:
        `tuple[LayerRange]`: checked ranges, in order.

    Raises:
        HfChainError: for an unknown criterion, an argument that it does not read or lacks, and a budget that no range
            meets.
    """
    if criterion not in CRITERIA:
        raise HfChainError(f"criterion={criterion!r} is unknown: use one of {', '.join(CRITERIA)}")
    for reader, name, value in (("explicit", "ranges", ranges), ("splice_error", "splice_errors", splice_errors)):
        if value is not None and criterion != reader:
            raise HfChainError(f"{name} is not read by criterion {criterion!r}: leave it out or use {reader!r}")
    if keep_last < 1:
        raise HfChainError(f"keep_last={keep_last}: a surrogate keeps at least the target's last layer")
    if translators < 1:
        raise HfChainError(f"translators={translators}: a replaced range keeps at least 1 layer as its translator")
    request = CutRequest(trajectory, budget, translators, keep_last, ranges, splice_errors)
    return CRITERIA[criterion](request)


def fit_trajectory(trajectory: Trajectory, keep_last: int = 1) -> TwoSegments:
    """Two straight segments through the median prediction distance, by number of the state.

    The embeddings (state 0) are no layer's prediction, and layers at the end stay wherever the break is: both are left
    out.

    Args:
        trajectory (`Trajectory`): of the target.
        keep_last (`int`, *optional*, defaults to 1): layers at the end that stay.

    Returns:
        `TwoSegments`: with the state where they meet as its knot.

    Raises:
        HfChainError: when fewer than three states are left.
    """
    distances = trajectory.prediction_distance[1 : trajectory.num_layers - keep_last + 1]
    if len(distances) < 3:
        raise HfChainError(
            f"criterion 'two_segment' needs 3 layers before the last {keep_last}, and the target has"
            f" {trajectory.num_layers} in all: name the range yourself"
        )
    return fit_two_segments(distances, start=1)
