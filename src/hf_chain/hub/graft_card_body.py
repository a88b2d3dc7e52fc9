"""How the card of a graft's model is put together, of a stage of a run or of what a command made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_chain.cost.table import markdown_table
from hf_chain.cost.units import human
from hf_chain.grafting.translator_table import translator_rows
from hf_chain.hub.card_template import render_card
from hf_chain.hub.graft_card_lineage import Origins
from hf_chain.hub.settings import HubSettings
from hf_chain.stages.graft.record import SURROGATE, TARGET, StageRecord

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TAGS = ["hf_chain", "graft"]
TASKS = {TARGET: "text-generation", SURROGATE: "text-generation"}
"""`pipeline_tag` of the stages that only read text; of the others it is `image-text-to-text`."""
TEMPLATES = {TARGET: "target_card.md.jinja", SURROGATE: "surrogate_card.md.jinja"}
UNKNOWN: dict[str, Any] = {
    "location": ".",
    "label": "",
    "what": "",
    "larger": False,
    "retrained": [],
    "data": "",
    "metrics": "",
    "steps": "",
    "translator": "",
    "cost": [],
    "rates": {},
    "rendered": False,
    "chats": True,
    "environment": {},
    "recipe": "",
    "command": "",
}
"""What a template tells of a model where nothing is known of it; a model in no repository is in the card's folder."""


def compose_card(
    config: PreTrainedConfig,
    stage: StageRecord,
    found: Origins,
    hub: HubSettings,
    results: list[EvalResult],
    model_name: str,
    **details: Any,
) -> ModelCard:
    """Puts a card together, of a stage of a run or of what a command made.

    Args:
        config (`PreTrainedConfig`): The model's.
        stage (`StageRecord`): What the model is; its name decides on the template.
        found (`Origins`): Where it comes from.
        hub (`HubSettings`): Licence, data set and so on.
        results (`list[EvalResult]`): Results as the Hub reads them.
        model_name (`str`): What they are results of.
        **details: What else the template tells, see `UNKNOWN`.
    """
    details = UNKNOWN | details
    body = render_card(
        TEMPLATES.get(stage.name, "grafted_card.md.jinja"),
        local=details["location"] == UNKNOWN["location"],
        stage=stage,
        record=stage.record,
        config=config,
        parameters=human(stage.record.parameters),
        cut=_cut(config),
        origins=found,
        **details,
    )
    metadata = _metadata(stage, hub, found, results, model_name)
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}")


def translator_results(report: dict[str, Any]) -> str:
    """A translator's report as a table; empty where its quality was not measured."""
    return markdown_table(*translator_rows([report])) if report.get("quality") else ""


def _metadata(
    stage: StageRecord, hub: HubSettings, found: Origins, results: list[EvalResult], model_name: str
) -> ModelCardData:
    metadata = ModelCardData(
        language=hub.language,
        license=hub.license,
        library_name="transformers",
        pipeline_tag=TASKS.get(stage.name, "image-text-to-text"),
        tags=[*TAGS, *_tags(stage), *hub.tags],
        datasets=[hub.dataset] if hub.dataset else None,
        base_model=list(found.bases) if len(found.bases) > 1 else next(iter(found.bases), None),
        model_name=model_name if results else None,
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
