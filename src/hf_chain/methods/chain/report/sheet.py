"""What the report of a chain shows: headline numbers, members, tables, plots and sentences."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from hf_chain.cost import human
from hf_chain.evaluation.metrics import metric_of
from hf_chain.methods.chain.report import noise, tables, transfer
from hf_chain.methods.chain.report.plots import PLOTS
from hf_chain.methods.chain.report.summary import FamilySummary, MemberSummary, summarize
from hf_chain.report import words
from hf_chain.report.sheet import Plot, Sheet, ShownTable

CAPTIONS = {
    "quality": "What each member reached, against all that was spent on it and on the members before it.",
    "cost": "MACs of each member: in the chain, teacher and evaluations included, and trained on its own.",
    "loss": "The loss while training: thin lines are logged values, thick ones their moving average.",
}


def chain_sheet(run_dir: Path, baseline: Path | None = None) -> Sheet:
    """Reads a chain, finished or still going: what is not known yet is left out.

    Args:
        run_dir (`Path`): Folder of the run.
        baseline (`Path`, *optional*): Folder of a run whose members, of the same names, were trained independently;
            adds the comparison.

    Raises:
        HfChainError: when a folder has no ledger or a damaged one.
    """
    family = summarize(run_dir, baseline)
    return Sheet(
        record=family.record,
        name=family.name,
        eyebrow="a family trained small to large",
        subtitle=_subtitle(family),
        tiles=_tiles(family),
        plots={name: Plot(CAPTIONS[name], partial(draw, family)) for name, draw in PLOTS.items()},
        tables=_tables(family),
        sentences=tables.sentences(family),
        files={
            "family.md": tables.to_markdown(family),
            "family.csv": tables.to_csv(family),
            "family.json": tables.to_json(family),
        },
        template=("hf_chain.methods.chain", "index.html.jinja"),
        details={
            "primary": words.metric_name(family.primary[1]) if family.primary else "",
            "cards": [_card(family, member) for member in family.members],
        },
    )


def _subtitle(family: FamilySummary) -> str:
    model = family.record.recipe.get("model") or {}
    parts = [" → ".join(member.name for member in family.members)]
    if "image_size" in model and "patch_size" in model:
        parts.append(f"images {model['image_size']} px, patches {model['patch_size']} px")
    day = (family.record.finished or family.record.started)[:10]
    done = sum(member.record.saved for member in family.members)
    state = "finished" if family.record.finished else f"{done} of {len(family.members)} members done, started"
    return " · ".join([*parts, f"{state} {day}".strip()])


def _tiles(family: FamilySummary) -> list[dict[str, str]]:
    """The headline numbers."""
    tiles = []
    finished = len(family.trained) == len(family.members)
    ratio = family.acceleration_ratio if finished else family.planned_ratio
    measured = bool(ratio and finished and family.alone_is_measured)
    if ratio and measured:
        factor, comparison = words.cheaper(ratio).split()
        tiles.append({"value": factor, "label": f"{comparison} than training each alone (baseline run)"})
    reached = [member for member in family.members if family.after(member) is not None]
    if reached and family.primary:
        split, metric = family.primary
        label = f"{words.metric_name(metric)} of {reached[-1].name} on {split}"
        level = noise.chance(family.records, split, metric)
        label += f"; chance {words.figure(metric, level)}" if level is not None else ""
        tiles.append({"value": words.figure(metric, family.after(reached[-1])), "label": label})
    if family.trained:
        tiles.append({"value": human(family.chain_macs), "label": f"MACs {'in all' if finished else 'so far'}"})
        tiles.append({"value": words.duration(family.seconds), "label": "of training, measured"})
    if ratio and not measured:
        label = "the chain's MACs would train each member alone, by the plan; what they would reach was not measured"
        tiles.append({"value": f"{ratio:.1f}×", "label": label})
    return tiles


def _card(family: FamilySummary, member: MemberSummary) -> dict[str, Any]:
    record = member.record
    largest = max((m.record.parameters for m in family.members), default=0)
    metric = family.primary[1] if family.primary else ""
    best = max((value or 0.0 for m in family.members for value in (family.after(m), family.before(m))), default=0.0)
    before, after = family.before(member), family.after(member)
    worst = max(record.growth_error.values(), default=None)
    facts = {
        **member.shape,
        "parameters": human(record.parameters) if record.parameters else "",
        "epochs": f"{record.epochs:g}",
        "cost": f"{human(member.chain_macs)} MACs" if member.trained else "",
        "of alone": words.percent(member.share_of_alone, 0) if member.share_of_alone else "",
        "training time": words.duration(record.seconds) if record.seconds else "",
        "growth error": words.error(worst) if worst is not None else "",
    }
    return {
        "name": member.name,
        "status": record.status,
        "origin": f"grown from {record.parent}" if record.parent else "trained from scratch" if member.trained else "",
        "operator": record.operator or "",
        # The area of the disc is proportional to the parameters.
        "radius": 24 * (record.parameters / largest) ** 0.5 if largest else 0,
        "before": words.figure(metric, before),
        "after": words.figure(metric, after),
        "measured": after is not None,
        "bar": metric_of(metric).is_share,
        "grown": before is not None and record.parent is not None,
        "before_width": 100 * (before or 0) / best if best else 0,
        "after_width": 100 * (after or 0) / best if best else 0,
        "facts": {name: fact for name, fact in facts.items() if fact},
    }


def _tables(family: FamilySummary) -> list[ShownTable]:
    found = [ShownTable("Cost", tables.cost_table(family), totals=True)]
    for split in tables.splits(family):
        shares = all(metric_of(name).is_share for name in tables.metric_names(family, split))
        note = (
            "in per cent; before → after training, with 95 % intervals (Wilson) where the number of samples is known"
            if shares
            else "before → after training; lower is better"
        )
        found.append(ShownTable(f"Metrics on {split}", tables.metrics_table(family, split), note))
    if any(member.record.transfer for member in family.members):
        table = transfer.transfer_table([member.record for member in family.members])
        found.append(ShownTable(transfer.TITLE, table, transfer.NOTE))
    if family.baseline:
        note = f"twins from {family.baseline.run_dir.resolve().name}; differences in percentage points"
        found.append(ShownTable("Chain against independent training", tables.comparison_table(family), note))
    return found
