"""Members that are saved but not on the Hub, and how to bring them there later."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi
from tqdm.auto import tqdm

from hf_chain.errors import HfChainError
from hf_chain.hub.card import write_member_card
from hf_chain.hub.graft_card import write_graft_card
from hf_chain.hub.push import PushResult, push_member, record_push
from hf_chain.hub.retry import RetryPolicy
from hf_chain.hub.settings import HubSettings
from hf_chain.stages.graft.record import is_graft
from hf_chain.stages.ledger import FamilyRecord, Ledger, MemberRecord, read_family


@dataclass
class PushReport:
    """Outcome of `push_pending`: what was pushed, and for each member that was not the reason in one line."""

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


def push_pending(
    run_dir: str | Path,
    hub: HubSettings | None = None,
    api: HfApi | None = None,
    policy: RetryPolicy | None = None,
) -> PushReport:
    """Pushes what `pending` lists, in the order of the chain, and records each outcome in the ledger.

    A card that was written before its repository was known is written anew, with its repository in it.

    Args:
        run_dir (`str` or `Path`): Folder of the run.
        hub (`HubSettings`, *optional*): Where to push; by default as the run's recipe says.
        api (`HfApi`, *optional*): Client to push with.
        policy (`RetryPolicy`, *optional*): How patiently to repeat; by default within `hub.timeout`.

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
        outcome = _push(read_family(run_dir), record, hub, api, policy)
        record_push(ledger, record.name, record.weights_sha256, outcome, f"{hub.prefix}-{record.name}")
        if isinstance(outcome, PushResult):
            report.pushed.append(outcome)
        else:
            report.failed[record.name] = str(outcome)
    return report


def refresh_card(family: FamilyRecord, record: MemberRecord, hub: HubSettings, always: bool = False) -> bool:
    """Writes a card anew when it is not there or does not know its repository; others may have been edited by hand.

    Args:
        family (`FamilyRecord`): The run.
        record (`MemberRecord`): A saved member or stage.
        hub (`HubSettings`): Where it is pushed.
        always (`bool`): Write it whatever it says now.

    Returns:
        `bool`: Whether the card has changed.
    """
    folder = family.run_dir / record.folder
    card, recipe = folder / "README.md", folder / "recipe.yaml"
    before = card.read_text(encoding="utf-8") if card.exists() else None
    if not recipe.exists() or (before is not None and f'"{hub.prefix}-{record.name}"' in before and not always):
        return False
    write_card = write_graft_card if is_graft(family) else write_member_card
    write_card(folder, family, record, hub, recipe.read_text(encoding="utf-8"))
    return card.read_text(encoding="utf-8") != before


def _is_pending(record: MemberRecord, prefix: str | None) -> bool:
    push = record.push
    done = push.get("state") == "pushed" and push.get("weights_sha256") == record.weights_sha256
    done = done and not push.get("outdated")
    elsewhere = prefix is not None and push.get("repo_id") != f"{prefix}-{record.name}"
    return record.status == "saved" and (not done or elsewhere)


def _push(
    family: FamilyRecord, record: MemberRecord, hub: HubSettings, api: HfApi | None, policy: RetryPolicy
) -> PushResult | Exception:
    try:
        refresh_card(family, record, hub)
        folder, repo_id = family.run_dir / record.folder, f"{hub.prefix}-{record.name}"
        return push_member(folder, repo_id, hub.private, api=api, policy=policy)
    except (HfChainError, OSError) as error:
        return error
