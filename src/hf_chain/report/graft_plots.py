"""Plots of a graft: accuracy against cost, what every stage cost, and the trajectory that chose the cut."""

from __future__ import annotations

from matplotlib.figure import Figure

from hf_chain.cost import human
from hf_chain.cost.comparison import saving_words
from hf_chain.report.graft_accuracy_plot import accuracy_plot
from hf_chain.report.graft_summary import GraftSummary
from hf_chain.report.plots import macs_axis
from hf_chain.report.theme import Theme
from hf_chain.stages.graft.record import CUT, SURROGATE, TRANSLATOR


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
    for place, (_, side, start, training, evaluation) in enumerate(bars):
        colour = colours[side]
        axis.barh(place, training, 0.62, left=start, color=colour)
        axis.barh(place, evaluation, 0.62, left=start + training, color=colour, alpha=0.45)
        end = start + training + evaluation
        axis.annotate(
            human(training + evaluation),
            (end, place),
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
        if stage.side != side or not stage.done:
            continue
        macs = stage.record.training_macs
        parts = {stage.name: macs.get("total", 0)}
        if stage.name == SURROGATE:
            parts = {CUT: macs.get("teacher", 0), TRANSLATOR: macs.get("student", 0)}
        for name, training in parts.items():
            evaluation = stage.record.evaluation_macs if name == list(parts)[-1] else 0
            bars.append((name, side, spent, training, evaluation))
            spent += training + evaluation
    return bars


def trajectory_plot(graft: GraftSummary, theme: Theme) -> Figure | None:
    """The target's prediction trajectory with the layers that are replaced, where it was measured."""
    if graft.trajectory is None or not graft.translator:
        return None
    from hf_chain.grafting.ranges import parse_ranges
    from hf_chain.grafting.trajectory import Trajectory  # starts torch
    from hf_chain.grafting.trajectory_plot import trajectory_figure

    trajectory = Trajectory.from_json(graft.trajectory.read_text(encoding="utf-8"))
    ranges = parse_ranges(",".join(graft.translator["replaced"]))
    return trajectory_figure(trajectory, ranges, graft.translator["translators"], theme)


PLOTS = {"accuracy": accuracy_plot, "cost": cost_plot, "trajectory": trajectory_plot}
"""File name of each plot and the function that draws it; `None` comes back when there is nothing to draw yet."""
