"""Accuracy of a graft against its cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from hf_chain.report import words
from hf_chain.report.graft_summary import GraftSummary
from hf_chain.report.plots import macs_axis
from hf_chain.report.theme import Theme
from hf_chain.stages.graft.record import StageRecord

MACS = "MACs, translator, calibration and evaluations included"
WIDTH, HEIGHT, LETTER, LINE = 470, 230, 6.2, 13
"""Of the accuracy plot's axes, of a letter and of a line of text, in points."""
CLOSE = 0.4
"""Share of the axis of MACs within which two names can run into each other."""
END = 1.15
"""Where the axis of MACs ends, in costs of the dearest point."""


@dataclass(frozen=True)
class _Point:
    """A step on the plot: what it took to get there, and the share of right answers."""

    step: StageRecord
    macs: int
    value: float
    title: str

    @property
    def of_graft(self) -> bool:
        return self.step.side == "graft"


def accuracy_plot(graft: GraftSummary, theme: Theme) -> Figure | None:
    """Exact match against what it took to get there, on both sides."""
    ours = _points(graft, [step for step in graft.graft.steps if step.side == "graft"])
    baseline = _points(graft, graft.graft.side("baseline"))
    if not ours and not baseline:
        return None
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axis = figure.subplots()
    for name, points, marker, colour in (
        ("graft", ours, "o-", theme.chain),
        ("baseline", baseline, "s--", theme.alone),
    ):
        if points:
            path = [(point.macs, point.value) for point in points]
            axis.plot(*zip(*path, strict=True), marker, color=colour, label=name, zorder=3)
    _label(axis, [*ours, *baseline], theme)
    if ours and baseline:
        axis.legend(loc="lower right", labelcolor="linecolor")
    axis.set_title(f"Answers that are right on {graft.split} against what it took to get there")
    axis.set_ylabel("exact match")
    axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    macs_axis(axis, f"cumulative {MACS}")
    return figure


def _points(graft: GraftSummary, steps: Sequence[StageRecord]) -> list[_Point]:
    points = []
    for step in steps:
        spent, value = step.spent, graft.metric(step)
        if spent is not None and value is not None:
            named = step.side == "graft" or step is graft.baseline
            title = graft.graft.step_title(step) if named else step.name
            title = re.sub(r" \(nothing trained\)$|^grafted (?=\+)| baseline$", "", title).replace("-", " ")
            points.append(_Point(step, spent, value, f"{title} {words.percent(value)}"))
    return points


def _label(axis: Axes, points: Sequence[_Point], theme: Theme) -> None:
    """Names the points, and gives the axis room for the names. The surrogate's and the graft's are at nearly the same
    cost, so they are named to the left, one above the other.
    """
    axis.set_ylim(0, 1.25 * max(axis.get_ylim()[1], 0.01))
    end, height = max(point.macs for point in points), axis.get_ylim()[1] / HEIGHT
    left = sorted((p for p in points if p.of_graft and not p.step.decoder_share), key=lambda point: point.value)
    taken, start = [-LINE * height], -0.02 * end
    for point in left:
        taken.append(max(point.value, taken[-1] + LINE * height))
        _name(axis, point, theme, (-8, (taken[-1] - point.value) / height - 3), "right")
        start = min(start, _room(point, 1.0, end))
    for point in points:
        if point.of_graft and point not in left:
            if point.macs < 0.5 * end:
                _name(axis, point, theme, (8, -3), "left")
                continue
            above = 9.0
            for name in ((value - point.value) / height - 3 for value in taken):
                above = name + LINE if abs(name - above) < LINE else above
            _name(axis, point, theme, (0, above), "center")
            start = min(start, _room(point, 0.5, end))
        elif not point.of_graft and point is not points[-1]:
            _name(axis, point, theme, (4, -15), "left")
        elif not point.of_graft:
            near = [p for p in points if p.of_graft and abs(p.macs - point.macs) < CLOSE * end]
            clash = any(abs(p.value - point.value) < 2 * LINE * height for p in near)
            _name(axis, point, theme, (4, -17 if clash else 9), "right")
    axis.set_xlim(start, END * end)


def _room(point: _Point, before: float, end: int) -> float:
    """Where the axis must start so that a name fits of which the share `before` stands before its point."""
    share = before * LETTER * len(point.title) / WIDTH
    return (point.macs - END * share * end) / (1 - share)


def _name(axis: Axes, point: _Point, theme: Theme, offset: tuple[float, float], side: str) -> None:
    axis.annotate(
        point.title,
        (point.macs, point.value),
        xytext=offset,
        textcoords="offset points",
        ha=side,
        color=theme.chain if point.of_graft else theme.alone,
        weight="bold" if point.of_graft else "normal",
        path_effects=[withStroke(linewidth=3, foreground=theme.background)],
        zorder=5,
    )
