"""What a model of a graft is made of: its language model, its encoder, and the stage it goes on from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hf_chain.hub.lineage import Ancestor, outside_ancestor, run_ancestor
from hf_chain.hub.settings import HubSettings
from hf_chain.stages.graft.record import SURROGATE, TARGET, GraftRecord, StageRecord

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
