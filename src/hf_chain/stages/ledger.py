"""The ledger: one JSON line an event, appended atomically; the only place where progress is stored."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hf_chain.errors import HfChainError

LEDGER_NAME = "ledger.jsonl"


class Ledger:
    """Append-only event log of one run.

    An event is one line, written with a single `write` to a file opened for appending and synchronised to disk, so a
    killed process leaves at most one unfinished last line, which the next reader drops.

    Args:
        run_dir (`Path`): Folder of the run; the ledger is its `ledger.jsonl`.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = Path(run_dir) / LEDGER_NAME

    def append(self, event: str, member: str | None = None, **fields: Any) -> None:
        """Records `event` (of `member`, if it concerns one) with JSON-serialisable `fields`."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        entry = {"time": now, "event": event} | ({"member": member} if member else {}) | fields
        line = (json.dumps(entry, allow_nan=True) + "\n").encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # Another process, such as `hf-chain push`, may be inside a line; closing the file gives the lock back.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._drop_unfinished_line()
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yields the events in order; a line cut short by a kill is not an event."""
        if not self.path.exists():
            return
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                entry = json.loads(line)
                if not isinstance(entry, dict) or not {"event", "time"} <= entry.keys():
                    raise ValueError("it is no event")
            except ValueError as error:
                reason = getattr(error, "msg", None) or str(error)
                raise HfChainError(
                    f"Ledger {self.path} is damaged at line {number} ({reason}): remove that line to go on"
                ) from error
            yield entry

    def _drop_unfinished_line(self) -> None:
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(self.path, content.rfind(b"\n") + 1)


@dataclass
class MemberRecord:
    """What the ledger knows of one member.

    `status` goes from `planned` over `started`, `grown`, `trained`, `evaluated` to `saved`. MACs are
    multiply-accumulate operations, seconds are wall-clock seconds of training, summed over all attempts.
    """

    name: str
    index: int = 0
    folder: str = ""
    """Folder name inside the run, e.g. `02-small`."""
    status: str = "planned"
    parent: str | None = None
    """Name of the predecessor in this run, or the path or `repo@revision` it came from; `None` from scratch."""
    operator: str | None = None
    config_hash: str = ""
    seed: int = 0
    parameters: int = 0
    macs_per_sample: int = 0
    """Forward MACs of the image tower and all captions for one sample."""
    epochs: float = 0.0
    samples: int = 0
    trains_decoder: bool | None = None
    """Whether parameters of the language model were trained, or LoRA; `None` where nothing was, or a graft is old."""
    training_macs: dict[str, int] = field(default_factory=dict)
    """`student` (3 forwards), `teacher`, and `total`."""
    evaluation_macs: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0
    growth_error: dict[str, float] = field(default_factory=dict)
    """Relative error of the image and text embeddings right after growth."""
    metrics_before: dict[str, dict[str, float]] = field(default_factory=dict)
    """Split name -> metric name -> value, before training (right after growth)."""
    metrics_after: dict[str, dict[str, float]] = field(default_factory=dict)
    weights_sha256: str = ""
    push: dict[str, Any] = field(default_factory=dict)
    """Empty, or `repo_id`, `state` (`pushed` or `failed`), `url`, `revision`, `error`; `outdated` once its card is."""
    card_finished: bool = False
    """Whether the card of a graft's stage tells the outcome of the run."""


@dataclass
class FamilyRecord:
    """What the ledger knows of a run: the recipe that made it, its plan, its environment and its members in order."""

    run_dir: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    """What `hf-chain plan --json` prints: `members`, `family_ratio`, `largest_alone_ratio`."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Versions of the libraries and a description of the hardware."""
    encoder: str = ""
    """Folder of the member of a chain that a graft began with, seen from the folder of all runs."""
    started: str = ""
    finished: str = ""
    members: list[MemberRecord] = field(default_factory=list)

    def member(self, name: str) -> MemberRecord:
        """The record of the member called `name`, made when it is new."""
        for record in self.members:
            if record.name == name:
                return record
        self.members.append(MemberRecord(name))
        return self.members[-1]


def read_family(run_dir: str | Path) -> FamilyRecord:
    """Folds the ledger of `run_dir` into the present state of its family.

    Events are `run_started` and `run_finished` for the run, and `planned`, `started`, `grown`, `evaluated_before`,
    `trained`, `evaluated`, `saved`, `card_finished`, `pushed` and `push_failed` for a member.

    Raises:
        HfChainError: when there is no ledger in `run_dir` or it is damaged.
    """
    ledger = Ledger(Path(run_dir))
    if not ledger.path.exists():
        raise HfChainError(f"No {LEDGER_NAME} in {run_dir}: give the folder of a run, such as runs/<name>")
    family = FamilyRecord(Path(run_dir))
    for entry in ledger.entries():
        _apply(family, dict(entry))
    return family


def _apply(family: FamilyRecord, entry: dict[str, Any]) -> None:
    event, time = entry.pop("event"), entry.pop("time")
    if event == "run_started":
        family.started = family.started or time
        family.encoder = family.encoder or entry.get("encoder", "")
        family.recipe, family.plan, family.environment = entry["recipe"], entry["plan"], entry["environment"]
    elif event == "run_finished":
        family.finished = time
    else:
        record = family.member(entry.pop("member"))
        if event in ("pushed", "push_failed"):
            record.push = entry | {"state": "pushed" if event == "pushed" else "failed"}
            return
        if event == "card_finished":
            record.card_finished = True
            record.push = record.push and record.push | {"outdated": True}
            return
        if event == "started":
            record.card_finished = False
        if event != "evaluated_before":
            record.status = event
        for name, value in entry.items():
            setattr(record, name, value)
