"""Tables of a graft: header and rows as written for people, and the totals in words."""

from __future__ import annotations

from hf_chain.cost import human
from hf_chain.cost.comparison import comparison_rows, comparison_sentences, saving_words
from hf_chain.grafting.translator_table import translator_rows
from hf_chain.hub.graft_numbers import CAPTION_METRICS, metric_number, metric_title
from hf_chain.report import words
from hf_chain.report.graft_summary import YES_NO, GraftSummary
from hf_chain.report.tables import Table
from hf_chain.stages.graft.record import TARGET, StageRecord


def result_table(graft: GraftSummary) -> Table:
    """A row for each step: what it answers right, what it is, and what it took to get there."""
    header = ["model", "exact match", "yes/no F1", "parameters", "training MACs", "evaluation MACs"]
    header += ["MACs to get there", "of the baseline", "time", "time to get there"]
    if not any(graft.metric(step, YES_NO) is not None for step in graft.graft.steps):
        header.remove("yes/no F1")
    return header, [_result_row(graft, step, "yes/no F1" in header) for step in graft.graft.steps]


def _result_row(graft: GraftSummary, step: StageRecord, yes_no: bool) -> list[str]:
    record = step.record
    row = [graft.graft.step_title(step), words.percent(graft.metric(step))]
    if yes_no:
        row.append(words.percent(graft.metric(step, YES_NO)))
    row.append(human(record.parameters) if record.parameters else words.UNKNOWN)
    row += [count(record.training_macs.get("total", 0) if step.done else None)]
    row += [count(record.evaluation_macs if step.done else None), count(step.spent)]
    row.append(words.percent(graft.share_of_baseline(step)))
    return [*row, took(record.seconds if step.done else None), took(step.seconds_spent)]


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
        count(record.training_macs.get("total", 0) if stage.done else None),
        count(record.evaluation_macs if stage.done else None),
        took(record.seconds if stage.done else None),
    ]


def translator_table(graft: GraftSummary) -> Table | None:
    """The translator between the target and layer dropping alone, on held-out text; `None` when it is not known."""
    return translator_rows([graft.translator]) if graft.translator.get("quality") else None


def metrics_table(graft: GraftSummary, split: str) -> Table:
    """A row for each metric on `split`, a column for each step; shares in per cent."""
    steps = [step for step in graft.graft.steps if split in step.record.metrics_after]
    metrics = dict.fromkeys(name for step in steps for name in step.record.metrics_after[split])
    rows = []
    for name in metrics:
        values = [step.record.metrics_after[split].get(name) for step in steps]
        rows.append([metric_title(name), *(words.UNKNOWN if v is None else metric_number(name, v) for v in values)])
    return ["metric", *map(graft.graft.step_title, steps)], rows


def has_shares(graft: GraftSummary, split: str) -> bool:
    """Whether a metric on `split` is a share, as those of captions are not."""
    measured = (step.record.metrics_after.get(split, {}) for step in graft.graft.steps)
    return any(name not in CAPTION_METRICS for metrics in measured for name in metrics)


def comparison_table(graft: GraftSummary) -> Table | None:
    """Both ways in MACs, stage by stage; `None` before both are done."""
    comparison = graft.graft.comparison()
    return comparison_rows(comparison) if comparison else None


def sentences(graft: GraftSummary) -> list[str]:
    """What came out, in words."""
    record, lines = graft.graft, []
    steps = [step for step in record.steps if graft.metric(step) is not None]
    if not steps:
        return ["No stage has answered questions yet."]
    lines += _between(graft, steps)
    for comparison in (record.comparison(), record.comparison_in_seconds()):
        if comparison is not None:
            lines += comparison_sentences(comparison)
    for step in [step for step in steps if step.side == "graft" and step.decoder == TARGET][:-1]:
        share = graft.share_of_baseline(step)
        if share is not None:
            lines.append(f"Up to “{record.step_title(step)}” it costs {saving_words(1 - share)} than the baseline.")
    lines.append(
        "Counted: finding the cut, the translator, every stage, and the evaluation of what is judged, on both sides "
        "alike. Not counted: the training of target and encoder, which stand for published models."
    )
    return lines


def _between(graft: GraftSummary, steps: list[StageRecord]) -> list[str]:
    """What grafting changes, and how the last step compares with the baseline."""
    lines = []
    for before, after in zip(steps, steps[1:], strict=False):
        if before.side == after.side and before.decoder != after.decoder and not after.parts:
            change = words.points((graft.metric(after) or 0) - (graft.metric(before) or 0))
            lines.append(
                f"Grafted with nothing trained, {words.percent(graft.metric(after))} of the answers are right; on the "
                f"surrogate it was {words.percent(graft.metric(before))} ({change} points)."
            )
    ours = [step for step in steps if step.side == "graft"]
    if graft.baseline in steps and graft.baseline is not None and ours:
        last, baseline = ours[-1], graft.baseline
        change = words.points((graft.metric(last) or 0) - (graft.metric(baseline) or 0))
        title = graft.graft.step_title(last)
        lines.append(
            f"{title[0].upper()}{title[1:]}: {words.percent(graft.metric(last))}; "
            f"{graft.graft.step_title(baseline)}: {words.percent(graft.metric(baseline))} ({change} points)."
        )
    return lines


def count(macs: int | None) -> str:
    """MACs for people."""
    return words.UNKNOWN if macs is None else human(macs)


def took(seconds: float | None) -> str:
    """Seconds for people; what trains nothing takes none."""
    return words.UNKNOWN if seconds is None else words.duration(seconds) if seconds else "0 s"
