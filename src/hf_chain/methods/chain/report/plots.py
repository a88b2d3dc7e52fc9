"""Plots of a family: losses, accuracy against cost, and cost in the chain against cost alone."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from hf_chain.cost import human
from hf_chain.errors import HfChainError
from hf_chain.evaluation.metrics import metric_of
from hf_chain.methods.chain.report import noise
from hf_chain.methods.chain.report.summary import FamilySummary, MemberSummary
from hf_chain.report import words
from hf_chain.report.plots import macs_axis
from hf_chain.runs.ledger import MemberRecord
from hf_chain.theme import Theme

MACS = "MACs, teachers and evaluations included"
MOST_VALUES = 4
"""Members up to which points are labelled with their values."""


def quality_plot(family: FamilySummary, theme: Theme) -> Figure | None:
    """The primary metric against cumulative MACs: of the chain and, with a baseline run, of independent training."""
    if family.primary is None or not any(family.after(member) is not None for member in family.trained):
        return None
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axis = figure.subplots()
    end = _chain_path(axis, family, theme)
    reached = [] if metric_of(family.primary[1]).is_share else _reached(family)
    if not reached:
        _chance_line(axis, family, theme)
    twins = [member for member in family.trained if member.twin]
    if twins:
        end = max(end, _independent_path(axis, family, twins, theme))
        axis.legend(
            loc="upper right" if metric_of(family.primary[1]).lower_is_better else "lower right",
            labelcolor="linecolor",
        )
    name = words.metric_name(family.primary[1])
    axis.set_title(f"{name[0].upper()}{name[1:]} on {family.primary[0]} against what it cost")
    axis.set_ylabel(name)
    axis.margins(y=0.16)
    if metric_of(family.primary[1]).is_share:
        axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axis.set_ylim(bottom=0)
    elif reached:
        # An untrained first member, and chance, are far away from all that was learnt.
        room = 0.2 * (max(reached) - min(reached))
        axis.set_ylim(min(reached) - room, max(reached) + room)
    # Labels stand to the left of the chain's points and to the right of the others.
    axis.set_xlim(-0.14 * end, (1.16 if twins else 1.06) * end)
    points = "filled: after training; hollow, where it differs: right after growth"
    if metric_of(family.primary[1]).is_share:
        points += "; thin lines: 95 % intervals"
    macs_axis(axis, f"cumulative {MACS}\n{points}")
    return figure


def cost_plot(family: FamilySummary, theme: Theme) -> Figure | None:
    """MACs of each trained member in the chain and alone, as bars."""
    members = [member for member in family.trained if member.alone_macs]
    if not members:
        return None
    figure = Figure(figsize=(6.6, 1.8 + 0.85 * len(members)), layout="constrained")
    axis = figure.subplots()
    rows = range(len(members))
    chain = axis.barh([y - 0.19 for y in rows], [m.chain_macs for m in members], 0.34, color=theme.chain)
    alone = axis.barh([y + 0.19 for y in rows], [m.alone_macs or 0 for m in members], 0.34, color=theme.alone)
    shares = [f"{human(m.chain_macs)} ({words.percent(m.share_of_alone, 0)} of alone)" for m in members]
    axis.bar_label(chain, shares, padding=5, color=theme.chain, weight="bold")
    axis.bar_label(alone, [human(m.alone_macs or 0) for m in members], padding=5, color=theme.alone)
    axis.set_yticks(list(rows), [m.name for m in members], color=theme.text, weight="bold")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlim(right=1.05 * max(max(1.35 * m.chain_macs, 1.1 * (m.alone_macs or 0)) for m in members))
    axis.set_title("What each member cost in the chain and costs alone", pad=30)
    how = "baseline run" if family.alone_is_measured else "planned"
    axis.legend(
        [chain, alone],
        ["in the chain", f"alone ({how})"],
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=2,
        labelcolor="linecolor",
    )
    macs_axis(axis, MACS)
    return figure


def loss_plot(family: FamilySummary, theme: Theme) -> Figure | None:
    """The task's loss of all members along the chain and, where there was a teacher, the feature loss below it."""
    losses = (f"{family.record.recipe.get('task', 'contrastive')}_loss", "feature_loss")
    logged = {loss: [curve for curve in curves(family, loss) if curve.values.any()] for loss in losses}
    panels = {loss: found for loss, found in logged.items() if found}
    if not panels:
        return None
    figure = Figure(figsize=(6.6, 1.2 + 2.1 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    names = [member.name for member in family.members]
    colours = dict(zip(names, theme.members(len(names)), strict=True))
    for axis, (loss, found) in zip(axes, panels.items(), strict=True):
        for curve in found:
            _draw_curve(axis, curve, colours[curve.member])
        axis.set_ylabel(loss.replace("_", " "))
        axis.margins(x=0.01, y=0.14)
    axes[0].set_title("Training loss of each member, one after the other")
    macs_axis(axes[-1], f"cumulative {MACS}")
    return figure


LINE = 13
"""Height of a line of labels, in points."""

PLOTS = {"quality": quality_plot, "cost": cost_plot, "loss": loss_plot}
"""File name of each plot and the function that draws it; `None` comes back when there is nothing to draw yet."""


def _chain_path(axis: Axes, family: FamilySummary, theme: Theme) -> int:
    """Draws the chain and returns its MACs."""
    spent, path, raised = 0, [], 0
    width = max(family.chain_macs, family.independent_macs or 0)
    for member in family.trained:
        before, after = family.before(member), family.after(member)
        if before is not None:
            path.append((spent, before))
            axis.plot(spent, before, "o", color=theme.chain, markerfacecolor=theme.background, zorder=3)
        spent += member.chain_macs
        if after is not None:
            path.append((spent, after))
            axis.plot(spent, after, "o", color=theme.chain, zorder=4)
            _interval(axis, family, member.record, (spent, after), theme.chain)
            # A label beside that of the member before would lie on it.
            raised = raised + 1 if member is not family.trained[0] and member.chain_macs < 0.2 * width else 0
            place = -1 - raised if _falls(family) else raised
            _label(axis, _point_name(family, member, after), (spent, after), theme, of_chain=True, place=place)
    axis.plot(*zip(*path, strict=True), color=theme.chain, label="chain", zorder=2)
    return spent


def _reached(family: FamilySummary) -> list[float]:
    """What members reached, and what those that were grown began with; nothing where all of it is one value."""
    grown = [family.before(member) for member in family.trained if member.record.parent]
    found = [value for value in (*map(family.after, family.trained), *grown) if value is not None]
    return found if len(set(found)) > 1 else []


def _falls(family: FamilySummary) -> bool:
    """Whether better is lower, so that lines come from above."""
    return bool(family.primary and metric_of(family.primary[1]).lower_is_better)


def _interval(
    axis: Axes, family: FamilySummary, record: MemberRecord | None, point: tuple[float, float], colour: str
) -> None:
    """Draws how far a point may lie off, where that is known."""
    ends = noise.interval(record, *family.primary) if record is not None and family.primary else None
    if ends is not None:
        axis.vlines(point[0], *ends, color=colour, linewidth=1, alpha=0.7, zorder=1)


def _chance_line(axis: Axes, family: FamilySummary, theme: Theme) -> None:
    level = noise.chance(family.records, *family.primary) if family.primary else None
    if level is not None:
        axis.axhline(level, color=theme.muted, linestyle=":", linewidth=1, zorder=0)
        axis.annotate(
            "chance",
            (1, level),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            color=theme.muted,
            fontsize="small",
        )


def _independent_path(axis: Axes, family: FamilySummary, members: list[MemberSummary], theme: Theme) -> int:
    """Draws the members' twins, trained one after the other, and returns their MACs."""
    spent, path = 0, []
    for member in members:
        spent += member.alone_macs or 0
        after = family.after(member.twin) if member.twin else None
        if after is not None:
            path.append((spent, after))
            _interval(axis, family, member.twin, (spent, after), theme.alone)
            place = 0 if _falls(family) else -1
            _label(axis, _point_name(family, member, after), (spent, after), theme, of_chain=False, place=place)
    if path:
        axis.plot(*zip(*path, strict=True), "s--", color=theme.alone, label="each alone", zorder=2)
    return spent


def _draw_curve(axis: Axes, curve: Curve, colour: object) -> None:
    axis.plot(curve.macs, curve.values, color=colour, alpha=0.25, linewidth=0.8)
    # A line through few points does not show where they are, and through one of them nothing at all.
    axis.plot(curve.macs, curve.smooth, color=colour, marker="o" if len(curve.values) < 10 else None, markersize=3)
    middle = len(curve.values) // 2
    nearby = curve.values[max(middle - len(curve.values) // 6, 0) : middle + len(curve.values) // 6 + 1]
    axis.annotate(
        curve.member,
        (curve.macs[middle], nearby.max()),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        color=colour,
        weight="bold",
    )


def _point_name(family: FamilySummary, member: MemberSummary, value: float) -> str:
    """Name and value, or in a large family the name alone, for want of room."""
    metric = family.primary[1] if family.primary else ""
    return f"{member.name} {words.figure(metric, value)}" if len(family.members) <= MOST_VALUES else member.name


def _label(axis: Axes, text: str, point: tuple[float, float], theme: Theme, of_chain: bool, place: int = 0) -> None:
    """Beside a point: `place` lines above it and more, or below it where that is negative."""
    axis.annotate(
        text,
        point,
        xytext=(-7 if of_chain else 7, 5 + LINE * place),
        textcoords="offset points",
        ha="right" if of_chain else "left",
        color=theme.chain if of_chain else theme.alone,
        weight="bold" if of_chain else "normal",
        path_effects=[withStroke(linewidth=3, foreground=theme.background)],
    )


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
