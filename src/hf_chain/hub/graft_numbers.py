"""Numbers of a graft's stages as people read them: metrics, the translator's report, and costs in sentences."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from hf_chain.cost.comparison import comparison_sentences
from hf_chain.cost.table import markdown_table
from hf_chain.cost.units import human
from hf_chain.errors import HfChainError
from hf_chain.grafting.translator_table import loss_recovered
from hf_chain.stages.graft.record import SURROGATE, GraftRecord, StageRecord

TRANSLATOR_NAME = "translator.json"

CAPTION_METRICS = {"cider_d": "CIDEr-D × 100", "caption_words": "words of a caption"}
"""Metrics of captions, which are no shares."""


def metric_title(metric: str) -> str:
    """The name readers know: `exact match: colour` for `exact_match_colour`, `yes/no F1` for `yes_no_f1`."""
    if metric in CAPTION_METRICS:
        return CAPTION_METRICS[metric]
    name = re.sub(r"^exact_match_(.+)", r"exact match: \1", metric).replace("yes_no_", "yes/no ")
    return re.sub(r"\bf1$", "F1", name.replace("yes_share", "share of yes").replace("_", " "))


def metric_number(name: str, value: float) -> str:
    """A metric: a share in per cent, CIDEr-D times 100 as papers give it, and words as they are counted."""
    return f"{value if name == 'caption_words' else 100 * value:.1f}"


def metrics_table(stage: StageRecord) -> str:
    """A row for each metric, a column for each split, shares in per cent; empty before the evaluation."""
    splits = stage.record.metrics_after
    names = dict.fromkeys(name for metrics in splits.values() for name in metrics)
    rows = [[metric_title(name), *(_cell(name, metrics.get(name)) for metrics in splits.values())] for name in names]
    return markdown_table(["metric", *splits], rows) if rows else ""


def steps_table(graft: GraftRecord, stage: StageRecord) -> str:
    """This model among the steps of its run that are done; empty when there is no other."""
    steps = [step for step in graft.steps if step.done and step.record.metrics_after]
    if len(steps) < 2:
        return ""
    measured = steps[0].record.metrics_after
    split = next((split for split, found in measured.items() if "exact_match" in found), next(iter(measured)))
    rows = []
    for step in steps:
        title, metrics = graft.step_title(step), step.record.metrics_after.get(split, {})
        cells = [_percent(metrics.get("exact_match")), _percent(metrics.get("yes_no_f1"))]
        spent = "–" if step.spent is None else human(step.spent)
        rows.append([f"**{title}**" if step.name == stage.name else title, *cells, spent])
    return markdown_table(["model", f"exact match, {split}", "yes/no F1", "MACs to get there"], rows)


def read_translator(folder: Path) -> dict[str, Any]:
    """The translator's report in a surrogate's folder, as `TranslatorReport`; empty when there is none.

    Its `quality` also gets `recovered`, see [`~grafting.translator_table.loss_recovered`].

    Raises:
        HfChainError: when the file is damaged.
    """
    path = folder / TRANSLATOR_NAME
    if not path.is_file():
        return {}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if quality := report["quality"]:
            target, dropping = (quality["reference"][f"{which}_perplexity"] for which in ("target", "dropping"))
            quality["recovered"] = loss_recovered(target, dropping, quality["perplexity"])
        return dict(report)
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise HfChainError(f"The report in {path} is damaged: remove the file to go on without it") from error


def cost_lines(graft: GraftRecord, stage: StageRecord) -> list[str]:
    """What the stage cost, what it took to get there, and how both ways compare, in sentences."""
    record = stage.record
    lines = training_cost(stage)
    if record.evaluation_macs:
        lines.append(f"Its evaluation took {human(record.evaluation_macs)} MACs.")
    if stage.before and stage.spent is not None:
        lines.append(f"To get here it took {human(stage.spent)} MACs, all stages before included.")
    comparison = graft.comparison()
    if comparison is not None and stage.side != "given":
        lines += comparison_sentences(comparison)
    if lines and stage.side != "given":
        lines.append("The training of target and encoder is in no sum.")
    return lines


def training_cost(stage: StageRecord) -> list[str]:
    """What it took to train a stage or to make a surrogate, in a sentence; nothing before that is known."""
    macs = stage.record.training_macs
    if stage.name == SURROGATE and macs:
        cut, translator = (human(macs[which]) for which in ("teacher", "student"))
        return [f"Finding the cut took {cut} MACs, making the translator {translator} MACs."]
    if macs:
        return [f"Training this stage took {human(macs['total'])} MACs."]
    return ["Nothing was trained in this stage."] if stage.done and not stage.parts else []


def _cell(name: str, value: float | None) -> str:
    if value is not None and name in CAPTION_METRICS:
        return metric_number(name, value)
    return _percent(value)


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"
