"""Results of a graft's stage as the Hub reads them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from hf_chain.hub.graft_numbers import metric_title
from hf_chain.hub.settings import HubSettings
from hf_chain.stages.graft.record import TARGET, GraftRecord, StageRecord

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
            if metric in _METRICS:
                results.append(_result(*kind, data, part, _METRICS[metric], metric_title(metric), value))
            if metric == "cider_d":
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


def public_name(source: str) -> str:
    """A Hub name as it is; of a local path only the last part."""
    return Path(source).name if Path(source).exists() or Path(source).is_absolute() else str(source)
