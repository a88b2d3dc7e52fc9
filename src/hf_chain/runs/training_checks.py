"""Checks of the training of every member or stage, before the first of them begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from hf_chain.errors import HfChainError
from hf_chain.runs.environment import process_count
from hf_chain.trainer.dry_run import try_training


def check_training_works(config: type[TrainingArguments], training: Mapping[str, Any], where: str, steps: int) -> None:
    """Checks that the trackers of a `training` section are installed, and tries on a dummy what else it needs.

    Args:
        config (`type[TrainingArguments]`): what its fields are fields of.
        training (`Mapping`): the section.
        where (`str`): its place in the recipe.
        steps (`int`): steps of the training, or about so many.

    Raises:
        HfChainError: naming the place and what does not work.
    """
    values = {name: value for name, value in training.items() if name != "logging_dir"}
    try:
        check_trackers(values)
        try_training(config, values, steps, process_count())
    except HfChainError as error:
        raise HfChainError(f"{where}: {error}") from error


def check_trackers(training: Mapping[str, Any]) -> None:
    """Checks that the experiment trackers of a `training` section are installed.

    Raises:
        HfChainError: naming the first that is not.
    """
    wanted = training.get("report_to") or []
    installed = get_available_reporting_integrations()
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name not in ("all", "none", *installed):
            raise HfChainError(
                f"report_to has {name!r}, which is not installed or unknown: install it or use one of "
                f"{', '.join(['none', *installed])}"
            )
