"""A forecast in words and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hf_chain.cost import human
from hf_chain.cost.table import hours, markdown_table
from hf_chain.evaluation.metrics import metric_of
from hf_chain.methods.chain.forecast.law import SIZES_TO_FIT, USUAL_SIZE_EXPONENT, Law
from hf_chain.methods.chain.forecast.pilots import loss_of
from hf_chain.methods.chain.forecast.proposal import Proposal


def law_words(law: Law, metric: str) -> str:
    """The law, how far it is off, and what it does not know."""
    title = metric_of(metric).title
    what = title if metric_of(metric).lower_is_better else f"1 − {title}"
    lines = [
        f"Law of {law.sizes} size(s): {what} = {law.floor:.4g} + {law.size_factor:.4g} · size^−{law.size_exponent:.3g}"
        f" + {law.samples_factor:.4g} · samples^−{law.samples_exponent:.3g}, size in forward MACs of a sample.",
        f"Error: {law.error:.3g}, the root mean square at the last point of each training, which it had not seen."
        if math.isfinite(law.error)
        else "Error: unknown, as no training has points enough to leave one out.",
    ]
    if law.grown:
        lines.append(
            f"Growth: a sample of a grown member is worth {law.efficiency:.2g} of its twin's at the same loss, from "
            f"{law.grown} grown member(s)."
        )
    else:
        lines.append("Growth: no pilot has grown, so a grown member is taken to go on as its twin would.")
    if law.sizes < SIZES_TO_FIT:
        lines.append(
            f"With fewer than {SIZES_TO_FIT} sizes the exponent of the size is that of language models, "
            f"{USUAL_SIZE_EXPONENT}: other sizes than those of the pilots are a guess."
        )
    return "\n".join(lines)


def margin_words(margin: float, metric: str) -> str:
    """By how much members have to be ahead."""
    shown = f"{100 * margin:.2g} points" if metric_of(metric).is_share else f"{margin:.2g}"
    return f"Every member is ahead of the one before, delivered or trained on for as many MACs, by {shown} or more."


def proposal_table(proposal: Proposal, metric: str, samples_per_epoch: int, tflops: float | None) -> str:
    """What each member is trained for, and what it reaches."""
    rows = [
        [
            leg.name,
            f"{leg.samples / samples_per_epoch:.3g}",
            _value(leg.begins, metric),
            _value(leg.reaches, metric),
            _value(leg.continued, metric),
            human(leg.macs),
            f"{hours(leg.macs, tflops):.3g}" if tflops else "",
            human(leg.twin_macs),
        ]
        for leg in proposal.legs
    ]
    header = ["member", "epochs", "begins at", "reaches", "predecessor trained on", "MACs", "hours", "twin's MACs"]
    kept = [place for place in range(len(header)) if tflops or header[place] != "hours"]
    table = markdown_table([header[place] for place in kept], [[row[place] for place in kept] for row in rows])
    return (
        f"{table}\n\nThe family costs {human(proposal.macs)} MACs; twins of the same quality cost "
        f"{proposal.family_ratio:.2f} times as much."
    )


def leaner_words(without: Mapping[str, float]) -> str:
    """What leaving a member out changes, of each that can be."""
    return "".join(
        f"\nWithout {name} the family costs {human(macs)} MACs and its last member is as good."
        for name, macs in without.items()
    )


def frontier_table(proposals: Sequence[Proposal], metric: str) -> str:
    """What each member reaches for how much of the family."""
    names = [leg.name for leg in proposals[0].legs]
    rows = [
        [human(found.macs), *(_value(leg.reaches, metric) for leg in found.legs), f"{found.family_ratio:.2f}"]
        for found in proposals
    ]
    return markdown_table(["MACs of the family", *names, "twins cost × as much"], rows)


def overrides(proposal: Proposal, samples_per_epoch: int) -> list[str]:
    """The values of `--set` that make a recipe the proposal."""
    return [f"members.{leg.name}.epochs={float(f'{leg.samples / samples_per_epoch:.4g}')!r}" for leg in proposal.legs]


def to_json(law: Law, metric: str, proposal: Proposal, frontier: Sequence[Proposal], samples: int) -> dict[str, Any]:
    """Everything as plain values; losses of shares are what they lack to 1."""
    known = {
        name: value if not isinstance(value, float) or math.isfinite(value) else None
        for name, value in vars(law).items()
    }
    return {
        "metric": metric,
        "law": known,
        "proposal": proposal.to_json(),
        "set": overrides(proposal, samples),
        "frontier": [found.to_json() for found in frontier],
    }


def _value(loss: float, metric: str) -> str:
    if not math.isfinite(loss):
        return "–"
    value = loss_of(loss, metric)
    return f"{100 * value:.1f} %" if metric_of(metric).is_share else f"{value:.3f}"
