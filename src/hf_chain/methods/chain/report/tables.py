"""Tables of a family as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from hf_chain.cost import human
from hf_chain.cost.table import escaped, markdown_table
from hf_chain.evaluation.metrics import metric_of
from hf_chain.methods.chain.report import noise, transfer
from hf_chain.methods.chain.report.outcomes import outcomes
from hf_chain.methods.chain.report.summary import FamilySummary, MemberSummary
from hf_chain.report import words
from hf_chain.report.sheet import Table


def cost_table(family: FamilySummary) -> Table:
    """What each member is and what it cost, with a row of totals."""
    towers = _ordered(name for member in family.members for name in member.shape)
    header = ["member", *towers, "parameters", "MACs a sample", "grown from", "epochs"]
    header += ["student MACs", "teacher MACs", "evaluation MACs", "of alone", "time", "growth error"]
    rows = [_cost_row(member, towers) for member in family.members]
    macs = {part: sum(m.record.training_macs.get(part, 0) for m in family.trained) for part in ("student", "teacher")}
    evaluation = sum(member.record.evaluation_macs for member in family.trained)
    ratio = family.acceleration_ratio
    rows.append(
        ["all", *[""] * (len(towers) + 4), human(macs["student"]), human(macs["teacher"]), human(evaluation)]
        + [words.percent(1 / ratio if ratio else None, 0), words.duration(family.seconds), ""]
    )
    return header, rows


def metrics_table(family: FamilySummary, split: str) -> Table:
    """Metrics of each member on `split`, before → after training; shares in per cent, with intervals and chance."""
    metrics = metric_names(family, split)
    rows = [[member.name, *(_change(member, split, metric) for metric in metrics)] for member in family.members]
    if family.continued is not None:
        control = MemberSummary(family.continued)
        row = [_change(control, split, metric) for metric in metrics]
        rows.append([f"{family.continued.name}, trained on", *row])
    levels = [noise.chance(family.records, split, metric) for metric in metrics]
    if any(level is not None for level in levels):
        rows.append(["chance", *map(words.cell, metrics, levels)])
    return ["member", *map(words.metric_name, metrics)], rows


def comparison_table(family: FamilySummary) -> Table:
    """Chain members against their twins trained independently in the baseline run."""
    metric = family.primary[1] if family.primary else "metric"
    name = words.metric_name(metric)
    header = ["member", f"{name}, chain", "alone", "difference", "MACs, chain", "alone", "cheaper"]
    header += ["time, chain", "alone"]
    rows = []
    for member in family.trained:
        if member.twin is None or not member.alone_macs:
            continue
        chain, alone = family.after(member), family.after(member.twin)
        difference = chain - alone if chain is not None and alone is not None else None
        rows.append(
            [member.name, words.figure(metric, chain), words.figure(metric, alone), words.change(metric, difference)]
            + [human(member.chain_macs), human(member.alone_macs), f"{member.alone_macs / member.chain_macs:.1f}×"]
            + [words.duration(member.record.seconds), words.duration(member.twin.seconds)]
        )
    return header, rows


def splits(family: FamilySummary) -> list[str]:
    """Splits any member was evaluated on."""
    return _ordered(split for m in family.members for split in (*m.record.metrics_before, *m.record.metrics_after))


def metric_names(family: FamilySummary, split: str) -> list[str]:
    """Metrics measured on `split`."""
    measured = (m for s in family.members for m in (s.record.metrics_before, s.record.metrics_after))
    return _ordered(name for metrics in measured for name in metrics.get(split, {}))


def sentences(family: FamilySummary) -> list[str]:
    """The totals in words."""
    if not family.trained:
        return ["No member has been trained yet."]
    done, planned = len(family.trained), len(family.members)
    who = "the family" if done == planned else f"{done} of {planned} members"
    lines = [f"Training {who} cost {human(family.chain_macs)} MACs, teachers and evaluations included."]
    if family.acceleration_ratio and family.independent_macs and family.alone_is_measured:
        lines.append(
            f"Training each member alone cost {human(family.independent_macs)} MACs in the baseline run: "
            f"the chain is {words.cheaper(family.acceleration_ratio)}."
        )
    elif family.acceleration_ratio and family.independent_macs:
        lines.append(
            f"By the plan, training each member alone costs {human(family.independent_macs)} MACs, "
            f"{family.acceleration_ratio:.1f} times as much. What members trained alone reach was not measured: "
            "run the recipe with --independent, then hf-chain report with --baseline and the folder of that run."
        )
    lines += use_of_size(family)
    lines += outcomes([member.record for member in family.members])
    if family.primary:
        lines += noise.worse(family.records, family.primary[1])
    lines.append(f"Measured time of training: {words.duration(family.seconds)}.")
    return lines


def use_of_size(family: FamilySummary) -> list[str]:
    """Whether the larger members are ahead of the first one trained on, or how to find out."""
    if family.record.recipe.get("independent") or len(family.trained) < 2 or not family.primary:
        return []
    first, last, metric = family.trained[0].name, family.trained[-1], family.primary[1]
    if family.continued is None:
        return [
            f"Whether larger members use their size was not measured: hf-chain run with --continued trains {first} on "
            "for as many MACs."
        ]
    split, known = family.primary[0], family.continued.metrics_after
    # What a small model misses for want of size may be in one of them and not in another.
    metrics = [metric, *(name for name in RETRIEVAL if name != metric and name in known.get(split, {}))]
    found = [(name, noise.lead(last.record, family.continued, split, name)) for name in metrics]
    return [
        f"{first}, trained on for as many MACs as its successors cost, reaches {words.figure(name, one.theirs)}"
        f"{f' ({words.metric_name(name)})' if len(metrics) > 1 else ''}: {last.name} with "
        f"{words.figure(name, one.ours)} {one.verdict}."
        for name, one in found
        if one is not None
    ]


RETRIEVAL = ("image_to_text_r1", "text_to_image_r1")
"""Metrics that ask for more than the name of a class."""


def to_markdown(family: FamilySummary) -> str:
    """The report's tables as one Markdown document."""
    parts = [f"# {escaped(family.name)}", "\n".join(f"- {escaped(line)}" for line in sentences(family))]
    parts += ["## Cost", markdown_table(*cost_table(family))]
    for split in splits(family):
        title = f"## Metrics on {escaped(split)}, before → after training{_unit(family, split)}"
        parts += [title, markdown_table(*metrics_table(family, split))]
    if any(member.record.transfer for member in family.members):
        table = transfer.transfer_table([member.record for member in family.members])
        parts += [f"## {transfer.TITLE}", f"{transfer.NOTE[0].upper()}{transfer.NOTE[1:]}.", markdown_table(*table)]
    if family.baseline:
        parts += ["## Chain against independent training", markdown_table(*comparison_table(family))]
    return "\n\n".join(parts) + "\n"


