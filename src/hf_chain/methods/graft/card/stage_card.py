"""The model card of one stage of a graft: Hub metadata, what it is made of, cost, results and the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard

from hf_chain.errors import HfChainError
from hf_chain.hub.card import write_card
from hf_chain.hub.settings import HubSettings
from hf_chain.methods.graft.card.body import compose_card, origins, translator_results
from hf_chain.methods.graft.card.numbers import (
    cost_lines,
    data_name,
    eval_results,
    metrics_table,
    read_translator,
    steps_table,
)
from hf_chain.methods.graft.record import GraftRecord, StageRecord, graft_record
from hf_chain.runs.ledger import FamilyRecord, MemberRecord

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def write_graft_card(
    folder: str | Path, family: FamilyRecord, member: MemberRecord, hub: HubSettings, recipe_yaml: str
) -> Path:
    """Writes `README.md` into the folder of a saved stage.

    Args:
        folder (`str` or `Path`): Folder with the model's `config.json`.
        family (`FamilyRecord`): The run so far.
        member (`MemberRecord`): The stage, evaluated.
        hub (`HubSettings`): Licence, data set and so on; repository names are used only when `hub.push` is set, as
            otherwise nothing is there.
        recipe_yaml (`str`): The recipe, as YAML.

    Returns:
        `Path`: The card.

    Raises:
        HfChainError: when `folder` holds no saved model.
    """
    from transformers import AutoConfig

    folder = Path(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise HfChainError(f"No saved model in {folder}: its config.json cannot be read") from error
    return write_card(folder, stage_card(config, read_translator(folder), family, member, hub, recipe_yaml))


def stage_card(
    config: PreTrainedConfig,
    translator: dict[str, Any],
    family: FamilyRecord,
    member: MemberRecord,
    hub: HubSettings,
    recipe_yaml: str,
) -> ModelCard:
    """Builds the card of a model of configuration `config`; see `write_graft_card`.

    Args:
        translator (`dict`): The translator's report, when the model is a surrogate.
    """
    graft = graft_record(family)
    stage = graft.stage(member.name)
    repo_id = hub.repo_id(stage.name) if hub.push else None
    return compose_card(
        config,
        stage,
        origins(graft, stage, hub),
        hub,
        eval_results(graft, stage, hub, translator),
        (hub.repo_id(stage.name) or stage.name).rpartition("/")[2],
        title=repo_id.partition("/")[2] if repo_id else stage.name,
        location=repo_id or ".",
        what=stage.title,
        larger=_is_on_a_larger_surrogate(graft, stage),
        retrained=_trains_translator(graft, stage),
        data=", ".join(dict.fromkeys(filter(None, (data_name(graft, name, hub) for name in stage.data)))),
        metrics=metrics_table(stage),
        steps=steps_table(graft, stage),
        translator=translator_results(translator),
        cost=cost_lines(graft, stage),
        rates=_learning_rates(graft, stage),
        rendered=any(str(data.get("source")).startswith("scenes") for data in graft.family.recipe["data"].values()),
        environment=family.environment,
        recipe=recipe_yaml.strip(),
    )


def _is_on_a_larger_surrogate(graft: GraftRecord, stage: StageRecord) -> bool:
    """Whether a stage up to this one went over from the run's surrogate to a larger one."""
    names = {record.name for record in (*stage.before, stage.record)}
    return any(settings.get("replaced") for settings in graft.family.recipe["stages"] if settings["name"] in names)


def _trains_translator(graft: GraftRecord, stage: StageRecord) -> list[str]:
    """The stages up to this one that trained the translator."""
    names = [record.name for record in (*stage.before, stage.record)]
    return [name for name in names if "translator" in graft.stage(name).parts]


def _learning_rates(graft: GraftRecord, stage: StageRecord) -> dict[str, float | None]:
    """Trained part -> its learning rate, as the recipe says it."""
    recipe = graft.family.recipe
    stages = (*recipe["stages"], *(recipe.get("baseline") or []))
    return dict(next((settings["parts"] for settings in stages if settings["name"] == stage.name), None) or {})
