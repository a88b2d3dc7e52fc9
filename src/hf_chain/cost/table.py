"""Tables of cost for the terminal, as Markdown that is also aligned as plain text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields

from hf_chain.cost.family import FamilyCost
from hf_chain.cost.memory import MemoryEstimate
from hf_chain.cost.units import hours, human

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
    header = ["member", "parameters", "MACs/sample", "text", "epochs", "teacher MACs", "chain MACs", "alone MACs"]
    rows = [
        [
            member.name,
            human(member.parameters),
            human(member.macs_per_sample),
            f"{member.text_share:.0%}",
            f"{member.epochs:g}",
            human(member.training_macs["teacher"]),
            human(member.training_macs["total"] + member.evaluation_macs),
            human(family.alone(member)),
        ]
        for member in family.members
    ]
    teachers = sum(member.training_macs["teacher"] for member in family.members)
    total = ["all", "", "", "", "", human(teachers), human(family.chain_macs), human(family.independent_macs)]
    sentences = [
        f"The chain costs {100 * family.largest_alone_ratio:.1f} % of training the largest member "
        f"({family.largest.name}) alone for {family.independent_epochs:g} epochs.",
        f"Training every member independently costs {family.family_ratio:.2f} times as much as the chain.",
    ]
    if tflops_per_second is not None:
        chain, alone = (hours(macs, tflops_per_second) for macs in (family.chain_macs, family.independent_macs))
        sentences.append(
            f"At {tflops_per_second:g} TFLOP/s the chain takes {chain:.3g} hours and independent training {alone:.3g}."
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
