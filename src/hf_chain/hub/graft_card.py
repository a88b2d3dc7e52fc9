"""The model card of one stage of a graft: Hub metadata, what it is made of, cost, results and the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from hf_chain.cost.table import markdown_table
from hf_chain.cost.units import human
from hf_chain.errors import HfChainError
from hf_chain.files import write_text
from hf_chain.grafting.translator_table import translator_rows
from hf_chain.hub.card_template import render_card
from hf_chain.hub.graft_card_lineage import Origins, origins
from hf_chain.hub.graft_card_results import data_name, eval_results
from hf_chain.hub.graft_numbers import (
    cost_lines,
    metrics_table,
    read_translator,
    steps_table,
)
from hf_chain.hub.settings import HubSettings
from hf_chain.stages.graft.record import SURROGATE, TARGET, GraftRecord, StageRecord, graft_record
from hf_chain.stages.ledger import FamilyRecord, MemberRecord

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TAGS = ["hf_chain", "graft"]
TASKS = {TARGET: "text-generation", SURROGATE: "text-generation"}
"""`pipeline_tag` of the stages that only read text; of the others it is `image-text-to-text`."""
TEMPLATES = {TARGET: "target_card.md.jinja", SURROGATE: "surrogate_card.md.jinja"}


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
    card = stage_card(config, read_translator(folder), family, member, hub, recipe_yaml)
    path = folder / "README.md"
    write_text(path, str(card))
    return path


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
    found = origins(graft, stage, hub)
    repo_id = hub.repo_id(stage.name) if hub.push else None
    body = render_card(
        TEMPLATES.get(stage.name, "grafted_card.md.jinja"),
        title=repo_id.partition("/")[2] if repo_id else stage.name,
        location=repo_id or ".",
        local=repo_id is None,
        stage=stage,
        record=stage.record,
        what=stage.title,
        config=config,
        parameters=human(stage.record.parameters),
        cut=_cut(config),
        larger=_is_on_a_larger_surrogate(graft, stage),
        origins=found,
        data=", ".join(dict.fromkeys(filter(None, (data_name(graft, name, hub) for name in stage.data)))),
        metrics=metrics_table(stage),
        steps=steps_table(graft, stage),
        translator=markdown_table(*translator_rows([translator])) if translator.get("quality") else "",
        cost=cost_lines(graft, stage),
        rates=_learning_rates(graft, stage),
        rendered=any(str(data.get("source")).startswith("scenes") for data in graft.family.recipe["data"].values()),
        environment=family.environment,
        recipe=recipe_yaml.strip(),
    )
    metadata = _metadata(graft, stage, hub, found, translator)
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}")


def _metadata(
    graft: GraftRecord, stage: StageRecord, hub: HubSettings, found: Origins, translator: dict[str, Any]
) -> ModelCardData:
    results = eval_results(graft, stage, hub, translator)
    repo_id = hub.repo_id(stage.name)
    metadata = ModelCardData(
        language=hub.language,
        license=hub.license,
        library_name="transformers",
        pipeline_tag=TASKS.get(stage.name, "image-text-to-text"),
        tags=[*TAGS, *_tags(stage), *hub.tags],
        datasets=[hub.dataset] if hub.dataset else None,
        base_model=list(found.bases) if len(found.bases) > 1 else next(iter(found.bases), None),
        model_name=(repo_id.partition("/")[2] if repo_id else stage.name) if results else None,
        eval_results=results or None,
    )
    if found.relation:
        metadata["base_model_relation"] = found.relation
    return metadata


def _tags(stage: StageRecord) -> list[str]:
    if stage.name == TARGET:
        return []
    if stage.name == SURROGATE:
        return [SURROGATE, "layer-pruning"]
    marks = {SURROGATE: stage.decoder == SURROGATE, "lora": stage.uses_lora, "baseline": stage.side == "baseline"}
    return ["vision-language", *(tag for tag, holds in marks.items() if holds)]


def _cut(config: PreTrainedConfig) -> dict[str, Any] | None:
    """What a model's configuration says of the surrogate it is, has as its decoder, or was trained on."""
    for place in (config, getattr(config, "text_config", None)):
        if record := getattr(place, "hf_chain_surrogate", None):
            return dict(record)
    return (getattr(config, "hf_chain_graft", None) or {}).get("surrogate")


def _is_on_a_larger_surrogate(graft: GraftRecord, stage: StageRecord) -> bool:
    """Whether a stage up to this one went over from the run's surrogate to a larger one."""
    names = {record.name for record in (*stage.before, stage.record)}
    return any(settings.get("replaced") for settings in graft.family.recipe["stages"] if settings["name"] in names)


def _learning_rates(graft: GraftRecord, stage: StageRecord) -> dict[str, float | None]:
    """Trained part -> its learning rate, as the recipe says it."""
    recipe = graft.family.recipe
    stages = (*recipe["stages"], *(recipe.get("baseline") or []))
    return dict(next((settings["parts"] for settings in stages if settings["name"] == stage.name), None) or {})
