"""What the report of a graft shows: headline numbers, steps, tables, plots, sentences and answers."""

from __future__ import annotations

from functools import partial
from typing import Any

from hf_chain.cost import human
from hf_chain.cost.table import saving_words
from hf_chain.methods.graft.headline import Headline
from hf_chain.methods.graft.record import StageRecord
from hf_chain.methods.graft.report import tables
from hf_chain.methods.graft.report.examples import Example
from hf_chain.methods.graft.report.plots import PLOTS
from hf_chain.methods.graft.report.summary import YES_NO, GraftSummary, summarize_graft
from hf_chain.report import words
from hf_chain.report.sheet import Plot, Sheet, ShownTable
from hf_chain.report.write import data_uri
from hf_chain.runs.ledger import FamilyRecord

CAPTIONS = {
    "accuracy": "How good the answers are against all that was needed to get there.",
    "cost": "What every stage cost, each bar beginning where the one before it ended.",
    "trajectory": "Where the target was cut: layers whose prediction changes least are replaced by a translator.",
}


def graft_sheet(family: FamilyRecord) -> Sheet:
    """Reads a graft, finished or still going: what is not known yet is left out.

    Args:
        family (`FamilyRecord`): Its ledger.

    Raises:
        HfChainError: when a file that a stage left is damaged.
    """
    graft = summarize_graft(family)
    return Sheet(
        record=graft.record,
        name=graft.name,
        eyebrow="an encoder trained on a surrogate and grafted",
        subtitle=_subtitle(graft),
        tiles=_tiles(graft),
        plots={name: Plot(CAPTIONS[name], partial(draw, graft)) for name, draw in PLOTS.items()},
        tables=_tables(graft),
        sentences=tables.sentences(graft),
        files={
            "graft.md": tables.to_markdown(graft),
            "graft.csv": tables.to_csv(graft),
            "graft.json": tables.to_json(graft),
        },
        template=("hf_chain.methods.graft", "graft.html.jinja"),
        details={
            "steps": [_card(graft, step) for step in graft.graft.steps],
            "examples": [_example(example) for example in graft.examples],
            "split": graft.split,
        },
        pictures={
            tables.picture_name(number, place): picture
            for number, example in enumerate(graft.examples)
            for place, picture in enumerate(example.pictures)
        },
    )


def _subtitle(graft: GraftSummary) -> str:
    parts = [f"{given.what}: {given.name}" for given in graft.given]
    stages = [stage for stage in graft.graft.stages if stage.side != "given"]
    done = sum(stage.record.saved for stage in stages)
    day = (graft.record.finished or graft.record.started)[:10]
    state = "finished" if graft.record.finished else f"{done} of {len(stages)} stages done, started"
    return " · ".join([*parts, f"{state} {day}".strip()])


def _tiles(graft: GraftSummary) -> list[dict[str, str]]:
    """The headline numbers."""
    tiles = []
    comparison = graft.graft.comparison()
    if comparison:
        share, way = saving_words(comparison.saving).rsplit(" ", 1)
        label = f"{way} MACs than the baseline, all counted"
        if seconds := graft.graft.comparison_in_seconds():
            label += f"; in seconds of training {saving_words(seconds.saving)}"
        tiles.append({"value": share, "label": label})
    reached = [step for step in graft.graft.steps if graft.metric(step) is not None]
    ours = [step for step in reached if step.side == "graft"][-1:]
    for step in [*ours, *(step for step in reached if step is graft.baseline)]:
        title = graft.graft.step_title(step)
        headline = graft.headline
        tiles.append({"value": headline.text(graft.metric(step)), "label": f"{headline.label}, {title}"})
    spent = [stage for stage in graft.graft.side("graft") if stage.counted][-1:]
    for stage in spent:
        label = f"of training and {tables.count(stage.spent)} MACs up to {stage.name}"
        tiles.append({"value": tables.took(stage.seconds_spent), "label": label})
    return tiles


def _card(graft: GraftSummary, step: StageRecord) -> dict[str, Any]:
    record = step.record
    largest = max((s.record.parameters for s in graft.graft.steps), default=0)
    headline = graft.headline
    best = headline.best([found for s in graft.graft.steps if (found := graft.metric(s)) is not None] or [0.0])
    value, yes_no, share = graft.metric(step), graft.metric(step, YES_NO), graft.share_of_baseline(step)
    facts = {
        "yes/no F1": words.percent(yes_no) if yes_no is not None else "",
        "parameters": human(record.parameters) if record.parameters else "",
        "own MACs": tables.count(step.macs) if step.counted else "",
        "MACs to get there": tables.count(step.spent) if step.counted else "",
        "of the baseline": words.percent(share) if share is not None else "",
        "time to get there": tables.took(step.seconds_spent) if step.counted else "",
    }
    return {
        "title": graft.graft.step_title(step),
        "stage": step.name,
        "status": record.status,
        "side": step.side,
        # The area of the disc is proportional to the parameters.
        "radius": 24 * (record.parameters / largest) ** 0.5 if largest else 0,
        "measured": value is not None,
        "value": headline.text(value),
        "label": headline.label,
        "width": _width(value, best, headline),
        "facts": {name: fact for name, fact in facts.items() if fact},
    }


def _width(value: float | None, best: float, headline: Headline) -> float:
    """Length of a bar in per cent; the best one is whole."""
    if not value or not best:
        return 0.0
    return 100 * (best / value if headline.lower_is_better else value / best)


def _tables(graft: GraftSummary) -> list[ShownTable]:
    on_split = f" on {graft.split}" if graft.split else ""
    found = [ShownTable(f"Results{on_split}", tables.result_table(graft), wrap=True)]
    if comparison := tables.comparison_table(graft):
        note = "MACs, training and evaluation"
        found.append(ShownTable("Cost against the baseline", comparison, note, totals=True, wrap=True))
    if translator := tables.translator_table(graft):
        note = "on held-out text, between the target and dropping the layers"
        found.append(ShownTable("Translator", translator, note, wrap=True))
    found.append(ShownTable("Stages", tables.stage_table(graft), "what is given is in no sum", wrap=True))
    for split in graft.splits:
        unit = "in per cent" if tables.has_shares(graft, split) else ""
        found.append(ShownTable(f"Metrics on {split}", tables.metrics_table(graft, split), unit, wrap=True))
    return found


def _example(example: Example) -> dict[str, Any]:
    answers = [{"step": step, "text": answer, "right": right} for step, (answer, right) in example.answers.items()]
    pictures = [data_uri(path.read_bytes(), "png") for path in example.pictures]
    return {"question": example.question, "expected": example.expected[0], "pictures": pictures, "answers": answers}
