"""The ledger: one JSON line an event, appended atomically; the only place where progress is stored."""

from __future__ import annotations

import errno
import json
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from hf_chain.errors import HfChainError, reason
from hf_chain.files import sync

logger = logging.getLogger(__name__)

LEDGER_NAME = "ledger.jsonl"
TRUNKS_FOLDER = "trunks"
"""Of a run, beside the folders of its members."""
CONTINUED = "-continued"
"""What the folder of a run ends in that trains the first member of another on, as its control."""
LOCK_NAME = ".ledger.lock"
LONGEST_WRITE = 60
"""Seconds; a line takes milliseconds."""


_WARNED: set[tuple[Any, ...]] = set()
"""Ledgers and lines that were warned of; a run reads its ledger often."""


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
        line = to_line(entry)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Another process, such as `hf-chain push`, may be inside a line.
        with self._alone():
            new = not self.path.exists()
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                self._drop_unfinished_line()
                if os.write(descriptor, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if new:
                sync(self.path.parent)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = FileLock(self.path.with_name(LOCK_NAME), timeout=LONGEST_WRITE)
        try:
            lock.acquire()
        except Timeout as error:
            raise HfChainError(
                f"{self.path} has been locked for {LONGEST_WRITE} s by another process: end that one"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yields the events in order; damaged lines are skipped, and counted in one warning.

        What a skipped line says has not happened, so its work is done again. A line cut short by a kill is no event.

        Raises:
            HfChainError: when no line that is left says what the run is.
        """
        if not self.path.exists():
            return
        *lines, rest = self.path.read_bytes().split(b"\n")
        # A kill leaves the beginning of a line; anything else is damage.
        lines += [rest] if rest and not rest.startswith(b"{") else []
        found, skipped = [], {}
        for number, line in enumerate(lines, start=1):
            try:
                entry, whole = from_line(line)
                _check_event(entry, whole)
                found.append(entry)
            except ValueError as error:
                skipped[number] = reason(error)
        if skipped and not any(entry["event"] == "run_started" for entry in found):
            raise HfChainError(
                f"Ledger {self.path} is damaged: no line of it says any more what was run ({_told(skipped)}); restore "
                "the file, or remove the folder to begin again"
            )
        if skipped and (known := (str(self.path), *skipped)) not in _WARNED:
            _WARNED.add(known)
            logger.warning(f"Ledger {self.path}: skipped {_told(skipped)}; what they tell of counts as not done")
        yield from found

    def _drop_unfinished_line(self) -> None:
        with self.path.open("rb") as file:
            # Only a kill leaves more to read than the last byte.
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) and file.read(1) != b"\n":
                file.seek(0)
                os.truncate(self.path, file.read().rfind(b"\n") + 1)


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
    """`total`, and what it is the sum of: `student` (3 forwards) and `teacher`, or `cut` and `translator`."""
    trunk: dict[str, Any] = field(default_factory=dict)
    """Empty, or what it has come to before its rate falls: `steps`, `samples`, `training_macs` in all up to there, and
    `manifest_sha256` of its folder in `trunks`. A successor grows from it."""
    until: dict[str, Any] = field(default_factory=dict)
    """Empty, or what it is trained for: `metric`, `split`, `target`, and `words` that say where that comes from."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    """Evaluations on the way, in order: `step`, `samples` and `training_macs` up to there, `split`, `metrics`, and
    `evaluation_macs`, which `evaluation_macs` of the member contain."""
    stopped: dict[str, Any] = field(default_factory=dict)
    """Empty, or how it ended: `why` (`reached`, `patience` or `cap`), `step` at which that was decided, `steps` done
    in all, and `cap`, the most there could have been."""
    evaluation_macs: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0
    tokens_per_second: float = 0.0
    growth_error: dict[str, float] = field(default_factory=dict)
    """Relative error of the image and text embeddings right after growth."""
    metrics_before: dict[str, dict[str, float]] = field(default_factory=dict)
    """Split name -> metric name -> value, before training (right after growth)."""
    metrics_after: dict[str, dict[str, float]] = field(default_factory=dict)
    metrics_chance: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same of a random order; empty where it is not known."""
    metrics_trials: dict[str, dict[str, int]] = field(default_factory=dict)
    """Images or captions that each of `metrics_after` is a mean over."""
    transfer: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Data set of a suite -> what its saved weights reached there, as `transfer.suite.Result`."""
    weights_sha256: str = ""
    manifest_sha256: str = ""
    """Of the `manifest.json` in its folder; empty for what was saved before there were any."""
    card_sha256: str = ""
    """Of its card as hf_chain wrote it last; people may have edited it since."""
    push: dict[str, Any] = field(default_factory=dict)
    """Empty, or `repo_id`, `state` (`pushed` or `failed`), `url`, `revision`, `error`; `outdated` once its card is."""
    card_finished: bool = False
    """Whether the card of a graft's stage tells the outcome of the run."""

    @property
    def saved(self) -> bool:
        """Whether it was saved; `RunContext.is_saved` asks for its folder too."""
        return self.status == "saved"

    @property
    def until_macs(self) -> int:
        """MACs of the evaluations that said when to stop."""
        return sum(point["evaluation_macs"] for point in self.curve)

    @property
    def counted(self) -> bool:
        """Whether its cost is known: it was trained, or evaluated, or had neither to do."""
        return bool(self.training_macs or self.metrics_after) or self.saved


@dataclass
class FamilyRecord:
    """What the ledger knows of a run: the recipe that made it, its plan, its environment and its members in order."""

    run_dir: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    """What `hf-chain plan --json` prints: `members`, `family_ratio`, `largest_alone_ratio`."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Versions of the libraries and a description of the hardware."""
    data: dict[str, Any] = field(default_factory=dict)
    """Split name to the fingerprint of its data, see `hf_chain.data.fingerprint`."""
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
    `aimed`, `measured`, `trained`, `evaluated`, `saved`, `transferred`, `card_finished`, `card_written`, `pushed` and
    `push_failed` for a member.

    Raises:
        HfChainError: when there is no ledger in `run_dir`, or it does not say any more what was run.
    """
    ledger = Ledger(Path(run_dir))
    if not ledger.path.exists():
        raise HfChainError(f"No {LEDGER_NAME} in {run_dir}: give the folder of a run, such as runs/<name>")
    family = FamilyRecord(Path(run_dir))
    for entry in ledger.entries():
        _apply(family, dict(entry))
    return family


_REQUIRED: dict[str, set[str]] = {
    "run_started": {"recipe", "plan", "environment"},
    "run_finished": set(),
    **dict.fromkeys(("planned", "started", "grown", "evaluated_before", "trained", "evaluated"), {"member"}),
    "aimed": {"member", "until"},
    "measured": {"member", "step", "samples", "training_macs", "split", "metrics", "evaluation_macs"},
    "saved": {"member", "weights_sha256"},
    "transferred": {"member", "transfer"},
    "card_finished": {"member"},
    "card_written": {"member", "card_sha256"},
    "pushed": {"member", "repo_id", "weights_sha256"},
    "push_failed": {"member", "repo_id", "error"},
}
"""Events, and the fields that each must have."""
_RUN_EVENTS, _PUSH_EVENTS = ("run_started", "run_finished"), ("pushed", "push_failed")


@cache
def _types(event: str) -> dict[str, TypeAdapter[Any]]:
    """Fields that an event may have."""
    hints: dict[str, Any] = {"time": str, "event": str}
    if event in _RUN_EVENTS:
        hints |= {"recipe": dict, "plan": dict, "environment": dict, "encoder": str, "data": dict[str, dict]}
    elif event in _PUSH_EVENTS:
        hints |= dict.fromkeys(("member", "repo_id", "weights_sha256", "url", "revision", "error"), str)
        hints["attempts"] = int
    elif event == "measured":
        hints |= {"member": str, "split": str, "metrics": dict[str, float]}
        hints |= dict.fromkeys(("step", "samples", "training_macs", "evaluation_macs"), int)
    else:
        hints |= {"member": str} | get_type_hints(MemberRecord)
    return {name: TypeAdapter(hint) for name, hint in hints.items()}


def _check_event(entry: dict[str, Any], whole: bool) -> None:
    """Raises `ValueError` when an event is unknown, or a field is missing or of another type.

    A line with a checksum may have fields that a later release has added; in any other an unknown one is damage.
    """
    event = entry["event"]
    if event not in _REQUIRED:
        raise ValueError(f"event {event[:40]!r} is unknown")
    if missing := _REQUIRED[event] - entry.keys():
        raise ValueError(f"{event} has no {min(missing)}")
    for name, value in entry.items():
        if name in _types(event):
            _types(event)[name].validate_python(value, strict=True)
        elif not whole:
            raise ValueError(f"{event} has the unknown field {name[:40]!r}")


def _told(skipped: dict[int, str]) -> str:
    """How many lines, which, and what is wrong with the first."""
    numbers, (first, *_) = list(skipped), skipped.values()
    some = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return f"{len(numbers)} damaged {'line' if len(numbers) == 1 else 'lines'} (line {some}: {first[:100]})"


def _apply(family: FamilyRecord, entry: dict[str, Any]) -> None:
    event, time = entry.pop("event"), entry.pop("time")
    if event == "run_started":
        family.started = family.started or time
        family.data |= entry.get("data", {})
        family.encoder = family.encoder or entry.get("encoder", "")
        family.recipe, family.plan, family.environment = entry["recipe"], entry["plan"], entry["environment"]
    elif event == "run_finished":
        family.finished = time
    else:
        record = family.member(entry.pop("member"))
        if event in _PUSH_EVENTS:
            record.push = entry | {"state": "pushed" if event == "pushed" else "failed"}
            return
        if event == "card_finished":
            record.card_finished = True
            record.push = record.push and record.push | {"outdated": True}
            return
        if event == "measured":
            _add_point(record, entry)
            return
        if event == "started":
            record.card_finished, record.transfer = False, {}
        if event == "transferred":
            record.push = record.push and record.push | {"outdated": True}
        if event not in ("evaluated_before", "aimed", "transferred", "card_written"):
            record.status = event
        for name in entry.keys() & _types(event).keys():
            setattr(record, name, entry[name])


def _add_point(record: MemberRecord, point: dict[str, Any]) -> None:
    """A step that was repeated after a kill counts once."""
    if all(known["step"] != point["step"] for known in record.curve):
        record.curve = sorted([*record.curve, point], key=lambda known: known["step"])
        record.evaluation_macs += point["evaluation_macs"]


CHECK = "check"
LONGEST_NUMBER = 100
"""Digits; a `float` holds three times as many."""


def to_line(entry: dict[str, Any]) -> bytes:
    """The line of an event.

    Args:
        entry (`dict`): its JSON-serialisable fields.
    """
    return (json.dumps(entry | {CHECK: _checksum(entry)}) + "\n").encode()


def from_line(line: bytes) -> tuple[dict[str, Any], bool]:
    """The event of a line, and whether its checksum says that it is whole; lines of old ledgers have none.

    Args:
        line (`bytes`): a line without its end.

    Raises:
        ValueError: when the line is no event or is damaged.
    """
    try:
        entry = json.loads(line, parse_int=_number)
        if not isinstance(entry, dict):
            raise ValueError("it is no mapping")
        check = entry.pop(CHECK, None)
        if check is not None and check != _checksum(entry):
            raise ValueError("its checksum differs")
        # Half a character could not be written into a report.
        json.dumps(entry, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not all(isinstance(entry.get(name), str) for name in ("event", "time")):
        raise ValueError("it is no event")
    datetime.fromisoformat(entry["time"])
    return entry, check is not None


def _number(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"it has a number of {len(text)} digits")
    return int(text)


def _checksum(entry: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(entry).encode()):08x}"
