"""Tables of a graft as written for people, the totals in words, and all of it as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from hf_chain.cost import human
from hf_chain.cost.table import comparison_rows, comparison_sentences, escaped, markdown_table, saving_words
from hf_chain.grafting.translator_table import perplexity_remark, translator_rows
from hf_chain.methods.graft.card.numbers import NO_SHARES, metric_number, metric_title
from hf_chain.methods.graft.headline import EXACT, at_floor, floor_sentences
from hf_chain.methods.graft.record import TARGET, StageRecord
from hf_chain.methods.graft.report.examples import Example
from hf_chain.methods.graft.report.summary import YES_NO, GraftSummary
from hf_chain.report import words
from hf_chain.report.sheet import Table

WITHOUT = "the same parts straight on the target"
"""The control, which has no surrogate."""
NOTABLE = 0.05
"""Difference of two savings from which on it is explained."""


def result_table(graft: GraftSummary) -> Table:
    """A row for each step: what it answers right, what it is, and what it took to get there."""
    header = ["model", graft.headline.title, "yes/no F1", "parameters", "training MACs", "evaluation MACs"]
    header += ["MACs to get there", "of the baseline", "time", "time to get there"]
    if not any(graft.metric(step, YES_NO) is not None for step in graft.graft.steps):
        header.remove("yes/no F1")
    rows = [_result_row(graft, step, "yes/no F1" in header) for step in graft.graft.steps]
    if graft.straight is not None:
        _, *cells = _result_row(graft, graft.straight, "yes/no F1" in header)
        rows.append([WITHOUT, *cells])
    return header, rows


def _result_row(graft: GraftSummary, step: StageRecord, yes_no: bool) -> list[str]:
    record = step.record
    row = [graft.graft.step_title(step), graft.headline.text(graft.metric(step))]
    if yes_no:
        row.append(words.percent(graft.metric(step, YES_NO)))
    row.append(human(record.parameters) if record.parameters else words.UNKNOWN)
    row += [count(record.training_macs.get("total", 0) if step.counted else None)]
    row += [count(record.evaluation_macs if step.counted else None), count(step.spent)]
    row.append(words.percent(graft.share_of_baseline(step)))
    return [*row, took(record.seconds if step.counted else None), took(step.seconds_spent)]


def stage_table(graft: GraftSummary) -> Table:
    """A row for each stage, what is given included, and what it cost by itself."""
    header = ["stage", "way", "decoder", "trained", "data", "epochs", "samples", "parameters"]
    header += ["training MACs", "evaluation MACs", "time"]
    rows = []
    for given in graft.given:
        parameters = human(given.parameters) if given.parameters else words.UNKNOWN
        blank = [""] * 5
        rows.append(
            [f"{given.what}: {given.name}", "given", *blank, parameters, count(given.macs), "", took(given.seconds)]
        )
    for stage in graft.graft.stages:
        if stage.side != "given":
            rows.append(_stage_row(stage))
    return header, rows


def _stage_row(stage: StageRecord) -> list[str]:
    record, trains = stage.record, bool(stage.parts)
    return [
        stage.name,
        stage.side,
        stage.decoder,
        ", ".join(stage.parts) or record.operator or "nothing",
        ", ".join(stage.data) if trains else "",
        f"{record.epochs:g}" if trains and record.epochs else "",
        f"{record.samples:,}" if record.samples else "",
        human(record.parameters) if record.parameters else words.UNKNOWN,
        count(record.training_macs.get("total", 0) if stage.counted else None),
        count(record.evaluation_macs if stage.counted else None),
        took(record.seconds if stage.counted else None),
    ]


def translator_table(graft: GraftSummary) -> Table | None:
    """The translator between the target and layer dropping alone, on held-out text; `None` when it is not known."""
    return translator_rows([graft.translator]) if graft.translator.get("quality") else None


def metrics_table(graft: GraftSummary, split: str) -> Table:
    """A row for each metric on `split`, a column for each step; shares in per cent."""
    steps = [step for step in graft.graft.steps if split in step.record.metrics_after]
    metrics = dict.fromkeys(name for step in steps for name in step.record.metrics_after[split])
    rows = []
    floor = [one.name for one in at_floor(graft.measured(split))]
    for name in metrics:
        values = [step.record.metrics_after[split].get(name) for step in steps]
        title = f"{metric_title(name)} (at its floor)" if name in floor else metric_title(name)
        rows.append([title, *(words.UNKNOWN if v is None else metric_number(name, v) for v in values)])
    return ["metric", *map(graft.graft.step_title, steps)], rows


def has_shares(graft: GraftSummary, split: str) -> bool:
    """Whether a metric on `split` is a share, as those of captions are not."""
    measured = (step.record.metrics_after.get(split, {}) for step in graft.graft.steps)
    return any(name not in NO_SHARES for metrics in measured for name in metrics)


def comparison_table(graft: GraftSummary) -> Table | None:
    """Both ways in MACs and in seconds of training, stage by stage; `None` before both are done."""
    comparison, seconds = graft.graft.comparison(), graft.graft.comparison_in_seconds()
    if comparison is None:
        return None
    header, rows = comparison_rows(comparison)
    saved = ["saved", words.percent(comparison.saving), ""]
    if seconds is None:
        return header, [*rows, saved]
    times = {stage: [ours, baseline] for stage, ours, baseline in comparison_rows(seconds)[1]}
    *stages, total = [[*row, *times.pop(row[0], ["", ""])] for row in rows]
    # A surrogate's MACs stand in two rows, and its seconds in one.
    stages = [[stage, "", "", *found] for stage, found in times.items()] + stages
    seconds_header = [f"{way}, {seconds.unit}" for way in ("graft", "baseline")]
    return [*header, *seconds_header], [*stages, total, [*saved, words.percent(seconds.saving), ""]]


def sentences(graft: GraftSummary) -> list[str]:
    """What came out, in words."""
    record, lines = graft.graft, []
    steps = [step for step in record.steps if graft.metric(step) is not None]
    if not steps:
        return ["No stage has answered questions yet."]
    lines += _between(graft, steps)
    for split in graft.splits:
        lines += floor_sentences(graft.measured(split), split)
    if (quality := graft.translator.get("quality")) and (remark := perplexity_remark(quality)):
        lines.append(f"{remark}.")
    lines += control_sentences(graft)
    comparison, seconds = record.comparison(), record.comparison_in_seconds()
    for compared in (comparison, seconds):
        if compared is not None:
            lines += comparison_sentences(compared)
    if comparison is not None and seconds is not None and seconds.saving < comparison.saving - NOTABLE:
        lines.append(
            "In seconds less is saved than in MACs: what a step takes beside them (reading rows, starting kernels) is "
            "as long with a small decoder as with a large one, and weighs the more the smaller the models are; and a "
            "frozen layer counts a third less than a trained one, but has the same attention, norms and activations."
        )
    for step in [step for step in steps if step.side == "graft" and step.decoder == TARGET][:-1]:
        share = graft.share_of_baseline(step)
        if share is not None:
            lines.append(f"Up to “{record.step_title(step)}” it costs {saving_words(1 - share)} than the baseline.")
    cut = "finding the cut, the translator, " if record.uses_surrogate else ""
    lines.append(
        f"Counted: {cut}every stage, and the evaluation of what is judged, on both sides alike. Not counted: the "
        "training of target and encoder, which stand for published models."
    )
    return lines


def control_sentences(graft: GraftSummary) -> list[str]:
    """What the surrogate itself saves, or how to find out; nothing where there is none."""
    last = next((step for step in reversed(graft.graft.steps) if step.side == "graft"), None)
    if not graft.graft.uses_surrogate or last is None or last.spent is None:
        return []
    if (control := graft.straight) is None:
        return [
            "What the surrogate itself saves was not measured: hf-chain run with --straight trains the same parts "
            "straight on the target."
        ]
    if not control.spent:
        return []
    reached, ours = (graft.headline.text(graft.metric(step)) for step in (control, last))
    return [
        f"Without a surrogate, {WITHOUT} reach {reached} for {human(control.spent)} MACs; "
        f"“{graft.graft.step_title(last)}” has {ours} for {human(last.spent)}: "
        f"{saving_words(1 - last.spent / control.spent)}."
    ]


def _between(graft: GraftSummary, steps: list[StageRecord]) -> list[str]:
    """What grafting changes, and how the last step compares with the baseline."""
    lines, headline = [], graft.headline
    for before, after in zip(steps, steps[1:], strict=False):
        if before.side == after.side and before.decoder != after.decoder and not after.parts:
            value, previous = graft.metric(after) or 0.0, graft.metric(before) or 0.0
            told = "{} of the answers are right" if headline is EXACT else f"{headline.title} is {{}}"
            lines.append(
                f"Grafted with nothing trained, {told.format(headline.text(value))}; on the surrogate it was "
                f"{headline.text(previous)} ({headline.change(previous, value)})."
            )
    ours = [step for step in steps if step.side == "graft"]
    if graft.baseline in steps and graft.baseline is not None and ours:
        last, baseline = ours[-1], graft.baseline
        value, other = graft.metric(last) or 0.0, graft.metric(baseline) or 0.0
        title, named = graft.graft.step_title(last), "" if headline is EXACT else f"{headline.title} "
        lines.append(
            f"{title[0].upper()}{title[1:]}: {named}{headline.text(value)}; {graft.graft.step_title(baseline)}: "
            f"{headline.text(other)} ({headline.change(other, value)})."
        )
    return lines


def count(macs: int | None) -> str:
    """MACs for people."""
    return words.UNKNOWN if macs is None else human(macs)


def took(seconds: float | None) -> str:
    """Seconds for people; what trains nothing takes none."""
    return words.UNKNOWN if seconds is None else words.duration(seconds) if seconds else "0 s"


RIGHT, WRONG = "✓", "✗"


def to_markdown(graft: GraftSummary) -> str:
    """The report's tables as one Markdown document; pictures and plots are files beside it."""
    parts = [f"# {escaped(graft.name)}", "\n".join(f"- {escaped(line)}" for line in sentences(graft))]
    parts += [
        f"## Results{f' on {escaped(graft.split)}' if graft.split else ''}",
        markdown_table(*result_table(graft)),
    ]
    if comparison := comparison_table(graft):
        parts += ["## Cost against the baseline", markdown_table(*comparison)]
    if translator := translator_table(graft):
        parts += ["## Translator", markdown_table(*translator)]
    parts += ["## Stages", markdown_table(*stage_table(graft))]
    for split in graft.splits:
        header, rows = metrics_table(graft, split)
        parts += [
            f"## Metrics on {escaped(split)}{' (%)' if has_shares(graft, split) else ''}",
            markdown_table(header, [[escaped(name), *values] for name, *values in rows]),
        ]
    if graft.examples:
        parts += [f"## {len(graft.examples)} answers", markdown_table(*answers_table(graft))]
    return "\n\n".join(parts) + "\n"


