"""How the card of a graft's model is put together, of a stage of a run or of what a command made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCard

from hf_chain.cost.table import human, markdown_table
from hf_chain.grafting.translator_table import perplexity_remark, translator_rows
from hf_chain.hub.card import Ancestor, CardSheet, model_card, outside_ancestor, run_ancestor
from hf_chain.hub.settings import HubSettings
from hf_chain.methods.graft.record import SURROGATE, TARGET, GraftRecord, StageRecord

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FINETUNE, MERGE = "finetune", "merge"
"""The Hub knows adapter, merge, quantized and finetune. A surrogate holds its target's weights, of which the
translator's are fitted: nothing is attached to the target, mixed with it or stored in fewer bits, so it is a finetune,
as is a stage that trains on. An encoder and a language model in one are the weights of two models: a merge."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Origins:
    """Where a model comes from; `None` for what it has not.

    Attributes:
        target (`Ancestor`): The language model the encoder is meant for.
        surrogate (`Ancestor`, *optional*): What stands in for it.
        encoder (`Ancestor`, *optional*): The vision encoder as it was before its training.
        stages (`tuple[Ancestor, ...]`): Stages before this one, in order.
        joined (`bool`): Whether the stage puts an encoder and a language model together that were apart.
        bases (`tuple[str, ...]`): Models on the Hub that it was made of, for `base_model`.
    """

    target: Ancestor | None
    surrogate: Ancestor | None
    encoder: Ancestor | None
    stages: tuple[Ancestor, ...]
    joined: bool
    bases: tuple[str, ...]

    @property
    def relation(self) -> str | None:
        """`base_model_relation`, see `MERGE`."""
        if not self.bases:
            return None
        return MERGE if self.joined or len(self.bases) > 1 else FINETUNE


def origins(graft: GraftRecord, stage: StageRecord, hub: HubSettings) -> Origins:
    """Where the model of a stage comes from.

    Args:
        graft (`GraftRecord`): The run.
        stage (`StageRecord`): One of its stages.
        hub (`HubSettings`): Names of repositories; they count only when `hub.push` is set.
    """
    walked = [record for record in stage.before if record.name != SURROGATE]
    first = (walked or [stage.record])[0]
    sees = stage.name not in (TARGET, SURROGATE)
    on_surrogate = any(record.name == SURROGATE for record in stage.before)
    return Origins(
        target=None if stage.name == TARGET else _target(graft, hub),
        surrogate=run_ancestor(graft.stage(SURROGATE).record, hub) if on_surrogate else None,
        encoder=outside_ancestor(first.parent) if sees and first.parent else None,
        stages=tuple(run_ancestor(record, hub) for record in walked),
        joined=sees and (not walked or graft.stage(walked[-1].name).decoder != stage.decoder),
        bases=tuple(dict.fromkeys(_bases(graft, stage, hub))),
    )


def _target(graft: GraftRecord, hub: HubSettings) -> Ancestor:
    """The target: of this run, or from outside, at its commit where that is known."""
    settings = graft.family.recipe["target"]
    if settings.get("new"):
        return run_ancestor(graft.stage(TARGET).record, hub)
    name, revision = settings["name_or_path"], settings.get("revision")
    for record in graft.family.members:
        if record.name == SURROGATE and record.parent:
            found = outside_ancestor(record.parent)
            if found.repo_id == name:
                return found
    if _HUB_NAME.fullmatch(name) and not Path(name).exists():
        return Ancestor(name, name, revision)
    return outside_ancestor(name)


def _bases(graft: GraftRecord, stage: StageRecord, hub: HubSettings) -> list[str]:
    """Repositories of the models a stage starts from; of those that are not on the Hub, what they were made of."""
    if stage.name == TARGET:
        return []
    target = _target(graft, hub).repo_id
    of_target = [target] if target else []
    if stage.name == SURROGATE:
        return of_target
    walked = [record for record in stage.before if record.name != SURROGATE]
    if not walked:
        encoder = outside_ancestor(stage.record.parent).repo_id if stage.record.parent else None
        decoder = _repository(graft, SURROGATE, hub) if stage.decoder == SURROGATE else of_target
        return [*decoder, *([encoder] if encoder else [])]
    before = graft.stage(walked[-1].name)
    grafted = of_target if before.decoder != stage.decoder else []
    return [*grafted, *_repository(graft, before.name, hub)]


def _repository(graft: GraftRecord, name: str, hub: HubSettings) -> list[str]:
    stage = graft.stage(name)
    repo_id = run_ancestor(stage.record, hub).repo_id
    return [repo_id] if repo_id else _bases(graft, stage, hub)


TAGS = ["hf_chain", "graft"]
TASKS = {TARGET: "text-generation", SURROGATE: "text-generation"}
"""`pipeline_tag` of the stages that only read text; of the others it is `image-text-to-text`."""
EXPORT = "export"
TEMPLATES = {
    TARGET: "target_card.md.jinja",
    SURROGATE: "surrogate_card.md.jinja",
    EXPORT: "llava_card.md.jinja",
}
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
    "cut": None,
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
    sheet = CardSheet(
        template=("hf_chain.methods.graft", TEMPLATES.get(stage.name, "grafted_card.md.jinja")),
        values={
            "local": details["location"] == UNKNOWN["location"],
            "stage": stage,
            "record": stage.record,
            "config": config,
            "parameters": human(stage.record.parameters),
            "origins": found,
        }
        | details
        | {"cut": details["cut"] or _cut(config)},
        task=TASKS.get(stage.name, "image-text-to-text"),
        tags=[*TAGS, *_tags(stage)],
        bases=found.bases,
        relation=found.relation,
        results=results,
        model_name=model_name,
    )
    return model_card(sheet, hub)


def translator_results(report: dict[str, Any]) -> str:
    """A translator's report as a table, with what to think of it; empty where its quality was not measured."""
    if not report.get("quality"):
        return ""
    remark = perplexity_remark(report["quality"])
    return markdown_table(*translator_rows([report])) + (f"\n\n{remark}." if remark else "")


def _tags(stage: StageRecord) -> list[str]:
    if stage.name == TARGET:
        return []
    if stage.name == SURROGATE:
        return [SURROGATE, "layer-pruning"]
    marks = {SURROGATE: stage.decoder == SURROGATE, "lora": stage.uses_lora, "baseline": stage.side == "baseline"}
    return ["vision-language", *(tag for tag, holds in marks.items() if holds)]


def _cut(config: PreTrainedConfig) -> dict[str, Any] | None:
    """What a model's configuration says of the surrogate it is, has as its decoder, or was trained on."""
    for part in (config, getattr(config, "text_config", None)):
        if record := getattr(part, "hf_chain_surrogate", None):
            return dict(record)
    return (getattr(config, "hf_chain_graft", None) or {}).get("surrogate")
