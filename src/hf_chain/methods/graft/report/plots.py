"""Plots of a graft: accuracy against cost, what every stage cost, and the trajectory that chose the cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from hf_chain.cost import human
from hf_chain.cost.table import saving_words
from hf_chain.methods.graft.headline import EXACT, Headline
from hf_chain.methods.graft.record import StageRecord
from hf_chain.methods.graft.report.summary import GraftSummary
from hf_chain.report.plots import macs_axis
from hf_chain.theme import Theme


def cost_plot(graft: GraftSummary, theme: Theme) -> Figure | None:
    """A bar for every stage, each beginning where the one before it ended; evaluations are the pale end of a bar."""
    bars = [bar for side in ("graft", "baseline") for bar in _bars(graft, side)]
    if not any(training + evaluation for *_, training, evaluation in bars):
        return None
    figure = Figure(figsize=(7.6, 1.7 + 0.42 * len(bars)), layout="constrained")
    axis = figure.subplots()
    colours = {"graft": theme.chain, "baseline": theme.alone}
    sides = list(dict.fromkeys(side for _, side, *_ in bars))
    longest = max(start + training + evaluation for _, _, start, training, evaluation in bars)
    for row, (_, side, start, training, evaluation) in enumerate(bars):
        colour = colours[side]
        axis.barh(row, training, 0.62, left=start, color=colour)
        axis.barh(row, evaluation, 0.62, left=start + training, color=colour, alpha=0.45)
        end = start + training + evaluation
        axis.annotate(
            human(training + evaluation),
            (end, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            weight="bold",
        )
    axis.set_yticks(range(len(bars)), [name for name, *_ in bars], color=theme.text)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlim(0, 1.12 * longest)
    comparison = graft.graft.comparison()
    saved = f"\n{saving_words(comparison.saving)} than the baseline" if comparison else ""
    axis.set_title(f"What every stage cost{saved}", pad=30)
    axis.legend(
        handles=[axis.barh(0, 0, color=colours[side]) for side in sides],
        labels=sides,
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=2,
        labelcolor="linecolor",
    )
    macs_axis(axis, "cumulative MACs; the pale end of a bar is the evaluation after its stage")
    return figure


def _bars(graft: GraftSummary, side: str) -> list[tuple[str, str, int, int, int]]:
    """Name, side, start, training and evaluation of each bar."""
    bars: list[tuple[str, str, int, int, int]] = []
    spent = 0
    for stage in graft.graft.stages:
        if stage.side != side or not stage.counted:
            continue
        for name, training in stage.training.items():
            evaluation = stage.record.evaluation_macs if name == list(stage.training)[-1] else 0
            bars.append((name, side, spent, training, evaluation))
            spent += training + evaluation
    return bars


def trajectory_plot(graft: GraftSummary, theme: Theme) -> Figure | None:
    """The target's prediction trajectory with the layers that are replaced, where it was measured."""
    if graft.trajectory is None or not graft.translator:
        return None
    from hf_chain.grafting.ranges import parse_ranges
    from hf_chain.grafting.trajectory import Trajectory  # starts torch
    from hf_chain.grafting.trajectory_report import trajectory_figure

    trajectory = Trajectory.from_json(graft.trajectory.read_text(encoding="utf-8"))
    ranges = parse_ranges(",".join(graft.translator["replaced"]))
    return trajectory_figure(trajectory, ranges, graft.translator["translators"], theme)


MACS = "MACs, translator, calibration and evaluations included"
WIDTH, HEIGHT, LETTER, LINE = 470, 230, 6.2, 13
"""Of the accuracy plot's axes, of a letter and of a line of text, in points."""
CLOSE = 0.4
"""Share of the axis of MACs within which two names can run into each other."""
END = 1.15
"""Where the axis of MACs ends, in costs of the dearest point."""


@dataclass(frozen=True)
class _Point:
    """A step on the plot: what it took to get there, and its metric."""

    step: StageRecord
    macs: int
    value: float
    title: str

    @property
    def of_graft(self) -> bool:
        return self.step.side == "graft"


def accuracy_plot(graft: GraftSummary, theme: Theme) -> Figure | None:
    """The headline's metric against what it took to get there, on both sides."""
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
    _limit(axis, [point.value for point in (*ours, *baseline)], graft.headline)
    _label(axis, [*ours, *baseline], theme)
    if ours and baseline:
        lows, highs = axis.get_ylim()
        low = max(point.value for point in (*ours, *baseline)) < lows + (highs - lows) / 3
        axis.legend(loc="upper right" if low else "lower right", labelcolor="linecolor")
    headline = graft.headline
    what = "Answers that are right" if headline is EXACT else f"{headline.title[0].upper()}{headline.title[1:]}"
    axis.set_title(f"{what} on {graft.split} against what it took to get there")
    if headline.lower_is_better:
        axis.set_ylabel(f"{headline.title}{headline.unit and f',{headline.unit}'} (less is better)")
    else:
        axis.set_ylabel(headline.title)
        axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=headline.unit))
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
            points.append(_Point(step, spent, value, f"{title} {graft.headline.text(value)}"))
    return points


def _limit(axis: Axes, values: Sequence[float], headline: Headline) -> None:
    """Shows shares from 0 on, and losses, which never come near it, where they are."""
    if not headline.lower_is_better:
        axis.set_ylim(0, 1.25 * max(axis.get_ylim()[1], 0.01))
        return
    least, most = min(values), max(values)
    span = max(most - least, 0.05 * most)
    axis.set_ylim(least - 0.4 * span, most + 0.5 * span)


def _label(axis: Axes, points: Sequence[_Point], theme: Theme) -> None:
    """Names the points, and gives the axis room for the names. The surrogate's and the graft's are at nearly the same
    cost, so they are named to the left, one above the other.
    """
    bottom, top = axis.get_ylim()
    end, height = max(point.macs for point in points), (top - bottom) / HEIGHT
    if all(point.value - bottom < LINE * height for point in points):
        _label_on_the_floor(axis, points, theme, end)
        return
    left = sorted((p for p in points if p.of_graft and not p.step.decoder_share), key=lambda point: point.value)
    taken, start = [bottom - LINE * height], -0.02 * end
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
            falls = any(p.of_graft and p.macs < point.macs and p.value > point.value for p in points)
            if falls and point.value - bottom > 2 * LINE * height:
                # The line comes down from where the name would stand.
                above = -9.0 - LINE
            _name(axis, point, theme, (0, above), "center")
            start = min(start, _room(point, 0.5, end))
        elif not point.of_graft and point is not points[-1]:
            _name(axis, point, theme, (4, -15), "left")
        elif not point.of_graft:
            near = [p for p in points if p.of_graft and abs(p.macs - point.macs) < CLOSE * end]
            clash = any(abs(p.value - point.value) < 2 * LINE * height for p in near)
            _name(axis, point, theme, (4, -17 if clash else 9), "right")
    axis.set_xlim(start, END * end)


def _label_on_the_floor(axis: Axes, points: Sequence[_Point], theme: Theme, end: int) -> None:
    """Names points at zero, one above the other, the cheapest lowest."""
    for line, point in enumerate(sorted(points, key=lambda point: point.macs)):
        side = "left" if point.macs < 0.5 * end else "right"
        _name(axis, point, theme, (0, 9 + LINE * line), side)
    axis.set_xlim(-0.04 * end, END * end)


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


PLOTS = {"accuracy": accuracy_plot, "cost": cost_plot, "trajectory": trajectory_plot}
"""File name of each plot and the function that draws it; `None` comes back when there is nothing to draw yet."""