def answers_table(graft: GraftSummary, pictures: bool = True) -> Table:
    """A row for each example: picture, question, right answer, and what the model of every step answered.

    Args:
        graft (`GraftSummary`): The graft.
        pictures (`bool`): Whether the pictures are shown, which the report keeps beside the table.
    """
    titles = list(dict.fromkeys(title for example in graft.examples for title in example.answers))
    pictures = pictures and any(example.pictures for example in graft.examples)
    rows = []
    for number, example in enumerate(graft.examples):
        shown = " ".join(f"![]({picture_name(number, picture)})" for picture, _ in enumerate(example.pictures))
        answers = [_answer(example, title) for title in titles]
        rows.append(
            [*([shown] if pictures else []), escaped(example.question), escaped(example.expected[0]), *answers]
        )
    return [*(["picture"] if pictures else []), "question", "right answer", *titles], rows


def picture_name(example: int, picture: int) -> str:
    """File, beside the report, of a picture of an example."""
    return f"example-{example + 1:02d}-{picture + 1}.png"


def _answer(example: Example, title: str) -> str:
    if title not in example.answers:
        return ""
    answer, right = example.answers[title]
    mark = {True: RIGHT, False: WRONG, None: ""}[right]
    return f"{escaped(answer)} {mark}".strip()


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
        "headline": graft.headline.name if graft.split else None,
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
                "pictures": [picture_name(number, picture) for picture, _ in enumerate(example.pictures)],
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
        "training_macs": record.training_macs.get("total", 0) if stage.counted else None,
        "evaluation_macs": record.evaluation_macs if stage.counted else None,
        "macs_to_get_there": stage.spent,
        "share_of_baseline": graft.share_of_baseline(stage) if stage.side != "given" else None,
        "seconds": record.seconds if stage.counted else None,
        "seconds_to_get_there": stage.seconds_spent,
    }
    measured = record.metrics_after.items()
    return row | {f"{split}.{name}": value for split, values in measured for name, value in values.items()}
