"""A graft's report as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from hf_chain.cost.table import markdown_table
from hf_chain.report import graft_tables as tables
from hf_chain.report.graft_examples import Example
from hf_chain.report.graft_summary import GraftSummary
from hf_chain.stages.graft.record import StageRecord

RIGHT, WRONG = "✓", "✗"


def to_markdown(graft: GraftSummary) -> str:
    """The report's tables as one Markdown document; pictures and plots are files beside it."""
    parts = [f"# {graft.name}", "\n".join(f"- {line}" for line in tables.sentences(graft))]
    parts += [f"## Results{f' on {graft.split}' if graft.split else ''}", markdown_table(*tables.result_table(graft))]
    if comparison := tables.comparison_table(graft):
        parts += ["## Cost against the baseline", markdown_table(*comparison)]
    if translator := tables.translator_table(graft):
        parts += ["## Translator", markdown_table(*translator)]
    parts += ["## Stages", markdown_table(*tables.stage_table(graft))]
    for split in graft.splits:
        parts += [
            f"## Metrics on {split}{' (%)' if tables.has_shares(graft, split) else ''}",
            markdown_table(*tables.metrics_table(graft, split)),
        ]
    if graft.examples:
        parts += [f"## {len(graft.examples)} answers", markdown_table(*answers_table(graft))]
    return "\n\n".join(parts) + "\n"


def answers_table(graft: GraftSummary, pictures: bool = True) -> tables.Table:
    """A row for each example: picture, question, right answer, and what the model of every step answered.

    Args:
        graft (`GraftSummary`): The graft.
        pictures (`bool`): Whether the pictures are shown, which the report keeps beside the table.
    """
    titles = list(dict.fromkeys(title for example in graft.examples for title in example.answers))
    pictures = pictures and any(example.pictures for example in graft.examples)
    rows = []
    for number, example in enumerate(graft.examples):
        shown = " ".join(f"![]({picture_name(number, place)})" for place, _ in enumerate(example.pictures))
        answers = [_answer(example, title) for title in titles]
        rows.append([*([shown] if pictures else []), _cell(example.question), _cell(example.expected[0]), *answers])
    return [*(["picture"] if pictures else []), "question", "right answer", *titles], rows


def picture_name(example: int, place: int) -> str:
    """File, beside the report, of a picture of an example."""
    return f"example-{example + 1:02d}-{place + 1}.png"


def _answer(example: Example, title: str) -> str:
    if title not in example.answers:
        return ""
    answer, right = example.answers[title]
    mark = {True: RIGHT, False: WRONG, None: ""}[right]
    return f"{_cell(answer)} {mark}".strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def to_csv(graft: GraftSummary) -> str:
    """One row a stage with plain numbers; metrics are columns named `<split>.<metric>`."""
    rows = [_plain(graft, stage) for stage in graft.graft.stages]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_json(graft: GraftSummary) -> str:
    """Steps, stages and the comparison; every cost is in MACs, every time in seconds."""
    comparison, seconds = graft.graft.comparison(), graft.graft.comparison_in_seconds()
    content: dict[str, Any] = {
        "name": graft.name,
        "started": graft.record.started,
        "finished": graft.record.finished,
        "split": graft.split,
        "steps": [{"title": graft.graft.step_title(step)} | _plain(graft, step) for step in graft.graft.steps],
        "comparison": comparison.to_json() if comparison else None,
        "comparison_in_seconds": seconds.to_json() if seconds else None,
        "given": [asdict(given) for given in graft.given],
        "translator": graft.translator or None,
        "stages": [
            asdict(stage.record) | {"side": stage.side, "decoder": stage.decoder, "parts": list(stage.parts)}
            for stage in graft.graft.stages
        ],
        "examples": [
            {
                "question": example.question,
                "kind": example.kind,
                "expected": list(example.expected),
                "answers": {title: answer for title, (answer, _) in example.answers.items()},
                "correct": {title: correct for title, (_, correct) in example.answers.items()},
                "pictures": [picture_name(number, place) for place, _ in enumerate(example.pictures)],
            }
            for number, example in enumerate(graft.examples)
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _plain(graft: GraftSummary, stage: StageRecord) -> dict[str, Any]:
    record = stage.record
    row: dict[str, Any] = {
        "stage": stage.name,
        "side": stage.side,
        "decoder": stage.decoder,
        "parts": " ".join(stage.parts),
        "status": record.status,
        "epochs": record.epochs,
        "decoder_share": stage.decoder_share,
        "samples": record.samples,
        "parameters": record.parameters,
        "training_macs": record.training_macs.get("total", 0) if stage.done else None,
        "evaluation_macs": record.evaluation_macs if stage.done else None,
        "macs_to_get_there": stage.spent,
        "share_of_baseline": graft.share_of_baseline(stage) if stage.side != "given" else None,
        "seconds": record.seconds if stage.done else None,
        "seconds_to_get_there": stage.seconds_spent,
    }
    measured = record.metrics_after.items()
    return row | {f"{split}.{name}": value for split, values in measured for name, value in values.items()}
