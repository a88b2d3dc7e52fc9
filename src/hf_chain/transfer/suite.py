"""A suite at work: every data set that can be had is measured, and the others are skipped by name, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from hf_chain.arguments.precision import uses_bfloat16
from hf_chain.errors import HfChainError, one_line
from hf_chain.evaluation import Evaluation, evaluate_clip, evaluate_linear_probe
from hf_chain.evaluation.image_features import image_tower
from hf_chain.families import family_of
from hf_chain.transfer.fine_tune import evaluate_fine_tuned
from hf_chain.transfer.model import load_vision_model
from hf_chain.transfer.rows import LoadedSet, OutOfReach, load_set, without_hub
from hf_chain.transfer.settings import Suite

logger = logging.get_logger(__name__)

Result = dict[str, Any]
"""`source`, `split`, `classes`; `metrics`, `chance` and `trials` by metric; `macs`; and `settings`, of a whole one."""


@dataclass
class SuiteResults:
    """What came of a suite.

    Args:
        results (`dict[str, Result]`): Name of each data set that was measured to what was found.
        skipped (`dict[str, str]`): Name of each that was not, in whole or in part, to the reason.
    """

    results: dict[str, Result] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def load_sets(suite: Suite) -> tuple[dict[str, LoadedSet], dict[str, str]]:
    """Loads every data set of a suite before anything is measured.

    Args:
        suite (`Suite`): The suite.

    Returns:
        By name those that can be measured on, and the reason of each that cannot be loaded.

    Raises:
        HfChainError: when a column is missing or classes disagree; or when no data set can be loaded.
    """
    loaded: dict[str, LoadedSet] = {}
    skipped: dict[str, str] = {}
    offline = False
    for one in suite.datasets:
        try:
            with without_hub(offline):
                loaded[one.name] = load_set(one)
        except OutOfReach as error:
            offline = offline or isinstance(error.__cause__, ConnectionError)
            skipped[one.name] = one_line(error)
            logger.warning(f"{one.name} is skipped: {skipped[one.name]}")
    return loaded, skipped


def run_suite(
    suite: Suite,
    name: str | Path,
    sets: Mapping[str, LoadedSet],
    known: Mapping[str, Result] | None = None,
    found: Callable[[str, Result], None] = lambda name, result: None,
) -> SuiteResults:
    """Measures one model on data sets that are loaded.

    Args:
        suite (`Suite`): The suite.
        name (`str` or `Path`): Folder or Hub name of a model with a vision tower.
        sets (`Mapping[str, LoadedSet]`): The data sets, as `load_sets` gives them.
        known (`Mapping[str, Result]`, *optional*): Results of the same weights; those of the same settings are kept.
        found (`Callable`): Told of every new result, as soon as it is there.

    Returns:
        `SuiteResults`: Results, and what was skipped: kinds that the model is not made for, rows that cannot be read.

    Raises:
        HfChainError: when the model cannot be loaded or has no vision tower.
    """
    model, processor = load_vision_model(name)
    image_tower(model)
    outcome = SuiteResults()
    for key, data in sets.items():
        settings = _settings(suite, data)
        if (before := (known or {}).get(key)) is not None and before.get("settings") == settings:
            outcome.results[key] = before
            continue
        evaluations: list[Evaluation] = []
        for kind in data.settings.kind:
            try:
                if kind == "fine_tune":
                    # It changes the weights, which the next data set wants as they were.
                    fresh, _ = load_vision_model(name)
                    evaluations.append(_fine_tuned(suite, fresh, processor, data))
                else:
                    evaluations.append(_frozen(suite, kind, model, processor, data))
            except HfChainError as error:
                reason = f"{kind}: {one_line(error)}"
                outcome.skipped[key] = "; ".join(filter(None, (outcome.skipped.get(key), reason)))
                logger.warning(f"{key} is skipped: {reason}")
        if evaluations:
            whole = len(evaluations) == len(data.settings.kind)
            outcome.results[key] = _result(data, evaluations, settings if whole else {})
            found(key, outcome.results[key])
    return outcome


def _frozen(suite: Suite, kind: str, model: PreTrainedModel, processor: Any, data: LoadedSet) -> Evaluation:
    options: dict[str, Any] = {
        "image_column": data.image_column,
        "label_column": data.label_column,
        "class_names": data.class_names,
        "batch_size": suite.batch_size,
        "max_samples": data.settings.max_samples,
        "bf16": uses_bfloat16(suite.bf16),
    }
    if kind == "linear_probe":
        most = data.settings.max_train_samples
        options |= {"max_train_samples": most, "seed": suite.seed}
        return evaluate_linear_probe(model, processor, data.train, data.test, **options)
    if family_of(model.config).kind != "dual":
        raise HfChainError(f"the model is a {type(model).__name__} without a text tower, which zero_shot needs")
    return evaluate_clip(model, processor, data.test, prompt_templates=data.templates, **options)


def _fine_tuned(suite: Suite, model: PreTrainedModel, processor: Any, data: LoadedSet) -> Evaluation:
    bf16, folder = uses_bfloat16(suite.bf16), suite.output_dir
    return evaluate_fine_tuned(model, processor, data, folder, batch_size=suite.batch_size, seed=suite.seed, bf16=bf16)


def _settings(suite: Suite, data: LoadedSet) -> dict[str, Any]:
    """What results depend on, beside the weights."""
    own = data.settings.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
    return own | {"seed": suite.seed, "bf16": suite.bf16}


def _result(data: LoadedSet, evaluations: list[Evaluation], settings: dict[str, Any]) -> Result:
    return {
        "source": data.settings.source,
        "split": data.settings.split,
        "classes": len(data.class_names),
        **{
            name: {metric: value for one in evaluations for metric, value in getattr(one, name).items()}
            for name in ("metrics", "chance", "trials")
        },
        "macs": sum(one.macs for one in evaluations),
        "settings": settings,
    }
