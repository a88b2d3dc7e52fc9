"""Members that are saved but not on the Hub, and how to bring them there later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi
from tqdm.auto import tqdm
from transformers.utils import logging

from hf_chain.errors import HfChainError
from hf_chain.files import CARD_NAME, file_sha256
from hf_chain.hub.push import PushResult, push_member, record_push
from hf_chain.hub.retry import RetryPolicy
from hf_chain.hub.settings import HubSettings
from hf_chain.runs.ledger import FamilyRecord, Ledger, MemberRecord, read_family
from hf_chain.runs.saved import check_saved

logger = logging.get_logger(__name__)

CardWriter = Callable[[Path, FamilyRecord, MemberRecord, HubSettings, str], Path]
"""Writes the card of a saved member or stage: folder, run, what is known of it, where it is pushed, recipe as YAML."""


@dataclass
class PushReport:
    """Outcome of `push_what_is_left`: what was pushed, and for each member that was not the reason in one line."""

    pushed: list[PushResult] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def pending(run_dir: str | Path, prefix: str | None = None) -> list[MemberRecord]:
    """Lists the members of a run that are saved but not pushed with their present weights and their last card.

    Args:
        run_dir (`str` or `Path`): Folder of the run.
        prefix (`str`, *optional*): Start of the repository names; a member pushed elsewhere only is pending too.

    Raises:
        HfChainError: when there is no readable ledger.
    """
    return [record for record in read_family(run_dir).members if _is_pending(record, prefix)]


def check_pushed(run_dir: Path, hub: HubSettings) -> None:
    """Says at the end of a run that pushes what is not on the Hub, and the command that brings it there.

    Args:
        run_dir (`Path`): Folder of the run.
        hub (`HubSettings`): Where it pushes.

    Raises:
        HfChainError: when a member or stage is missing there.
    """
    missing = pending(run_dir, hub.prefix) if hub.push else []
    if missing:
        names, reason = ", ".join(record.name for record in missing), missing[0].push.get("error", "not pushed yet")
        raise HfChainError(
            f"everything is saved in {run_dir}, but {names} could not be pushed ({reason}): `hf-chain push {run_dir}` "
            "makes up for it"
        )


def push_what_is_left(
    run_dir: str | Path,
    write_card: CardWriter,
    hub: HubSettings | None = None,
    api: HfApi | None = None,
    policy: RetryPolicy | None = None,
) -> PushReport:
    """Pushes what `pending` lists, for `push_pending`, which knows the run's method.

    Args:
        run_dir, hub, api, policy: As there.
        write_card (`CardWriter`): How the run's method writes a card.

    Returns:
        `PushReport`: What was pushed and what was not.

    Raises:
        HfChainError: when there is no readable ledger, or no prefix to push to.
    """
    ledger = Ledger(Path(run_dir))
    hub = hub or HubSettings(**(read_family(run_dir).recipe.get("hub") or {}))
    if hub.prefix is None:
        raise HfChainError(f"No repository name for {run_dir}: give a prefix such as user/scenes")
    hub = hub.model_copy(update={"push": True})
    policy = policy or RetryPolicy(total=hub.timeout)
    report = PushReport()
    for record in tqdm(pending(run_dir, hub.prefix), desc="Pushing", unit="member"):
        # Read anew, so that the card of a member links to the commit of its predecessor that was just pushed.
        outcome = _push(read_family(run_dir), record, hub, write_card, api, policy)
        record_push(ledger, record.name, record.weights_sha256, outcome, f"{hub.prefix}-{record.name}")
        if isinstance(outcome, PushResult):
            report.pushed.append(outcome)
        else:
            report.failed[record.name] = str(outcome)
    return report


def refresh_card(
    family: FamilyRecord, record: MemberRecord, hub: HubSettings, write_card: CardWriter, always: bool = False
) -> bool:
    """Writes a card anew when it is not there or does not know its repository; others may have been edited by hand.

    Args:
        family (`FamilyRecord`): The run.
        record (`MemberRecord`): A saved member or stage.
        hub (`HubSettings`): Where it is pushed.
        write_card (`CardWriter`): How the run's method writes a card.
        always (`bool`): Write it whatever it says now.

    Returns:
        `bool`: Whether the card has changed.
    """
    folder = family.run_dir / record.folder
    card, recipe = folder / CARD_NAME, folder / "recipe.yaml"
    before = card.read_bytes() if card.is_file() else None
    known = before is not None and f'"{hub.prefix}-{record.name}"'.encode() in before
    if not recipe.exists() or (known and not always):
        return False
    write_card(folder, family, record, hub, recipe.read_text(encoding="utf-8"))
    Ledger(family.run_dir).append("card_written", record.name, card_sha256=file_sha256(card))
    return card.read_bytes() != before


def mend_card(family: FamilyRecord, record: MemberRecord, hub: HubSettings, write_card: CardWriter) -> bool:
    """Writes a card anew that is gone or no text, and says of one that has changed that it is kept: people edit cards.

    Returns whether it is as hf_chain writes it.

    Args:
        family (`FamilyRecord`): The run.
        record (`MemberRecord`): A saved member or stage.
        hub (`HubSettings`): Where it is pushed.
        write_card (`CardWriter`): How the run's method writes a card.
    """
    card = family.run_dir / record.folder / CARD_NAME
    if not record.card_sha256 or (card.is_file() and file_sha256(card) == record.card_sha256):
        return True
    if card.is_file() and card.read_bytes().startswith(b"---"):
        logger.warning(f"{card} is not as it was written: it is kept as edited; remove it to have it written anew")
        return False
    logger.warning(f"{card} is gone or damaged: it is written anew")
    refresh_card(family, record, hub, write_card, always=True)
    return True


def _is_pending(record: MemberRecord, prefix: str | None) -> bool:
    push = record.push
    done = push.get("state") == "pushed" and push.get("weights_sha256") == record.weights_sha256
    done = done and not push.get("outdated")
    elsewhere = prefix is not None and push.get("repo_id") != f"{prefix}-{record.name}"
    return record.saved and (not done or elsewhere)


def _push(
    family: FamilyRecord,
    record: MemberRecord,
    hub: HubSettings,
    write_card: CardWriter,
    api: HfApi | None,
    policy: RetryPolicy,
) -> PushResult | Exception:
    try:
        check_saved(record, family.run_dir / record.folder)
        mend_card(family, record, hub, write_card)
        refresh_card(family, record, hub, write_card)
        folder, repo_id = family.run_dir / record.folder, f"{hub.prefix}-{record.name}"
        return push_member(folder, repo_id, hub.private, trainable=hub.trainable, api=api, policy=policy)
    except (HfChainError, OSError) as error:
        return error
