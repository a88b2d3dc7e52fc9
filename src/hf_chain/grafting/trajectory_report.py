"""A trajectory as a plot, as a table and in words, with the layers that are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from hf_chain.cost import human
from hf_chain.cost.table import markdown_table
from hf_chain.errors import HfChainError
from hf_chain.grafting.criteria import fit_trajectory
from hf_chain.grafting.ranges import LayerRange, check_ranges, kept_layers
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


def trajectory_report(trajectory: Trajectory, chosen: Sequence[LayerRange], *, translators: int = 1) -> str:
    """Writes a trajectory and the cut as Markdown.

    Args:
        trajectory (`Trajectory`): of the target.
        chosen (`Sequence[LayerRange]`): the replaced ranges, as `choose_ranges` returns them.
        translators (`int`, *optional*, defaults to 1): layers of a range that stay as its translator.

    Returns:
        `str`: Markdown: what was measured, what is replaced, what is left, and a row for each layer.

    Raises:
        HfChainError: when the ranges do not fit the target.
    """
    ranges = check_ranges(chosen, trajectory.num_layers, translators)
    lines = [_measured(trajectory), _replaced(ranges, translators), _left(trajectory, ranges, translators)]
    lines += _fit(trajectory, ranges)
    return (
        "\n\n".join(
            [
                f"# Prediction trajectory of {trajectory.model}",
                "\n".join(f"- {line}" for line in lines),
                markdown_table(*_table(trajectory, ranges, translators)),
                "Distances are of the state that enters the layer, in nats: median (25 % – 75 %) over the samples.",
            ]
        )
        + "\n"
    )


def _measured(trajectory: Trajectory) -> str:
    skipped = trajectory.skipped_samples
    too_short = f"; {skipped} samples were too short" if skipped else ""
    return (
        f"Measured on {trajectory.samples} samples with {trajectory.tokens:,} predicted tokens, for"
        f" {human(trajectory.macs)} MACs{too_short}."
    )


def _replaced(ranges: Sequence[LayerRange], translators: int) -> str:
    parts = [
        f"layers {span} (translator: {_span(span.layers[:translators])}, dropped: {_span(span.layers[translators:])})"
        for span in ranges
    ]
    return f"Replaced: {', '.join(parts)}."


def _left(trajectory: Trajectory, ranges: Sequence[LayerRange], translators: int) -> str:
    kept = kept_layers(ranges, trajectory.num_layers, translators)
    parameters, whole = trajectory.parameters(kept), trajectory.parameters()
    macs = trajectory.sample_macs(kept) / trajectory.sample_macs()
    return (
        f"The surrogate has {len(kept)} of {trajectory.num_layers} layers, {human(parameters)} of {human(whole)}"
        f" parameters ({parameters / whole:.0%}) and {macs:.0%} of the forward MACs."
    )


def _fit(trajectory: Trajectory, ranges: Sequence[LayerRange]) -> list[str]:
    try:
        fit = fit_trajectory(trajectory, trajectory.num_layers - 1 - ranges[-1].last)
    except HfChainError:  # Too few layers for a fit.
        return []
    before, after = fit.slopes
    shape = (
        "a fall begins there" if fit.falls_at_knot else "no plateau ends in a fall there, so compare other criteria"
    )
    return [
        f"Two straight segments through the prediction distance meet at layer {fit.knot}: {before:+.3g} nats a layer"
        f" before it, {after:+.3g} after it; {shape}."
    ]


def _table(
    trajectory: Trajectory, ranges: Sequence[LayerRange], translators: int
) -> tuple[list[str], list[list[str]]]:
    header = ["layer", "prediction distance", "vocabulary KL", "block influence", "in the surrogate"]
    fate = {layer: "kept" for layer in kept_layers(ranges, trajectory.num_layers, translators)}
    fate |= {layer: "translator" for span in ranges for layer in span.layers[:translators]}
    columns = (
        _values(trajectory.prediction_distance, trajectory.prediction_distance_quartiles),
        _values(trajectory.vocabulary_kl, trajectory.vocabulary_kl_quartiles),
        [f"{influence:.3f}" for influence in trajectory.block_influence],
    )
    rows = [
        [str(layer), *values, fate.get(layer, "dropped")] for layer, values in enumerate(zip(*columns, strict=False))
    ]
    return header, rows


def _values(median: Sequence[float], quartiles: Sequence[Sequence[float]]) -> list[str]:
    lower, upper = quartiles
    return [f"{m:.3f} ({a:.3f} – {b:.3f})" for m, a, b in zip(median, lower, upper, strict=True)]


def _span(layers: range) -> str:
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}-{layers[-1]}"
