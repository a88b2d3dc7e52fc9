"""The report as one HTML page that needs nothing but itself: styles, plots and data are inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from hf_chain.cost import human
from hf_chain.report import tables, words
from hf_chain.report.summary import FamilySummary, MemberSummary
from hf_chain.stages.ledger import FamilyRecord

CAPTIONS = {
    "accuracy": "What each member reached, against all that was spent on it and on the members before it.",
    "cost": "MACs of each member: in the chain, teacher and evaluations included, and trained on its own.",
    "loss": "The loss while training: thin lines are logged values, thick ones their moving average.",
}
FILES = ("family.md", "family.csv", "family.json")


def render_page(family: FamilySummary, figures: Mapping[str, Mapping[str, bytes]]) -> str:
    """Renders the page.

    Args:
        family (`FamilySummary`): The numbers.
        figures (`Mapping[str, Mapping[str, bytes]]`): For each plot its SVG in a `light` and a `dark` theme.

    Returns:
        `str`: HTML without scripts and without anything to load.
    """
    return render(
        "index.html.jinja",
        family.record,
        figures={CAPTIONS[name]: themes for name, themes in figures.items()},
        name=family.name,
        eyebrow="a family trained small to large",
        subtitle=_subtitle(family),
        tiles=_tiles(family),
        primary=words.metric_name(family.primary[1]) if family.primary else "",
        cards=[_card(family, member) for member in family.members],
        tables=_tables(family),
        sentences=tables.sentences(family),
        files=FILES,
    )


def render(template: str, record: FamilyRecord, figures: Mapping[str, Mapping[str, bytes]], **values: Any) -> str:
    """Fills in a template that extends `page.html.jinja`.

    Args:
        template (`str`): File in `templates`.
        record (`FamilyRecord`): The run.
        figures (`Mapping[str, Mapping[str, bytes]]`): Caption -> the plot as SVG in a `light` and a `dark` theme.
        **values: What the template needs besides.
    """
    environment = Environment(
        loader=PackageLoader("hf_chain.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        finished=bool(record.finished),
        figures=[
            {"caption": caption} | {theme: data_uri(svg, "svg+xml") for theme, svg in themes.items()}
            for caption, themes in figures.items()
        ],
        recipe=yaml.safe_dump(record.recipe, sort_keys=False, allow_unicode=True),
        environment=_flat(record.environment),
        **values,
    )


def _subtitle(family: FamilySummary) -> str:
    model = family.record.recipe.get("model", {})
    parts = [" → ".join(member.name for member in family.members)]
    if "image_size" in model and "patch_size" in model:
        parts.append(f"images {model['image_size']} px, patches {model['patch_size']} px")
    day = (family.record.finished or family.record.started)[:10]
    done = sum(member.record.status == "saved" for member in family.members)
    state = "finished" if family.record.finished else f"{done} of {len(family.members)} members done, started"
    return " · ".join([*parts, f"{state} {day}".strip()])


def _tiles(family: FamilySummary) -> list[dict[str, str]]:
    """The headline numbers."""
    tiles = []
    finished = len(family.trained) == len(family.members)
    ratio = family.acceleration_ratio if finished else family.planned_ratio
    if ratio:
        how = "planned" if not finished else "baseline run" if family.alone_is_measured else "by the plan"
        factor, comparison = words.cheaper(ratio).split()
        tiles.append({"value": factor, "label": f"{comparison} than training each alone ({how})"})
    reached = [member for member in family.members if family.after(member) is not None]
    if reached and family.primary:
        split, metric = family.primary
        label = f"{words.metric_name(metric)} of {reached[-1].name} on {split}"
        tiles.append({"value": words.percent(family.after(reached[-1])), "label": label})
    if family.trained:
        tiles.append({"value": human(family.chain_macs), "label": f"MACs {'in all' if finished else 'so far'}"})
        tiles.append({"value": words.duration(family.seconds), "label": "of training, measured"})
    return tiles


def _card(family: FamilySummary, member: MemberSummary) -> dict[str, Any]:
    record = member.record
    largest = max((m.record.parameters for m in family.members), default=0)
    best = max((family.after(m) or family.before(m) or 0.0 for m in family.members), default=0.0)
    before, after = family.before(member), family.after(member)
    worst = max(record.growth_error.values(), default=None)
    facts = {
        "image tower": member.image_tower,
        "text tower": member.text_tower,
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
        "before": words.percent(before),
        "after": words.percent(after),
        "measured": after is not None,
        "grown": before is not None and record.parent is not None,
        "before_width": 100 * (before or 0) / best if best else 0,
        "after_width": 100 * (after or 0) / best if best else 0,
        "facts": {name: fact for name, fact in facts.items() if fact},
    }


def _tables(family: FamilySummary) -> list[dict[str, Any]]:
    found = [("Cost", "", tables.cost_table(family))]
    for split in tables.splits(family):
        note = "in per cent; before → after training"
        found.append((f"Metrics on {split}", note, tables.metrics_table(family, split)))
    if family.baseline:
        note = f"twins from {family.baseline.run_dir.resolve().name}; differences in percentage points"
        found.append(("Chain against independent training", note, tables.comparison_table(family)))
    return [
        {"title": title, "note": note, "header": head, "rows": rows, "totals": not place, "wrap": False}
        for place, (title, note, (head, rows)) in enumerate(found)
    ]


def data_uri(image: bytes, kind: str) -> str:
    """An image, such as an `svg+xml`, as an address that holds all of it."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values under dotted names."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: str(value)}
    return flat