def to_csv(family: FamilySummary) -> str:
    """One row a member with plain numbers; metrics are columns `<split>.<metric>.before` and `.after`, and those of a
    suite `transfer.<data set>.<metric>`."""
    rows = [_plain(member) for member in family.members]
    columns = _ordered(column for row in rows for column in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_json(family: FamilySummary) -> str:
    """Totals and members, each with all its ledger knows; every cost is in MACs, every time in seconds."""
    content: dict[str, Any] = {
        "name": family.name,
        "started": family.record.started,
        "finished": family.record.finished,
        "primary_metric": dict(zip(("split", "metric"), family.primary, strict=True)) if family.primary else None,
        "chain_macs": family.chain_macs,
        "independent_macs": family.independent_macs,
        "independent_macs_measured": family.alone_is_measured,
        "first_member_continued": asdict(family.continued) if family.continued else None,
        "acceleration_ratio": family.acceleration_ratio,
        "seconds": family.seconds,
        "members": [
            asdict(member.record)
            | {"shape": dict(member.shape)}
            | {"chain_macs": member.chain_macs, "alone_macs": member.alone_macs}
            | {"share_of_alone": member.share_of_alone, "twin": asdict(member.twin) if member.twin else None}
            for member in family.members
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _cost_row(member: MemberSummary, towers: list[str]) -> list[str]:
    record, macs = member.record, member.record.training_macs
    grown = f"{record.parent} ({record.operator})" if record.parent else "scratch" if member.trained else words.UNKNOWN
    worst = max(record.growth_error.values(), default=None)
    costs = [macs.get("student"), macs.get("teacher"), record.evaluation_macs if member.trained else None]
    return [
        member.name,
        *(member.shape.get(tower, words.UNKNOWN) for tower in towers),
        human(record.parameters) if record.parameters else words.UNKNOWN,
        human(record.macs_per_sample) if record.macs_per_sample else words.UNKNOWN,
        grown,
        f"{record.epochs:g}",
        *(words.UNKNOWN if cost is None else human(cost) for cost in costs),
        words.percent(member.share_of_alone, 0),
        words.duration(record.seconds),
        words.error(worst),
    ]


def _unit(family: FamilySummary, split: str) -> str:
    """` (%)` where all metrics of a split are shares."""
    return " (%)" if all(metric_of(name).is_share for name in metric_names(family, split)) else ""


def _change(member: MemberSummary, split: str, metric: str) -> str:
    values = (member.record.metrics_before, member.record.metrics_after)
    before, after = (metrics.get(split, {}).get(metric) for metrics in values)
    written = [words.cell(metric, value) for value in (before, after)]
    if ends := noise.interval(member.record, split, metric):
        written[1] += f" ({100 * ends[0]:.1f}–{100 * ends[1]:.1f})"
    return " → ".join(written) if before is not None else written[1]


def _plain(member: MemberSummary) -> dict[str, Any]:
    record = member.record
    row: dict[str, Any] = {
        "member": member.name,
        "status": record.status,
        **member.shape,
        "parameters": record.parameters,
        "macs_per_sample": record.macs_per_sample,
        "predecessor": record.parent,
        "operator": record.operator,
        "epochs": record.epochs,
        "samples": record.samples,
        "student_macs": record.training_macs.get("student"),
        "teacher_macs": record.training_macs.get("teacher"),
        "evaluation_macs": record.evaluation_macs,
        "chain_macs": member.chain_macs if member.trained else None,
        "alone_macs": member.alone_macs,
        "share_of_alone": member.share_of_alone,
        "seconds": record.seconds,
        "images_per_second": record.images_per_second,
    }
    row |= {f"growth_error.{tower}": value for tower, value in record.growth_error.items()}
    for when, measured in (("before", record.metrics_before), ("after", record.metrics_after)):
        row |= {f"{split}.{name}.{when}": v for split, values in measured.items() for name, v in values.items()}
    for name, result in record.transfer.items():
        row |= {f"transfer.{name}.{metric}": value for metric, value in result["metrics"].items()}
    return row


def _ordered(names: Any) -> list[str]:
    """Distinct names in order of first appearance."""
    return list(dict.fromkeys(names))
