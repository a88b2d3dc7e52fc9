"""The trajectory as a plot, with the layers that are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from hf_chain.errors import HfChainError
from hf_chain.grafting.criteria import fit_trajectory
from hf_chain.grafting.ranges import LayerRange, check_ranges
from hf_chain.grafting.trajectory import Trajectory
from hf_chain.theme import LIGHT, Theme, applied


def plot_trajectory(
    trajectory: Trajectory,
    path: str | Path,
    chosen: Sequence[LayerRange],
    *,
    translators: int = 1,
    theme: Theme = LIGHT,
) -> Path:
    """Draws a trajectory into a file.

    Args:
        trajectory (`Trajectory`): of the target.
        path (`str` or `Path`): the file; its ending says the format, such as `.png` or `.svg`.
        chosen (`Sequence[LayerRange]`): the replaced ranges, as `choose_ranges` returns them.
        translators (`int`, *optional*, defaults to 1): layers of a range that stay as its translator.
        theme (`Theme`, *optional*): the colours; light ones by default.

    Returns:
        `Path`: the file.

    Raises:
        HfChainError: when the ranges do not fit the target, or the file's folder or format is none.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise HfChainError(f"there is no folder {path.parent} for the plot: make it first")
    with applied(theme):
        figure = trajectory_figure(trajectory, chosen, translators, theme)
        formats = figure.canvas.get_supported_filetypes()
        if path.suffix.lower().removeprefix(".") not in formats:
            raise HfChainError(f"{path.name} names no known format: end it in .{', .'.join(sorted(formats))}")
        # No date in the file: the same trajectory gives the same bytes.
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def trajectory_figure(
    trajectory: Trajectory, chosen: Sequence[LayerRange], translators: int = 1, theme: Theme = LIGHT
) -> Figure:
    """The plot as a figure: both distances with their quartiles and the fit, and block influence below.

    To be called inside `applied(theme)`. Layer i lies between i, the state that enters it, and i + 1. The embeddings'
    own prediction is left out: it is so far from every layer's that it would flatten the curve.

    Args:
        trajectory (`Trajectory`): of the target.
        chosen (`Sequence[LayerRange]`): the replaced ranges.
        translators (`int`, *optional*, defaults to 1): layers of a range that stay as its translator.
        theme (`Theme`, *optional*): the colours; light ones by default.

    Returns:
        `Figure`: not written yet.

    Raises:
        HfChainError: when the ranges do not fit the target.
    """
    ranges = check_ranges(chosen, trajectory.num_layers, translators)
    figure = Figure(figsize=(7.6, 5.6), layout="constrained")
    distances, influence = figure.subplots(2, sharex=True, height_ratios=(3, 1.2))
    _draw_distances(distances, trajectory, trajectory.num_layers - 1 - ranges[-1].last, theme)
    _draw_influence(influence, trajectory, theme)
    for axis in (distances, influence):
        _mark(axis, ranges, trajectory.num_layers, translators, theme)
    name = "/".join(Path(trajectory.model).parts[-2:])
    distances.set_title(f"How far each layer's prediction is from the final one\n{name}")
    influence.set_xlabel("layers, each from the state that enters it to the one that leaves it")
    influence.xaxis.set_major_locator(MaxNLocator(15, integer=True))
    influence.set_xlim(0, trajectory.num_layers)
    figure.legend(*distances.get_legend_handles_labels(), loc="outside lower center", ncols=3, labelcolor=theme.text)
    return figure


def _draw_distances(axis: Axes, trajectory: Trajectory, keep_last: int, theme: Theme) -> None:
    states = range(1, trajectory.num_layers + 1)
    curves = (
        ("prediction distance", trajectory.prediction_distance, trajectory.prediction_distance_quartiles, theme.chain),
        ("vocabulary KL", trajectory.vocabulary_kl, trajectory.vocabulary_kl_quartiles, theme.alone),
    )
    for name, median, (lower, upper), colour in curves:
        axis.fill_between(states, lower[1:], upper[1:], color=colour, alpha=0.13, linewidth=0)
        axis.plot(states, median[1:], "o-", color=colour, markersize=3.5, label=f"{name}, median and quartiles")
    axis.set_ylabel("nats")
    axis.set_ylim(bottom=0)
    try:
        fit = fit_trajectory(trajectory, keep_last)
    except HfChainError:  # Too few layers for a fit.
        return
    places = range(fit.start, fit.start + len(fit.values))
    axis.plot(places, fit.values, "--", color=theme.text, linewidth=1.2, label=f"two segments, break at {fit.knot}")


def _draw_influence(axis: Axes, trajectory: Trajectory, theme: Theme) -> None:
    middles = [layer + 0.5 for layer in range(trajectory.num_layers)]
    axis.plot(middles, trajectory.block_influence, "o", color=theme.text, markersize=4)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.minorticks_off()
    axis.set_ylabel("block influence")


def _mark(axis: Axes, ranges: Sequence[LayerRange], layers: int, translators: int, theme: Theme) -> None:
    """Shades what becomes of the layers: translators, dropped ones, and those that stay at the end."""
    bands = [("translator", theme.chain, 0.3, [(span.first, span.first + translators) for span in ranges])]
    bands += [("dropped", theme.muted, 0.22, [(span.first + translators, span.last + 1) for span in ranges])]
    bands += [("kept at the end", theme.members(3)[1], 0.3, [(ranges[-1].last + 1, layers)])]
    for name, colour, opacity, places in bands:
        for number, (start, end) in enumerate(places):
            label = name if number == 0 else None
            axis.axvspan(start, end, color=colour, alpha=opacity, linewidth=0, zorder=0, label=label)
