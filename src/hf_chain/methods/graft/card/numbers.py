"""What a graft's cards say in numbers: tables, sentences, and results as the Hub reads them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from hf_chain.cost.table import comparison_sentences, escaped, human, markdown_table
from hf_chain.errors import HfChainError
from hf_chain.grafting.translator_table import loss_recovered
from hf_chain.hub.card import public_name
from hf_chain.hub.settings import HubSettings
from hf_chain.methods.graft.headline import CAPTIONS, EXACT, LOSS, RESPONSES, at_floor, headline_of
from hf_chain.methods.graft.record import SURROGATE, TARGET, GraftRecord, StageRecord

TRANSLATOR_NAME = "translator.json"

NO_SHARES = {
    "cider_d": "CIDEr-D × 100",
    "caption_words": "words of a caption",
    "response_cider_d": "CIDEr-D × 100 of responses",
    "response_loss": "response loss, nats a token",
}
"""Metrics of captions and free answers, which are no shares."""


def metric_title(metric: str) -> str:
    """The name readers know: `exact match: colour` for `exact_match_colour`, `yes/no F1` for `yes_no_f1`."""
    if metric in NO_SHARES:
        return NO_SHARES[metric]
    name = re.sub(r"^exact_match_(.+)", r"exact match: \1", metric).replace("yes_no_", "yes/no ")
    return re.sub(r"\bf1$", "F1", name.replace("yes_share", "share of yes").replace("_", " "))


def metric_number(name: str, value: float) -> str:
    """A metric: a share in per cent, CIDEr-D times 100 as papers give it, nats and words as they are counted."""
    if name == "response_loss":
        return f"{value:.3f}"
    return f"{value if name == 'caption_words' else 100 * value:.1f}"


def metrics_table(stage: StageRecord) -> str:
    """A row for each metric, a column for each split, shares in per cent; empty before the evaluation."""
    splits = stage.record.metrics_after
    names = dict.fromkeys(name for metrics in splits.values() for name in metrics)
    floor = [one.name for one in at_floor(list(splits.values()))]
    rows = []
    for name in names:
        title = f"{metric_title(name)} (at its floor)" if name in floor else metric_title(name)
        rows.append([escaped(title), *(_cell(name, metrics.get(name)) for metrics in splits.values())])
    return markdown_table(["metric", *map(escaped, splits)], rows) if rows else ""


def steps_table(graft: GraftRecord, stage: StageRecord) -> str:
    """This model among the steps of its run that are done; empty when there is no other."""
    steps = [step for step in graft.steps if step.counted and step.record.metrics_after]
    if len(steps) < 2:
        return ""
    measured = steps[0].record.metrics_after
    split = next((split for split, found in measured.items() if "exact_match" in found), next(iter(measured)))
    headline = headline_of([found[split] for step in steps if split in (found := step.record.metrics_after)])
    yes_no = any("yes_no_f1" in step.record.metrics_after.get(split, {}) for step in steps)
    rows = []
    for step in steps:
        title, metrics = graft.step_title(step), step.record.metrics_after.get(split, {})
        cells = [headline.text(metrics.get(headline.name)), *([_percent(metrics.get("yes_no_f1"))] if yes_no else [])]
        spent = "–" if step.spent is None else human(step.spent)
        rows.append([f"**{title}**" if step.name == stage.name else title, *cells, spent])
    header = ["model", f"{headline.title}, {split}", *(["yes/no F1"] if yes_no else []), "MACs to get there"]
    return markdown_table(header, rows)


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
        cut, translator = map(human, stage.training.values())
        return [f"Finding the cut took {cut} MACs, making the translator {translator} MACs."]
    if macs:
        return [f"Training this stage took {human(macs['total'])} MACs."]
    return ["Nothing was trained in this stage."] if stage.counted and not stage.parts else []


def _cell(name: str, value: float | None) -> str:
    if value is not None and name in NO_SHARES:
        return metric_number(name, value)
    return _percent(value)


def _percent(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


_METRICS = {"exact_match": "accuracy", "yes_no_accuracy": "accuracy", "yes_no_f1": "f1"}
"""Metric -> its type on the Hub; others are in the table alone."""


def eval_results(
    graft: GraftRecord, stage: StageRecord, hub: HubSettings, translator: dict[str, Any]
) -> list[EvalResult]:
    """Results as the Hub reads them.

    Args:
        graft (`GraftRecord`): The run.
        stage (`StageRecord`): The stage.
        hub (`HubSettings`): Names the data set.
        translator (`dict`): The translator's report of a surrogate.
    """
    if translator.get("quality"):
        calibration = graft.family.recipe.get("surrogate", {}).get("calibration", {})
        return perplexity_result(translator, data_name(graft, calibration.get("data"), hub))
    asked = graft.family.recipe.get("evaluation", {}).get("data") or ()
    kind = ("visual-question-answering", "Visual question answering")
    if stage.name == TARGET:
        asked, kind = stage.data, ("question-answering", "Question answering on descriptions")
    results = []
    for split, metrics in stage.record.metrics_after.items():
        source, _, part = split.rpartition("/")
        data = data_name(graft, source or next(iter(asked), None), hub)
        for metric, value in metrics.items():
            if not data or not math.isfinite(value):
                continue
            if metric == EXACT.name and EXACT.is_floor([value]) and LOSS.name in metrics:
                # No free answer is word for word the reference, which is no accuracy.
                continue
            if metric in _METRICS:
                results.append(_result(*kind, data, part, _METRICS[metric], metric_title(metric), value))
            if metric == LOSS.name:
                results.append(_result(*kind, data, part, "loss", "response loss, nats a token", value))
            if metric == RESPONSES.name:
                results.append(_result(*kind, data, part, "cider", "CIDEr-D of responses", value))
            if metric == CAPTIONS.name:
                results.append(_result("image-to-text", "Captions", data, part, "cider", "CIDEr-D", value))
    return results


def perplexity_result(translator: dict[str, Any], data: str | None) -> list[EvalResult]:
    """The perplexity in a translator's report; nothing where it was not measured, or on no known data."""
    if not translator.get("quality") or not data:
        return []
    value = translator["quality"]["perplexity"]
    return [_result("text-generation", "Text generation", data, None, "perplexity", "perplexity", value)]


def _result(task: str, task_name: str, data: str, split: str | None, kind: str, name: str, value: float) -> EvalResult:
    return EvalResult(
        task_type=task,
        task_name=task_name,
        dataset_type=data,
        dataset_name=data,
        dataset_split=split,
        metric_type=kind,
        metric_name=name,
        metric_value=round(value, 4),
    )


def data_name(graft: GraftRecord, name: str | None, hub: HubSettings) -> str | None:
    """Name of data that readers can follow; of a local path only the last part is given away.

    Args:
        graft (`GraftRecord`): The run.
        name (`str`, *optional*): What the recipe calls it; by default its first data.
        hub (`HubSettings`): Its data set, where it names one, stands for all data.
    """
    if hub.dataset:
        return hub.dataset
    data = graft.family.recipe.get("data") or {}
    settings = data.get(name) if name else next(iter(data.values()), None)
    source = (settings or {}).get("source")
    return None if source is None else public_name(source)
