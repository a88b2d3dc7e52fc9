"""Training logs of the members, laid end to end along the cost of the chain."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_chain.errors import HfChainError
from hf_chain.report.summary import FamilySummary, MemberSummary

LOG_NAME = "training_log.json"
MOST_POINTS = 600
"""A curve is thinned to this many points: more cannot be told apart in a plot."""


@dataclass(frozen=True)
class Curve:
    """One logged quantity of one member.

    Args:
        member (`str`): Name of the member.
        macs (`np.ndarray`): MACs spent on the chain up to each log entry, earlier members included, shape `[N]`.
        values (`np.ndarray`): The quantity, shape `[N]`.
    """

    member: str
    macs: np.ndarray
    values: np.ndarray

    @property
    def smooth(self) -> np.ndarray:
        """Centred moving average over a fifteenth of the curve, shorter at its ends."""
        window = np.ones(len(self.values) // 15 or 1)
        return np.convolve(self.values, window, "same") / np.convolve(np.ones(len(self.values)), window, "same")


def curves(family: FamilySummary, quantity: str) -> list[Curve]:
    """The curves of `quantity` of all members that logged it."""
    found, spent = [], 0
    for member in family.members:
        curve = _curve(family.record.run_dir, member, quantity, spent)
        spent += member.chain_macs
        if curve is not None:
            found.append(curve)
    return found


def _curve(run_dir: Path, member: MemberSummary, quantity: str, spent: int) -> Curve | None:
    path = run_dir / member.record.folder / LOG_NAME
    if not member.record.folder or not path.exists():
        return None
    try:
        log = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise HfChainError(f"Training log {path} is damaged ({error.msg}): remove it to go on") from error
    points = [(entry["macs"], entry[quantity]) for entry in log if {"macs", quantity} <= entry.keys()]
    points = [point for point in points if math.isfinite(point[1])]
    if not points:
        return None
    if len(points) > MOST_POINTS:
        points = [points[i] for i in np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)]
    macs, values = np.array(points, dtype=float).T
    return Curve(member.name, spent + macs, values)
