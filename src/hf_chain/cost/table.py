"""Costs as people read them: units, tables of Markdown that is also aligned as plain text, and two ways compared."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from hf_chain.cost.family import FamilyCost
from hf_chain.cost.steps import MemoryEstimate
from hf_chain.errors import HfChainError

PREFIXES = ("", "K", "M", "G", "T", "P", "E", "Z")


def human(number: float) -> str:
    """Writes `number` with three significant digits and a decimal prefix, e.g. `27.9M`.

    Args:
        number (`float`): A count.

    Returns:
        `str`: Such as `27.9M`.
    """
    for prefix in PREFIXES[:-1]:
        if abs(number) < 999.5:
            return f"{number:.3g}{prefix}"
        number /= 1000
    return f"{number:.3g}{PREFIXES[-1]}"


def hours(total_macs: float, tflops_per_second: float) -> float:
    """Hours that `total_macs` take at a sustained throughput: a multiply-accumulate is two floating-point operations.

    Args:
        total_macs (`float`): Multiply-accumulate operations.
        tflops_per_second (`float`): Throughput over all devices, in 10¹² floating-point operations a second.

    Returns:
        `float`: Time in hours.

    Raises:
        HfChainError: when the throughput is not positive, or no number.
    """
    if not 0 < tflops_per_second < math.inf:
        raise HfChainError(f"tflops_per_second is {tflops_per_second}: give the measured throughput, above 0")
    return 2 * total_macs / (tflops_per_second * 1e12) / 3600


_SPECIAL = re.compile(r"[\\`*_\[\]|~$]|^[#>+=-]|(?:(?<=^\d)|(?<=^\d\d))[.)]")
"""What Markdown, or GitHub's, reads as a mark; some are one only where a line begins."""


def plan_table(family: FamilyCost, tflops_per_second: float | None = None) -> str:
    """Writes the plan of a family: cost of each member in the chain and alone, and the two ratios in words.

    Args:
        family (`FamilyCost`): The family.
        tflops_per_second (`float`, *optional*): Sustained throughput; adds the hours of both ways.

    Returns:
        `str`: Markdown, without a trailing newline.
    """
    texts = any("text_share" in member.details for member in family.members)
    header = ["member", "parameters", "MACs/sample", *["text"] * texts]
    header += ["epochs", "teacher MACs", "chain MACs", "alone MACs"]
    rows = [
        [
            member.name,
            human(member.parameters),
            human(member.macs_per_sample),
            *([f"{member.details['text_share']:.0%}"] if texts else []),
            f"{'≤ ' if member.may_stop else ''}{member.epochs:g}",
            human(member.training_macs["teacher"]),
            human(family.in_chain(member)),
            human(family.alone(member)),
        ]
        for member in family.members
    ]
    teachers = sum(member.training_macs["teacher"] for member in family.members)
    total = [
        "all",
        *[""] * (len(header) - 4),
        human(teachers),
        human(family.chain_macs),
        human(family.independent_macs),
    ]
    most, least = ("at most ", "at least ") if family.may_stop else ("", "")
    sentences = [
        f"The chain costs {most}{100 * family.largest_alone_ratio:.1f} % of training the largest member "
        f"({family.largest.name}) alone for {family.independent_epochs:g} epochs.",
        f"Training every member independently costs {least}{family.family_ratio:.2f} times as much as the chain.",
    ]
    if stops := [member.name for member in family.members if member.may_stop]:
        sentences.append(f"{', '.join(stops)}: at most so many epochs, until what is asked for is reached.")
    if tflops_per_second is not None:
        chain, alone = (hours(macs, tflops_per_second) for macs in (family.chain_macs, family.independent_macs))
        sentences.append(
            f"At {tflops_per_second:g} TFLOP/s the chain takes {most}{chain:.3g} hours and independent training "
            f"{alone:.3g}."
        )
    return markdown_table(header, [*rows, total]) + "\n\n" + "\n".join(sentences)


def memory_table(estimates: Mapping[str, MemoryEstimate]) -> str:
    """Writes the bytes per device of each named member, part by part.

    Args:
        estimates (`Mapping[str, MemoryEstimate]`): Name of a member -> its estimate.

    Returns:
        `str`: Markdown, without a trailing newline.
    """
    parts = [part.name for part in fields(MemoryEstimate)]
    rows = [
        [name, *(human(getattr(estimate, part)) for part in parts), human(estimate.total)]
        for name, estimate in estimates.items()
    ]
    return markdown_table(["bytes per device", *parts, "total"], rows)


def escaped(text: str) -> str:
    """Text of data in one line that Markdown and the HTML in it show as it is.

    Args:
        text (`str`): A question, an answer, a name, whatever is in it.

    Returns:
        `str`: For a cell or a sentence.
    """
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return _SPECIAL.sub(r"\\\g<0>", text)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out a Markdown table: the first column to the left, numbers to the right.

    Args:
        header (`Sequence[str]`): Names of the columns.
        rows (`Sequence[Sequence[str]]`): Cells, as many in each row.

    Returns:
        `str`: Markdown, without a trailing newline.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return "| " + " | ".join(aligned) + " |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(header), f"|{rule}|", *map(line, rows)])


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
