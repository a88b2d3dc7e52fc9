"""Pushing folders to their repositories, one after the other, beside the training."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import LocalTokenNotFoundError
from huggingface_hub.utils import filter_repo_objects
from transformers.utils import logging

from hf_chain.cost.table import human
from hf_chain.errors import HfChainError, one_line
from hf_chain.files import MANIFEST_NAME, check_whole
from hf_chain.hub.retry import PushError, RetryPolicy, call_hub
from hf_chain.hub.settings import HubSettings
from hf_chain.runs.ledger import Ledger

logger = logging.get_logger(__name__)


IGNORED = ["checkpoint-*", ".*", "*.tmp", MANIFEST_NAME]
"""What is no part of a member on the Hub, which keeps checksums of its own."""
TRAINABLE = ["trainable.*"]
"""What is in the model's weights already."""


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
    try:
        names = [identity["name"], *(organisation["name"] for organisation in identity.get("orgs") or [])]
    except (KeyError, TypeError, AttributeError) as error:
        raise HfChainError(
            "The Hub's answer does not say who is logged in: check HF_ENDPOINT, and the proxy if there is one"
        ) from error
    namespace = prefix.partition("/")[0] if prefix else names[0]
    if namespace not in names:
        logger.warning(
            f"hub.prefix: {prefix!r} is in the namespace of neither {', '.join(names)}: pushes may be refused"
        )
    return names[0]


def push_member(
    folder: str | Path,
    repo_id: str,
    private: bool | None = None,
    message: str | None = None,
    trainable: bool = False,
    api: HfApi | None = None,
    policy: RetryPolicy | None = None,
) -> PushResult:
    """Pushes the files of `folder` to the model repository `repo_id`, which is created when new, as one commit.

    Files the repository already holds are not sent again, so a repeated push costs little, and the push of an
    unchanged folder makes no commit.

    Args:
        folder (`str` or `Path`): Folder of a saved member.
        repo_id (`str`): Repository, `user/name`.
        private (`bool`, *optional*): Whether a new repository is private; by default as its namespace rules. If so,
            nothing is pushed to one that is there and public.
        message (`str`, *optional*): Title of the commit.
        trainable (`bool`): Whether `trainable.safetensors` and `.json`, which a stage of a graft leaves, go along.
        api (`HfApi`, *optional*): Client to push with.
        policy (`RetryPolicy`, *optional*): How patiently to repeat what fails for the moment.

    Raises:
        PushError: one line, when the Hub refuses the push or stays out of reach.
        HfChainError: when there is no such folder, it is not as its manifest says, or the repository is public
            although it should be private.
    """
    folder, api = Path(folder), api or hub_api()
    if not (folder / "config.json").is_file():
        raise HfChainError(f"No saved member in {folder}: it has no config.json")
    if (folder / MANIFEST_NAME).exists():
        check_whole(folder, "it is not pushed; restore it, or remove that folder to make it again")

    ignored = IGNORED if trainable else IGNORED + TRAINABLE
    logger.warning(f"Pushing {_contents(folder, ignored)} of {folder.name} to {repo_id}")

    def push() -> tuple[str, str]:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        if private:
            # It may have been there before, or have been made public since.
            _refuse_public(api, repo_id)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=message or f"Upload {folder.name} with hf_chain",
            ignore_patterns=ignored,
        )
        return str(url), commit.oid

    (url, revision), attempts = call_hub(push, repo_id, policy or RetryPolicy())
    return PushResult(repo_id, url, revision, attempts)


