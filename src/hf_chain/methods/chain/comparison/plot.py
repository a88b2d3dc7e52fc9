"""Quality against cost: sizes alone as lines, members of chains as points."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter
from matplotlib.transforms import Bbox

from hf_chain.cost import human
from hf_chain.evaluation.metrics import metric_of
from hf_chain.methods.chain.comparison.compare import ChainVerdict, Comparison
from hf_chain.methods.chain.comparison.sizes import Size
from hf_chain.methods.chain.comparison.tree import Delivery, name_of
from hf_chain.methods.chain.comparison.twins import Twins
from hf_chain.theme import Theme

MARKERS = "oDs^vP"
"""One for each chain, as long as there are some."""


def comparison_plot(comparison: Comparison, theme: Theme) -> Figure | None:
    """The metric against MACs of training, on a logarithmic axis; `None` where nothing was measured.

    Args:
        comparison (`Comparison`): What is drawn.
        theme (`Theme`): Colours.
    """
    sizes = sorted(
        {twins.size for twins in comparison.twins} | {one.size for one in comparison.grown},
        key=lambda size: size.number,
    )
    if not sizes:
        return None
    colours = dict(zip(sizes, theme.members(len(sizes)), strict=True))
    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    axis = figure.subplots()
    axis.set_xscale("log")
    for twins in comparison.twins:
        _twin_lines(axis, twins, colours[twins.size])
    handles = [
        Line2D([], [], color=colours[size], marker=".", markersize=5, label=f"{size.label} alone") for size in sizes
    ]
    metric = metric_of(comparison.metric)
    for place, chain in enumerate(comparison.chains):
        marker = MARKERS[place % len(MARKERS)]
        handles.append(_chain_path(axis, chain, marker, colours, theme, metric.lower_is_better))
    handles += _controls(axis, comparison, colours, theme)
    axis.set_title(f"{metric.title[0].upper()}{metric.title[1:]} on {comparison.split} against what it cost")
    axis.set_ylabel(metric.title)
    if metric.is_share:
        axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axis.set_xlabel("MACs of training, with all that a member has grown from")
    _frame(axis, comparison)
    axis.legend(handles=handles, loc="upper right" if metric.lower_is_better else "lower right")
    _without_overlaps(figure, axis)
    return figure


def _without_overlaps(figure: Figure, axis: Axes) -> None:
    """Leaves out names that would stand on others; colours say the size of every member."""
    figure.draw_without_rendering()
    kept: list[Bbox] = []
    for name in axis.texts:
        box = name.get_window_extent()
        name.set_visible(not any(box.overlaps(other) for other in kept))
        kept += [box] if name.get_visible() else []


def _frame(axis: Axes, comparison: Comparison) -> None:
    """Shows what members of chains and ends of curves reach; the beginnings of curves lie far away from that."""
    lower = metric_of(comparison.metric).lower_is_better
    shown = [_point(one)[1] for one in comparison.grown]
    shown += [member.quality.mean for chain in comparison.chains for member in chain.members]
    shown += [curve.end for twins in comparison.twins for curve in twins.curves().values()]
    points = [_point(one) for twins in comparison.twins for one in twins.deliveries]
    points += [_point(one) for one in comparison.grown]
    qualities = [y for _, y in points]
    room = (max(shown) - min(shown)) or 0.05 * abs(max(shown)) or 1.0
    below, above = (0.15, 0.6) if lower else (0.6, 0.15)
    low = max(min(shown) - below * room, min(qualities) - 0.15 * room)
    high = min(max(shown) + above * room, max(qualities) + 0.15 * room)
    axis.set_ylim(low, high)
    macs = [x for x, y in points if low <= y <= high]
    left, right = min(macs) / 1.4, max(macs) * 1.4
    axis.set_xlim(left, right)
    ticks = (1.0, 2.0, 5.0) if right / left < 100 else (1.0, 3.0) if right / left < 10_000 else (1.0,)
    axis.xaxis.set_major_locator(LogLocator(10, ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: human(cost)))


def _twin_lines(axis: Axes, twins: Twins, colour: Any) -> None:
    """A line through the points of each seed."""
    alpha = 1.0 if len(twins.seeds) == 1 else 0.55
    for seed in twins.seeds:
        path = sorted(_point(one) for one in twins.deliveries if one.seed == seed)
        axis.plot(*zip(*path, strict=True), color=colour, alpha=alpha, linewidth=1.6, marker=".", markersize=5)


def _chain_path(
    axis: Axes, chain: ChainVerdict, marker: str, colours: dict[Size, Any], theme: Theme, lower: bool
) -> Line2D:
    """The members of a chain, with every seed and their means along a line; returns what the legend says of it."""
    path = []
    for member in chain.members:
        cost = member.cost["macs"]
        if cost is None:
            continue
        look = _look(marker, theme, hollow=not member.delivered)
        for seed, reading in member.quality.seeds.items():
            axis.plot(cost.seeds[seed].value, reading.value, color=colours[member.size], zorder=4, **look)
        if member.delivered:
            path.append((cost.mean, member.quality.mean))
            axis.annotate(
                member.name,
                path[-1],
                # Twins lie on the other side.
                xytext=(-7, -9 if lower else 9),
                textcoords="offset points",
                ha="right",
                va="center",
                color=theme.text,
                weight="bold",
                path_effects=[withStroke(linewidth=3, foreground=theme.background)],
                zorder=5,
            )
    axis.plot(*zip(*path, strict=True), color=theme.muted, linestyle=":", linewidth=1.2, zorder=1.5)
    return Line2D([], [], color=theme.muted, label=chain.name, **_look(marker, theme) | {"linestyle": ":"})


def _controls(axis: Axes, comparison: Comparison, colours: dict[Size, Any], theme: Theme) -> list[Line2D]:
    """Members of chains that runs of their own have trained on; returns what the legend says of all such."""
    drawn = {run for chain in comparison.chains for run in chain.runs.values()}
    look = _look("o", theme, hollow=True)
    others = [one for one in comparison.grown if one.kind == "trained on" and name_of(one.run) not in drawn]
    for one in others:
        axis.plot(*_point(one), color=colours[one.size], zorder=3, **look)
    inside = any(not member.delivered for chain in comparison.chains for member in chain.members)
    return [Line2D([], [], color=theme.muted, label="not counted", **look)] if others or inside else []


def _look(marker: str, theme: Theme, hollow: bool = False) -> dict[str, Any]:
    """How a member of a chain looks; what no family is counted with is hollow."""
    look: dict[str, Any] = {"marker": marker, "markersize": 6.5, "linestyle": "none", "markeredgewidth": 0.8}
    return look | ({"markerfacecolor": theme.background} if hollow else {"markeredgecolor": theme.text})


def _point(one: Delivery) -> tuple[float, float]:
    return one.lineage("macs") or 0, one.quality or 0
