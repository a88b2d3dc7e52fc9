"""Cost of a graft against ordinary training of the whole decoder, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_chain.cost.table import markdown_table
from hf_chain.cost.units import human
from hf_chain.errors import HfChainError

EXACT_BELOW = 10_000
"""Numbers below it are written out; larger ones get a decimal prefix."""


@dataclass(frozen=True)
class GraftComparison:
    """Two ways to the same vision-language model, each a sum of stages.

    Attributes:
        ours (`Mapping[str, float]`): Stage -> cost on the way over the surrogate: translator, encoder, graft, decoder.
        baseline (`Mapping[str, float]`): Stage -> cost of ordinary training on the target.
        unit (`str`): What costs are in, such as hours, MACs or seconds; the same on both sides.
        others (`Mapping[str, float]`): Way -> cost of further ways that are to be compared, such as LoRA.

    Raises:
        HfChainError: when a side is empty or costs nothing, or a cost is negative or no number.
    """

    ours: Mapping[str, float]
    baseline: Mapping[str, float]
    unit: str = "hours"
    others: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for side in ("ours", "baseline", "others"):
            for stage, cost in getattr(self, side).items():
                if not math.isfinite(cost) or cost < 0:
                    raise HfChainError(
                        f"{side}: {stage} costs {cost}: give {self.unit}, a number that is not negative"
                    )
        for side in ("ours", "baseline"):
            if not sum(getattr(self, side).values()):
                raise HfChainError(f"{side} costs nothing: give the {self.unit} of at least one stage")

    @property
    def total(self) -> float:
        """What ours costs."""
        return sum(self.ours.values())

    @property
    def baseline_total(self) -> float:
        """What the baseline costs."""
        return sum(self.baseline.values())

    @property
    def saving(self) -> float:
        """Share of the baseline's cost that ours saves; negative when ours costs more."""
        return self.saving_over(self.baseline_total)

    def saving_over(self, cost: float) -> float:
        """Share of `cost` that ours saves.

        Args:
            cost (`float`): In the comparison's unit.

        Returns:
            `float`: 1 is all of it, below 0 ours costs more.
        """
        return 1 - self.total / cost

    def to_json(self) -> dict[str, Any]:
        """Stages, totals and the saving, as a script wants them.

        Returns:
            `dict`: Plain values.
        """
        return {
            "unit": self.unit,
            "ours": dict(self.ours),
            "baseline": dict(self.baseline),
            "others": dict(self.others),
            "ours_total": self.total,
            "baseline_total": self.baseline_total,
            "saving": self.saving,
        }


PUBLISHED = GraftComparison(
    ours={"translator": 9.36, "encoder on the surrogate": 4.25, "graft": 0.0, "decoder, 20 % of the data": 5.56},
    baseline={"alignment": 7.01, "full decoder": 27.78},
    others={"LoRA": 26.2},
)
"""The published example with Llama-3.1-70B (arXiv 2505.22664, read off its cost figure)."""


def comparison_rows(comparison: GraftComparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row for each stage with its cost on its side, and the sums.

    Args:
        comparison (`GraftComparison`): What is compared.

    Returns:
        `tuple[list[str], list[list[str]]]`: The header, and the cells of every row.
    """
    header = ["stage", f"graft, {comparison.unit}", f"baseline, {comparison.unit}"]
    rows = [[stage, amount(cost), ""] for stage, cost in comparison.ours.items()]
    rows += [[stage, "", amount(cost)] for stage, cost in comparison.baseline.items()]
    return header, [*rows, ["all", amount(comparison.total), amount(comparison.baseline_total)]]


def comparison_sentences(comparison: GraftComparison) -> list[str]:
    """The saving in words, over the baseline and over the further ways.

    Args:
        comparison (`GraftComparison`): What is compared.

    Returns:
        `list[str]`: One sentence for each way whose cost is known.
    """
    unit = comparison.unit
    ways = {"the baseline": comparison.baseline_total} | dict(comparison.others)
    return [
        f"The graft costs {saving_words(comparison.saving_over(cost))} than {way}: "
        f"{amount(comparison.total)} against {amount(cost)} {unit}."
        for way, cost in ways.items()
        if cost
    ]


def comparison_table(comparison: GraftComparison) -> str:
    """The comparison as Markdown, without a trailing newline.

    Args:
        comparison (`GraftComparison`): Such as `PUBLISHED`, whose table says 44.9 %.

    Returns:
        `str`: Table and sentences.
    """
    return markdown_table(*comparison_rows(comparison)) + "\n\n" + "\n".join(comparison_sentences(comparison))


def saving_words(saving: float) -> str:
    """A saved share as `44.9 % less`, or `12.0 % more` where nothing is saved.

    Args:
        saving (`float`): Share, as of `saving_over`.

    Returns:
        `str`: The words.
    """
    return f"{100 * abs(saving):.1f} % {'less' if saving >= 0 else 'more'}"


def amount(cost: float) -> str:
    """A cost as `19.17` or, when it is large, as `4.73G`.

    Args:
        cost (`float`): In any unit.

    Returns:
        `str`: Without the unit.
    """
    return human(cost) if cost >= EXACT_BELOW else f"{cost:.2f}".rstrip("0").rstrip(".")
