"""What the trajectory of a graft says about its cut, in words: the line under its plot."""

from __future__ import annotations

from transformers import AutoConfig

from hf_chain.errors import HfChainError
from hf_chain.grafting.criteria import choose_ranges
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.ranges import Budget, LayerRange
from hf_chain.grafting.trajectory import Trajectory
from hf_chain.grafting.trajectory_report import trajectory_report
from hf_chain.methods.graft.report.summary import GraftSummary


def cut_lines(graft: GraftSummary) -> list[str]:
    """What was measured, replaced and left, where the break is, and what a budget did; empty without a trajectory.

    Args:
        graft (`GraftSummary`): the run.
    """
    if graft.trajectory is None:
        return []
    trajectory = Trajectory.from_json(graft.trajectory.read_text(encoding="utf-8"))
    lineage = read_lineage(AutoConfig.from_pretrained(graft.trajectory.parent))
    report = trajectory_report(trajectory, lineage.replaced, translators=lineage.translators)
    lines = [line.removeprefix("- ") for line in report.splitlines() if line.startswith("- ")]
    settings = graft.record.recipe["surrogate"]
    budget = {measure: most for measure, most in (settings["budget"] or {}).items() if most is not None}
    if not budget:
        return lines
    try:
        free = choose_ranges(trajectory, settings["replaced"], translators=lineage.translators)
    except HfChainError:  # Criteria that compare ranges of one size choose nothing without a budget.
        return lines
    return [*lines, _moved(free, lineage.replaced, str(Budget(**budget)))]


def _moved(free: tuple[LayerRange, ...], chosen: tuple[LayerRange, ...], limit: str) -> str:
    if free == chosen:
        return f"The budget of {limit} changes nothing: without it the same layers would be replaced."
    return (
        f"A budget of {limit} moved the cut: without it layers {_spans(free)} would be replaced, with it layers "
        f"{_spans(chosen)} are, so the marked range begins at {chosen[0].first} and not at {free[0].first}."
    )


def _spans(ranges: tuple[LayerRange, ...]) -> str:
    return ", ".join(map(str, ranges))
