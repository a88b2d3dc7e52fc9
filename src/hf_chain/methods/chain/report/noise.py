"""How far a figure can be trusted: its interval, the level of chance, and whether a member got worse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

from hf_chain.evaluation.metrics import metric_of
from hf_chain.report import words
from hf_chain.runs.ledger import MemberRecord

CONFIDENCE = 0.95


def wilson(share: float, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a share of right answers (Wilson, 1927: the score interval, which holds near 0 and 1 as well).

    Args:
        share (`float`): Of right answers, in [0, 1].
        trials (`int`): Answers, 1 or more.
        confidence (`float`): Of the interval.

    Returns:
        `tuple[float, float]`: Its ends, in [0, 1].
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    shrink = 1 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / shrink
    reach = z / shrink * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def interval(record: MemberRecord, split: str, metric: str) -> tuple[float, float] | None:
    """Interval of a metric after training, where it is known of how many images or captions it is the mean.

    Args:
        record (`MemberRecord`): The member.
        split (`str`): The split.
        metric (`str`): Name of the metric, a share.

    Returns:
        `tuple[float, float]`, *optional*: Its ends, in [0, 1].
    """
    share = record.metrics_after.get(split, {}).get(metric)
    trials = record.metrics_trials.get(split, {}).get(metric)
    return wilson(share, trials) if share is not None and trials and metric_of(metric).is_share else None


def chance(members: Mapping[str, MemberRecord], split: str, metric: str) -> float | None:
    """What a random order reaches; the same for all members, as they are evaluated on the same rows.

    Args:
        members (`Mapping[str, MemberRecord]`): By name.
        split (`str`): The split.
        metric (`str`): Name of the metric.

    Returns:
        `float`, *optional*: In [0, 1].
    """
    known = (record.metrics_chance.get(split, {}).get(metric) for record in members.values())
    return next((level for level in known if level is not None), None)


def worse(records: Mapping[str, MemberRecord], metric: str) -> list[str]:
    """Sentences on members that have less of `metric` than the member they were grown from.

    Args:
        records (`Mapping[str, MemberRecord]`): By name.
        metric (`str`): Name of the metric.

    Returns:
        `list[str]`: One for each member and split.
    """
    found = []
    for record in records.values():
        parent = records.get(record.parent or "")
        if parent is None:
            continue
        for split, metrics in record.metrics_after.items():
            before, after = parent.metrics_after.get(split, {}).get(metric), metrics.get(metric)
            if before is None or after is None:
                continue
            if after <= before if metric_of(metric).lower_is_better else after >= before:
                continue
            low, high = interval(record, split, metric), interval(parent, split, metric)
            unsure = low is not None and high is not None and low[1] >= high[0]
            found.append(
                f"{record.name} is worse than {record.parent}, from which it was grown: {words.figure(metric, after)} "
                f"after {words.figure(metric, before)} on {split}"
                f"{', within the noise of so few samples' if unsure else ''}."
            )
    return found


AHEAD = 2
"""Standard errors that a share has to be ahead by."""


@dataclass(frozen=True)
class Lead:
    """What a member reaches beside another.

    Args:
        ours (`float`): Of the member.
        theirs (`float`): Of the other.
        ahead (`float`): By which it is better, 0 or less where it is not.
        error (`float`, *optional*): Standard error of that, from how many each is the mean of; of shares alone.
    """

    ours: float
    theirs: float
    ahead: float
    error: float | None

    @property
    def verdict(self) -> str:
        """Whether it is ahead of the other, which stands as `it`."""
        if self.error is None:
            return "is ahead of it" if self.ahead > 0 else "is not ahead of it"
        by = f"{100 * abs(self.ahead):.1f} ± {100 * self.error:.1f} points"
        if abs(self.ahead) <= AHEAD * self.error:
            return f"is within the noise of it ({'+' if self.ahead > 0 else '−'}{by})"
        return f"is {by} {'ahead of' if self.ahead > 0 else 'behind'} it"


def lead(ours: MemberRecord, theirs: MemberRecord, split: str, metric: str) -> Lead | None:
    """How far a member is ahead of another; `None` where either was not measured.

    Args:
        ours (`MemberRecord`): The member.
        theirs (`MemberRecord`): The other.
        split (`str`): The split.
        metric (`str`): Name of the metric.
    """
    one, other = (record.metrics_after.get(split, {}).get(metric) for record in (ours, theirs))
    if one is None or other is None:
        return None
    ahead = other - one if metric_of(metric).lower_is_better else one - other
    counts = [record.metrics_trials.get(split, {}).get(metric) or 0 for record in (ours, theirs)]
    if not metric_of(metric).is_share or not all(counts):
        return Lead(one, other, ahead, None)
    variance = sum(share * (1 - share) / count for share, count in zip((one, other), counts, strict=True))
    return Lead(one, other, ahead, math.sqrt(variance))
