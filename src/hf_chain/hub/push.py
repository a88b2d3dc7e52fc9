"""Pushing one member's folder to its repository."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import LocalTokenNotFoundError
from transformers.utils import logging

from hf_chain.errors import HfChainError
from hf_chain.hub.retry import PushError, RetryPolicy, call_hub
from hf_chain.stages.ledger import Ledger

logger = logging.get_logger(__name__)

IGNORED = ["checkpoint-*", ".*", "*.tmp"]
"""Training checkpoints and unfinished files that are no part of a member."""


@dataclass(frozen=True)
class PushResult:
    """A push that the Hub confirmed: `revision` is the commit at which `repo_id` holds the folder."""

    repo_id: str
    url: str
    revision: str
    attempts: int


def hub_api() -> HfApi:
    """Client of the Hub at `HF_ENDPOINT`, with the token of `HF_TOKEN` or `hf auth login`."""
    return HfApi(library_name="hf_chain")


def check_login(prefix: str | None = None, api: HfApi | None = None, policy: RetryPolicy | None = None) -> str:
    """Asks the Hub who is logged in, so that a run that cannot push says so before it trains.

    Args:
        prefix (`str`, *optional*): Start of the repository names; a namespace that is neither the user's nor one of
            their organisations' is warned about.
        api (`HfApi`, *optional*): Client to ask with.
        policy (`RetryPolicy`, *optional*): How patiently to ask; by default for at most 30 s.

    Returns:
        `str`: Name of the user.

    Raises:
        HfChainError: when no token is found, the Hub refuses it, or the Hub cannot be reached.
    """
    try:
        identity, _ = call_hub((api or hub_api()).whoami, "the login", policy or RetryPolicy(attempts=4, total=30.0))
    except PushError as error:
        if isinstance(error.__cause__, LocalTokenNotFoundError):
            raise HfChainError(
                "Not logged in to the Hub: run `hf auth login`, set HF_TOKEN, or switch hub.push off"
            ) from error
        raise
    names = [identity["name"], *(organisation["name"] for organisation in identity.get("orgs", []))]
    namespace = prefix.partition("/")[0] if prefix else identity["name"]
    if namespace not in names:
        logger.warning(
            f"hub.prefix: {prefix!r} is in the namespace of neither {', '.join(names)}: pushes may be refused"
        )
    return identity["name"]


def push_member(
    folder: str | Path,
    repo_id: str,
    private: bool = False,
    message: str | None = None,
    api: HfApi | None = None,
    policy: RetryPolicy | None = None,
) -> PushResult:
    """Pushes the files of `folder` to the model repository `repo_id`, which is created when new, as one commit.

    Files the repository already holds are not sent again, so a repeated push costs little, and the push of an
    unchanged folder makes no commit.

    Args:
        folder (`str` or `Path`): Folder of a saved member.
        repo_id (`str`): Repository, `user/name`.
        private (`bool`): Whether a new repository is private.
        message (`str`, *optional*): Title of the commit.
        api (`HfApi`, *optional*): Client to push with.
        policy (`RetryPolicy`, *optional*): How patiently to repeat what fails for the moment.

    Raises:
        PushError: one line, when the Hub refuses the push or stays out of reach.
        HfChainError: when there is no such folder.
    """
    folder, api = Path(folder), api or hub_api()
    if not (folder / "config.json").is_file():
        raise HfChainError(f"No saved member in {folder}: it has no config.json")

    def push() -> tuple[str, str]:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=message or f"Upload {folder.name} with hf_chain",
            ignore_patterns=list(IGNORED),
        )
        return str(url), commit.oid

    (url, revision), attempts = call_hub(push, repo_id, policy or RetryPolicy())
    return PushResult(repo_id, url, revision, attempts)


def record_push(
    ledger: Ledger, member: str, weights_sha256: str, outcome: PushResult | Exception, repo_id: str
) -> None:
    """Writes the outcome of a push into the ledger, as `pushed` or `push_failed`."""
    fields: dict[str, Any] = {"repo_id": repo_id, "weights_sha256": weights_sha256}
    if isinstance(outcome, PushResult):
        ledger.append("pushed", member, **(fields | asdict(outcome)))
        logger.info(f"Pushed {member} to {outcome.url}")
        return
    attempts = outcome.attempts if isinstance(outcome, PushError) else 1
    reason = " ".join(str(outcome).split())
    ledger.append("push_failed", member, **fields, error=reason, attempts=attempts)
    logger.warning(f"{reason}; {member} stays in the run's folder, push it later with `hf-chain push`")
