"""The trajectory in words and as a table, with the layers that are replaced."""

from __future__ import annotations

from collections.abc import Sequence

from hf_chain.cost import human
from hf_chain.cost.table import markdown_table
from hf_chain.errors import HfChainError
from hf_chain.grafting.criteria import fit_trajectory
from hf_chain.grafting.ranges import LayerRange, check_ranges, kept_layers
from hf_chain.grafting.trajectory import Trajectory


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
