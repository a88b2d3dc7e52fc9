"""A surrogate in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_chain.cost.units import human
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.translator.report import TranslatorReport

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def cut_lines(surrogate: PreTrainedModel) -> list[str]:
    """What is kept, and what is replaced by what."""
    lineage = read_lineage(surrogate.config)
    by = "1 layer" if lineage.translators == 1 else f"{lineage.translators} layers each"
    return [
        f"{len(lineage.kept_layers)} of {lineage.target_layers} layers are kept ({_spans(lineage.kept_layers)}),"
        f" {human(surrogate.num_parameters())} parameters",
        f"layers {' and '.join(map(str, lineage.replaced))} are replaced by {by}, made by {lineage.translator_method}",
    ]


def quality_lines(report: TranslatorReport) -> list[str]:
    """What its translators are worth; nothing where that was not measured."""
    quality = report.quality
    if quality is None:
        return []
    reference = quality.reference
    return [
        f"splice error {_errors(quality.splice_error)} (layers dropped: {_errors(reference.dropping_splice_error)})",
        f"perplexity {quality.perplexity:.4g} (target: {reference.target_perplexity:.4g}, layers dropped:"
        f" {reference.dropping_perplexity:.4g})",
    ]


def _errors(errors: Sequence[float]) -> str:
    return ", ".join(f"{error:.3f}" for error in errors)


def _spans(layers: Sequence[int]) -> str:
    """Runs of numbers: 0, 1, 2, 5 -> 0-2, 5."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
