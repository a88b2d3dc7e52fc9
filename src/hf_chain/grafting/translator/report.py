"""What a translator is worth and what it cost, as data and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from hf_chain.cost.table import markdown_table
from hf_chain.errors import HfChainError
from hf_chain.grafting.translator.least_squares import RidgeFit
from hf_chain.grafting.translator.quality import TranslatorQuality
from hf_chain.grafting.translator.train import TranslatorTraining
from hf_chain.grafting.translator_table import translator_rows


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
        """The report as JSON text.

        Returns:
            `str`: indented.
        """
        return json.dumps(asdict(self), indent=1) + "\n"


def translator_table(reports: Sequence[TranslatorReport]) -> str:
    """Reports of translators of the same ranges as a Markdown table, below the target and layer dropping.

    Args:
        reports (`Sequence[TranslatorReport]`): reports with their quality.

    Returns:
        `str`: Markdown, without a trailing newline.

    Raises:
        HfChainError: when a report has no quality.
    """
    for report in reports:
        if report.quality is None:
            raise HfChainError(f"the report of {report.method} holds no quality: give held_out text when fitting")
    return markdown_table(*translator_rows([asdict(report) for report in reports]))
