"""Cards of the folders that `hf-chain surrogate` and `hf-chain graft` write, made of what the cards of runs are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from hf_chain.grafting.lineage import read_lineage
from hf_chain.hub.card import Ancestor, outside_ancestor, predecessor_revision, public_name, write_card
from hf_chain.hub.settings import HubSettings
from hf_chain.methods.graft.card.body import EXPORT, Origins, compose_card, translator_results
from hf_chain.methods.graft.card.numbers import perplexity_result, read_translator, training_cost
from hf_chain.methods.graft.record import SURROGATE, TARGET, StageRecord
from hf_chain.runs.ledger import MemberRecord

GRAFT = "graft"


def write_surrogate_card(
    folder: Path,
    title: str,
    parameters: int,
    *,
    command: str,
    environment: dict[str, Any],
    data: str | None = None,
    cut_macs: int = 0,
) -> Path:
    """Writes `README.md` beside a surrogate: what it was cut from, where, how good its translator is, what it cost.

    Args:
        folder (`Path`): Folder of the surrogate, with the report of its translator where there is one.
        title (`str`): What the card is called.
        parameters (`int`): Parameters of the surrogate.
        command (`str`): What made it.
        environment (`dict`): Versions and hardware it was made with.
        data (`str`, *optional*): What its translator was fitted and measured on; of a path the last part is shown.
        cut_macs (`int`): Multiply-accumulate operations that finding the cut took.

    Returns:
        `Path`: The card.

    Raises:
        HfChainError: when the folder holds no surrogate, or its report is damaged.
    """
    config, report = AutoConfig.from_pretrained(folder, local_files_only=True), read_translator(folder)
    lineage = read_lineage(config)
    on_hub = Ancestor(lineage.target, lineage.target, lineage.revision)
    target = on_hub if lineage.revision else _origin(lineage.target)
    macs = {"cut": cut_macs, "translator": report["macs"], "total": cut_macs + report["macs"]} if report else {}
    record = MemberRecord(SURROGATE, parameters=parameters, training_macs=macs)
    stage = StageRecord(record, "graft", SURROGATE)
    card = compose_card(
        config,
        stage,
        Origins(target, None, None, (), False, (target.repo_id,) if target.repo_id else ()),
        HubSettings(),
        perplexity_result(report, public_name(data) if data else None),
        title,
        title=title,
        label=title,
        translator=translator_results(report),
        cost=training_cost(stage),
        chats=_chats(folder),
        environment=environment,
        command=command,
    )
    return write_card(folder, card)


def write_grafted_card(
    folder: Path, title: str, parameters: int, vlm: str, target: str, *, command: str, environment: dict[str, Any]
) -> Path:
    """Writes `README.md` beside a grafted model: the two it was made of, and the surrogate between them.

    Args:
        folder (`Path`): Folder of the grafted model.
        title (`str`): What the card is called.
        parameters (`int`): Parameters of the whole model.
        vlm (`str`): Folder or Hub name of the model that was trained on a surrogate.
        target (`str`): Folder or Hub name of the language model.
        command (`str`): What made it.
        environment (`dict`): Versions and hardware it was made with.

    Returns:
        `Path`: The card.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    # The commit that was grafted on, where its branch may have moved on since.
    revision = (config.hf_chain_graft or {}).get("revision")
    trained = _origin(vlm)
    language_model = outside_ancestor(f"{target}@{revision}") if revision else _origin(target)
    bases = tuple(origin.repo_id for origin in (language_model, trained) if origin.repo_id)
    card = compose_card(
        config,
        StageRecord(MemberRecord(GRAFT, parameters=parameters), "graft", TARGET),
        Origins(language_model, None, None, (trained,), True, bases),
        HubSettings(),
        [],
        title,
        title=title,
        label=title,
        environment=environment,
        command=command,
    )
    return write_card(folder, card)


def write_export_card(
    folder: Path,
    title: str,
    parameters: int,
    source: str,
    grafted: Any,
    *,
    command: str,
    environment: dict[str, Any],
    serving: bool = False,
) -> Path:
    """Writes `README.md` beside an export: the model it says the same as, and where that comes from.

    Args:
        folder (`Path`): Folder of the export.
        title (`str`): What the card is called.
        parameters (`int`): Parameters of the exported model.
        source (`str`): Folder or Hub name of the grafted model.
        grafted (`GraftedVLMConfig`): Its configuration.
        command (`str`): What made it.
        environment (`dict`): Versions and hardware it was made with.
        serving (`bool`): Whether it is in the form for engines, see `export_llava`.

    Returns:
        `Path`: The card.
    """
    trained, graft = _origin(source), grafted.hf_chain_graft or {}
    target, revision = graft.get("target"), graft.get("revision")
    language_model = outside_ancestor(f"{target}@{revision}" if revision else target) if target else None
    bases = tuple(origin.repo_id for origin in (language_model, trained) if origin and origin.repo_id)
    cut = getattr(grafted.text_config, "hf_chain_surrogate", None) or graft.get("surrogate")
    card = compose_card(
        AutoConfig.from_pretrained(folder, local_files_only=True),
        StageRecord(MemberRecord(EXPORT, parameters=parameters), "graft", TARGET),
        Origins(language_model, None, None, (trained,), False, bases),
        HubSettings(),
        [],
        title,
        title=title,
        label=title,
        what="It is for inference in float32 and bfloat16 alone." if serving else "",
        cut=cut,
        environment=environment,
        command=command,
    )
    return write_card(folder, card)


def _origin(name: str) -> Ancestor:
    """A model from outside, at its commit where it is on the Hub."""
    return outside_ancestor(predecessor_revision(name))


def _chats(folder: Path) -> bool:
    """Whether the tokenizer in a folder has a chat template."""
    if (folder / "chat_template.jinja").is_file():
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(json.loads(path.read_text(encoding="utf-8")).get("chat_template"))
