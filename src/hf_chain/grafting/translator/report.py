"""What a translator is worth and what it cost, as data and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from hf_chain.cost.table import markdown_table
from hf_chain.cost.units import human
from hf_chain.errors import HfChainError
from hf_chain.grafting.translator.least_squares import RidgeFit
from hf_chain.grafting.translator.quality import TranslatorQuality
from hf_chain.grafting.translator.train import TranslatorTraining


@dataclass(frozen=True)
class TranslatorReport:
    """One translator.

    Attributes:
        method (`str`): how it was made, such as `closed_form+train:hidden`.
        replaced (`list[str]`): the ranges it stands for.
        translators (`int`): layers that stand for each range.
        seconds (`float`): time of making it, without the measurement of its quality.
        macs (`int`): multiply-accumulate operations, likewise.
        fits (`list[RidgeFit]`): what least squares did, one for each range.
        trainings (`list[TranslatorTraining]`): what training did.
        quality (`TranslatorQuality`, *optional*): what came out, when there was held-out text.
    """

    method: str
    replaced: list[str]
    translators: int
    seconds: float
    macs: int
    fits: list[RidgeFit] = field(default_factory=list)
    trainings: list[TranslatorTraining] = field(default_factory=list)
    quality: TranslatorQuality | None = None

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(asdict(self), indent=1) + "\n"


def translator_table(reports: Sequence[TranslatorReport]) -> str:
    """Reports of translators of the same ranges as a Markdown table, below the target and layer dropping.

    Args:
        reports (`Sequence[TranslatorReport]`): reports with their quality.
    """
    header = ["translator", "splice error", "perplexity", "loss recovered", "seconds", "MACs"]
    rows: list[list[str]] = []
    for report in reports:
        quality = report.quality
        if quality is None:
            raise HfChainError(f"the report of {report.method} holds no quality: give held_out text when fitting")
        if not rows:
            reference = quality.reference
            whole = _measures([0.0] * len(report.replaced), reference.target_perplexity, 1.0)
            dropping = _measures(reference.dropping_splice_error, reference.dropping_perplexity, 0.0)
            rows += [["target", *whole, "", ""], ["none (layers dropped)", *dropping, "", ""]]
        measures = _measures(quality.splice_error, quality.perplexity, quality.recovered)
        rows.append([report.method, *measures, f"{report.seconds:.1f}", human(report.macs)])
    return markdown_table(header, rows)


def _measures(errors: Sequence[float], perplexity: float, recovered: float) -> list[str]:
    return [", ".join(f"{error:.3f}" for error in errors), f"{perplexity:.3f}", f"{recovered:.0%}"]
