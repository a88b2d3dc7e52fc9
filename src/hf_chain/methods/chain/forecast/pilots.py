"""What a law is fitted to: the points of pilot runs, from their ledgers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

from hf_chain.evaluation.metrics import metric_of
from hf_chain.methods.chain.comparison.runs import check_comparable, choose_metric, read_runs
from hf_chain.methods.chain.comparison.tree import Delivery, grow_tree
from hf_chain.methods.chain.forecast.law import Handed, Point


def pilot_points(folders: Sequence[str | Path], metric: str | None, split: str) -> tuple[list[Point], str]:
    """The points of runs, and the metric that their losses are of.

    Members that were trained alone are points of trainings from scratch, whatever run they are in; members that have
    grown say what growth is worth. Members of published models say neither and are left out.

    Args:
        folders (`Sequence[str | Path]`): folders of runs of one task on the same data.
        metric (`str`, *optional*): name of the metric; `None` takes the main one of the task.
        split (`str`): split that it was measured on.

    Raises:
        HfChainError: when a folder is no run, or runs do not compare.
    """
    runs = read_runs(folders)
    check_comparable(runs, split)
    metric = choose_metric(runs, split, metric)
    unique = dict.fromkeys(delivery for run in grow_tree(runs, split, metric) for delivery in run)
    return [point for delivery in unique if (point := _point(delivery, metric)) is not None], metric


def loss_of(value: float, metric: str) -> float:
    """A value of a metric as a loss: of a share what it lacks to 1. Loss and value turn into each other.

    Args:
        value (`float`): the value, or the loss.
        metric (`str`): name of the metric.
    """
    return value if metric_of(metric).lower_is_better else 1 - value


def _point(one: Delivery, metric: str) -> Point | None:
    line = [one, *one.ancestors]
    if one.quality is None or not one.record.samples or line[-1].published is not None:
        return None
    size, loss = one.size.macs_per_sample, loss_of(one.quality, metric)
    if one.kind == "alone":
        return Point(size, _samples(line), loss, curve=f"{size}, seed {one.seed}")
    small = one.predecessor
    if small is None or small.quality is None:
        return None
    own = line[: line.index(small)]
    whole = line[line.index(small) :]
    same = list(takewhile(lambda other: other.size == small.size, whole))
    branch = (
        0 if own[-1].from_delivered else small.record.samples - small.record.trunk.get("samples", small.record.samples)
    )
    handed = Handed(small.size.macs_per_sample, loss_of(small.quality, metric), branch / _samples(same))
    return Point(size, _samples(own), loss, handed, f"{size} grown, seed {one.seed}")


def _samples(line: Iterable[Delivery]) -> float:
    """Of a member and of the trunks, or trainings, of those of its size before it."""
    first, *before = line
    return first.record.samples + sum(one.record.trunk.get("samples", one.record.samples) for one in before)
