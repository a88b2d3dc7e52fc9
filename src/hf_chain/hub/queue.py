"""Pushing members while the next one trains."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from huggingface_hub import HfApi
from transformers.utils import logging

from hf_chain.errors import HfChainError
from hf_chain.hub.push import PushResult, push_member, record_push
from hf_chain.hub.retry import RetryPolicy
from hf_chain.hub.settings import HubSettings
from hf_chain.runs.ledger import Ledger

logger = logging.get_logger(__name__)


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