def _contents(folder: Path, ignored: list[str]) -> str:
    """How many files are pushed, and what the largest is."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    sizes = {name: (folder / name).stat().st_size for name in filter_repo_objects(names, ignore_patterns=ignored)}
    largest = max(sizes, key=lambda name: sizes[name])
    return f"{len(sizes)} files ({human(sum(sizes.values()))}B, the largest {largest})"


def check_private(hub: HubSettings, names: Iterable[str], api: HfApi | None = None) -> None:
    """Refuses, before anything is trained, `private: true` for repositories that are there and public.

    Args:
        hub (`HubSettings`): Where to push.
        names (`Iterable[str]`): Members or stages that are to be pushed.
        api (`HfApi`, *optional*): Client to ask with.

    Raises:
        HfChainError: naming the repository, or when the Hub cannot be reached.
    """
    api = api or hub_api()
    for repo_id in (hub.repo_id(name) for name in names) if hub.private else ():
        if repo_id is not None and call_hub(partial(api.repo_exists, repo_id), repo_id, RetryPolicy(4, total=30.0))[0]:
            call_hub(partial(_refuse_public, api, repo_id), repo_id, RetryPolicy(4, total=30.0))


def _refuse_public(api: HfApi, repo_id: str) -> None:
    if not api.repo_info(repo_id).private:
        raise HfChainError(
            f"hub.private is true but {repo_id} is public: make it private in its settings on the Hub, or choose "
            "another hub.prefix"
        )


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
    reason = one_line(outcome)
    ledger.append("push_failed", member, **fields, error=reason, attempts=attempts)
    logger.warning(f"{reason}; {member} stays in the run's folder, push it later with `hf-chain push`")


@dataclass(frozen=True)
class _Job:
    member: str
    folder: Path
    repo_id: str
    weights_sha256: str


class PushQueue:
    """Pushes members one after the other in a thread, and never lets a failure out into the training.

    The thread only talks to the Hub; outcomes are written to the ledger by the thread that owns the queue, in
    `submit`, `collect` and `close`. What is neither pushed nor refused when the process dies is found by `pending`.

    Args:
        ledger (`Ledger`): Where `pushed` and `push_failed` are recorded.
        hub (`HubSettings`): Prefix, privacy and time limit of the pushes.
        api (`HfApi`, *optional*): Client to push with.
        policy (`RetryPolicy`, *optional*): How patiently to repeat; by default within `hub.timeout`.
    """

    def __init__(
        self, ledger: Ledger, hub: HubSettings, api: HfApi | None = None, policy: RetryPolicy | None = None
    ) -> None:
        self._ledger, self._hub, self._api = ledger, hub, api
        self._policy = policy or RetryPolicy(total=hub.timeout)
        self._open: list[_Job] = []
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._outcomes: queue.Queue[tuple[_Job, PushResult | Exception]] = queue.Queue()
        # A daemon, so that an upload that hangs does not keep an interrupted process alive.
        self._worker = threading.Thread(target=self._work, name="hf_chain-push", daemon=True)

    def submit(self, member: str, folder: str | Path, weights_sha256: str) -> None:
        """Queues the push of a saved member and returns at once; `folder` must not change until it is pushed."""
        repo_id = self._hub.repo_id(member)
        if repo_id is None:
            raise HfChainError(f"hub.prefix is not set: there is no repository to push {member} to")
        job = _Job(member, Path(folder), repo_id, weights_sha256)
        self._open.append(job)
        self._jobs.put(job)
        if not self._worker.is_alive():
            self._worker.start()
        self.collect()

    def collect(self, wait: float = 0.0) -> None:
        """Records what is finished; with `wait`, until nothing is open or that many seconds have passed."""
        deadline = time.monotonic() + wait
        if wait and self._open:
            logger.warning(f"waiting for {len(self._open)} pushes to end, for at most {wait:g} s")
        while self._open:
            try:
                left = deadline - time.monotonic()
                job, outcome = self._outcomes.get(timeout=left) if left > 0 else self._outcomes.get_nowait()
            except queue.Empty:
                return
            self._record(job, outcome)

    def close(self, wait: bool = True) -> None:
        """Ends the queue: waits for open pushes, within the time limit of each, and records what is not finished."""
        self._jobs.put(None)
        self.collect(self._hub.timeout * len(self._open) if wait else 0.0)
        for job in list(self._open):
            reason = "was not finished in time" if wait else "was interrupted"
            self._record(job, HfChainError(f"The push to {job.repo_id} {reason}"))

    def __enter__(self) -> PushQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(wait=error is None)

    def _record(self, job: _Job, outcome: PushResult | Exception) -> None:
        self._open.remove(job)
        record_push(self._ledger, job.member, job.weights_sha256, outcome, job.repo_id)

    def _work(self) -> None:
        for job in iter(self._jobs.get, None):
            self._outcomes.put((job, self._push(job)))

    def _push(self, job: _Job) -> PushResult | Exception:
        try:
            return push_member(
                job.folder,
                job.repo_id,
                self._hub.private,
                trainable=self._hub.trainable,
                api=self._api,
                policy=self._policy,
            )
        except Exception as error:
            return error
