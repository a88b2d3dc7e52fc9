"""The report of a graft as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_chain.cost import human
from hf_chain.cost.comparison import saving_words
from hf_chain.report import graft_tables as tables
from hf_chain.report import words
from hf_chain.report.graft_examples import Example
from hf_chain.report.graft_summary import YES_NO, GraftSummary
from hf_chain.report.page import data_uri, render
from hf_chain.stages.graft.record import StageRecord

CAPTIONS = {
    "accuracy": "The share of right answers against all that was needed to get there.",
    "cost": "What every stage cost, each bar beginning where the one before it ended.",
    "trajectory": "Where the target was cut: layers whose prediction changes least are replaced by a translator.",
}
FILES = ("graft.md", "graft.csv", "graft.json")


def render_graft_page(graft: GraftSummary, figures: Mapping[str, Mapping[str, bytes]]) -> str:
    """Renders the page; see `render_page`."""
    return render(
        "graft.html.jinja",
        graft.record,
        figures={CAPTIONS[name]: themes for name, themes in figures.items()},
        name=graft.name,
        eyebrow="an encoder trained on a surrogate and grafted",
        subtitle=_subtitle(graft),
        tiles=_tiles(graft),
        steps=[_card(graft, step) for step in graft.graft.steps],
        tables=_tables(graft),
        sentences=tables.sentences(graft),
        examples=[_example(example) for example in graft.examples],
        split=graft.split,
        files=FILES,
    )


def _subtitle(graft: GraftSummary) -> str:
    parts = [f"{given.what}: {given.name}" for given in graft.given]
    stages = [stage for stage in graft.graft.stages if stage.side != "given"]
    done = sum(stage.record.status == "saved" for stage in stages)
    day = (graft.record.finished or graft.record.started)[:10]
    state = "finished" if graft.record.finished else f"{done} of {len(stages)} stages done, started"
    return " · ".join([*parts, f"{state} {day}".strip()])


def _tiles(graft: GraftSummary) -> list[dict[str, str]]:
    """The headline numbers."""
    tiles = []
    comparison = graft.graft.comparison()
    if comparison:
        share, way = saving_words(comparison.saving).rsplit(" ", 1)
        tiles.append({"value": share, "label": f"{way} MACs than the baseline, all counted"})
    reached = [step for step in graft.graft.steps if graft.metric(step) is not None]
    ours = [step for step in reached if step.side == "graft"][-1:]
    for step in [*ours, *(step for step in reached if step is graft.baseline)]:
        title = graft.graft.step_title(step)
        tiles.append({"value": words.percent(graft.metric(step)), "label": f"right answers, {title}"})
    spent = [stage for stage in graft.graft.side("graft") if stage.done][-1:]
    for stage in spent:
        label = f"of training and {tables.count(stage.spent)} MACs up to {stage.name}"
        tiles.append({"value": tables.took(stage.seconds_spent), "label": label})
    return tiles


def _card(graft: GraftSummary, step: StageRecord) -> dict[str, Any]:
    record = step.record
    largest = max((s.record.parameters for s in graft.graft.steps), default=0)
    best = max((graft.metric(s) or 0.0 for s in graft.graft.steps), default=0.0)
    value, yes_no, share = graft.metric(step), graft.metric(step, YES_NO), graft.share_of_baseline(step)
    facts = {
        "yes/no F1": words.percent(yes_no) if yes_no is not None else "",
        "parameters": human(record.parameters) if record.parameters else "",
        "own MACs": tables.count(step.macs) if step.done else "",
        "MACs to get there": tables.count(step.spent) if step.done else "",
        "of the baseline": words.percent(share) if share is not None else "",
        "time to get there": tables.took(step.seconds_spent) if step.done else "",
    }
    return {
        "title": graft.graft.step_title(step),
        "stage": step.name,
        "status": record.status,
        "side": step.side,
        # The area of the disc is proportional to the parameters.
        "radius": 24 * (record.parameters / largest) ** 0.5 if largest else 0,
        "measured": value is not None,
        "value": words.percent(value),
        "width": 100 * (value or 0) / best if best else 0,
        "facts": {name: fact for name, fact in facts.items() if fact},
    }


def _tables(graft: GraftSummary) -> list[dict[str, Any]]:
    found = [(f"Results{f' on {graft.split}' if graft.split else ''}", "", tables.result_table(graft))]
    if comparison := tables.comparison_table(graft):
        found.append(("Cost against the baseline", "MACs, training and evaluation", comparison))
    if translator := tables.translator_table(graft):
        found.append(("Translator", "on held-out text, between the target and dropping the layers", translator))
    found.append(("Stages", "what is given is in no sum", tables.stage_table(graft)))
    for split in graft.splits:
        unit = "in per cent" if tables.has_shares(graft, split) else ""
        found.append((f"Metrics on {split}", unit, tables.metrics_table(graft, split)))
    return [
        {
            "title": title,
            "note": note,
            "header": header,
            "rows": rows,
            "totals": title.startswith("Cost"),
            "wrap": True,
        }
        for title, note, (header, rows) in found
    ]


def _example(example: Example) -> dict[str, Any]:
    answers = [{"step": step, "text": answer, "right": right} for step, (answer, right) in example.answers.items()]
    pictures = [data_uri(path.read_bytes(), "png") for path in example.pictures]
    return {"question": example.question, "expected": example.expected[0], "pictures": pictures, "answers": answers}
