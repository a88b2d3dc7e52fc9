"""Translators of the same ranges side by side, between the target and layer dropping. Starts no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hf_chain.cost.table import human

HEADER = ["translator", "splice error", "perplexity", "loss recovered", "MACs", "time"]

NOTICEABLE = 0.01
"""Share of the target's perplexity by which another has to be lower before that is more than noise."""


def perplexity_remark(quality: Mapping[str, Any]) -> str | None:
    """What to think of perplexities that make no sense: what lacks layers predicts better than the target does.

    Args:
        quality (`Mapping`): A `TranslatorQuality` as it is stored.

    Returns:
        `str`, or `None` where the target predicts best.
    """
    reference = quality["reference"]
    target = reference["target_perplexity"]
    found = {
        "surrogate": quality["perplexity"],
        "target without the replaced layers": reference["dropping_perplexity"],
    }
    better = [f"the {name} ({value:.4g})" for name, value in found.items() if value < (1 - NOTICEABLE) * target]
    if not better:
        return None
    who = " and ".join(better)
    return (
        f"{who[0].upper()}{who[1:]} predict{'' if len(better) > 1 else 's'} this text better than the whole target"
        f" ({target:.4g}): the text is not what the model speaks, so perplexities on it say nothing of the cut;"
        " measure on text of the model's own kind, or on responses alone"
    )


def loss_recovered(target_perplexity: float, dropping_perplexity: float, perplexity: float) -> float | None:
    """Share of the nats a token that dropping the layers costs and the translator wins back; 1 is the target.

    Args:
        target_perplexity (`float`): Of the whole target.
        dropping_perplexity (`float`): Of the target without the replaced layers.
        perplexity (`float`): Of the surrogate.

    Returns:
        `float`, or `None` where dropping costs nothing, or even helps.
    """
    lost = math.log(dropping_perplexity / target_perplexity)
    return math.log(dropping_perplexity / perplexity) / lost if lost > 0 else None


def translator_rows(reports: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the target, layer dropping, and each translator, on held-out text.

    Args:
        reports (`Sequence[Mapping]`): `TranslatorReport`s as they are stored, each with its quality.

    Returns:
        `tuple[list[str], list[list[str]]]`: the header, and the cells of every row.
    """
    reference = reports[0]["quality"]["reference"]
    target, dropping = reference["target_perplexity"], reference["dropping_perplexity"]
    rows = [
        ["target", "0", f"{target:.3f}", "100 %", "", ""],
        ["none (layers dropped)", _errors(reference["dropping_splice_error"]), f"{dropping:.3f}", "0 %", "", ""],
    ]
    for report in reports:
        quality = report["quality"]
        recovered = loss_recovered(target, dropping, quality["perplexity"])
        share = "–" if recovered is None else f"{100 * recovered:.0f} %"
        cost = [human(report["macs"]), f"{report['seconds']:.1f} s"]
        rows.append([report["method"], _errors(quality["splice_error"]), f"{quality['perplexity']:.3f}", share, *cost])
    return HEADER, rows


def _errors(errors: Sequence[float]) -> str:
    return ", ".join(f"{error:.3f}" for error in errors)
