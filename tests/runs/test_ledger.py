"""The ledger loses nothing that was recorded and invents nothing."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from hf_chain.errors import HfChainError
from hf_chain.runs.ledger import Ledger, from_line, read_family


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A ledger with three events."""
    ledger = Ledger(tmp_path / "run")
    ledger.append("run_started", recipe={"name": "run"}, plan={}, environment={})
    ledger.append("started", "tiny", index=0, parameters=7)
    ledger.append("evaluated_before", "tiny", metrics_before={"test": {"zero_shot_top1": 0.25}})
    return ledger


def events(ledger: Ledger) -> list[str]:
    """Names of the events in order."""
    return [entry["event"] for entry in ledger.entries()]


def append_many(run_dir: Path, member: str) -> None:
    """What one of several processes does; the fields are longer than a page of a pipe or a disk."""
    for number in range(50):
        Ledger(run_dir).append("trained", member, samples=number, folder="x" * 6_000)


def test_events_are_read_in_the_order_they_were_recorded(ledger: Ledger) -> None:
    assert events(ledger) == ["run_started", "started", "evaluated_before"]


def test_a_member_is_the_sum_of_its_events(ledger: Ledger) -> None:
    ledger.append("saved", "tiny", folder="01-tiny", weights_sha256="f" * 64)
    ledger.append("push_failed", "tiny", repo_id="me/tiny", error="no network")
    member = read_family(ledger.path.parent).member("tiny")
    assert (member.status, member.parameters, member.folder) == ("saved", 7, "01-tiny")
    assert member.metrics_before == {"test": {"zero_shot_top1": 0.25}}
    assert member.push == {"repo_id": "me/tiny", "error": "no network", "state": "failed"}


def test_evaluation_before_training_does_not_change_the_status(ledger: Ledger) -> None:
    assert read_family(ledger.path.parent).member("tiny").status == "started"


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_cut_short_is_no_event(ledger: Ledger, cut: int) -> None:
    ledger.path.write_bytes(ledger.path.read_bytes()[:-cut])
    assert events(ledger) == ["run_started", "started"]


def test_an_event_after_a_line_cut_short_stands_on_a_line_of_its_own(ledger: Ledger) -> None:
    ledger.path.write_bytes(ledger.path.read_bytes()[:-10])
    ledger.append("grown", "tiny", growth_error={"image": 0.0})
    assert events(ledger) == ["run_started", "started", "grown"]


TIME = '"time": "2026-01-01T00:00:00+00:00"'
DAMAGED = [
    ("half a line", b'{"event": "sav'),
    ("no mapping", b"[1, 2]"),
    ("zeros", bytes(7)),
    ("binary", bytes(range(128, 255))),
    ("no time", b'{"event": "saved", "member": "tiny"}'),
    ("no moment", b'{"time": "soon", "event": "run_finished"}'),
    ("no member", f'{{{TIME}, "event": "trained"}}'.encode()),
    ("no weights", f'{{{TIME}, "event": "saved", "member": "tiny"}}'.encode()),
    ("list for a name", f'{{{TIME}, "event": "started", "member": ["tiny"]}}'.encode()),
    ("unknown event", f'{{{TIME}, "event": "svaed", "member": "tiny"}}'.encode()),
    ("unknown field", f'{{{TIME}, "event": "started", "member": "tiny", "idnex": 1}}'.encode()),
    ("text for a number", f'{{{TIME}, "event": "trained", "member": "tiny", "seconds": "9"}}'.encode()),
    ("list for metrics", f'{{{TIME}, "event": "evaluated", "member": "tiny", "metrics_after": [1]}}'.encode()),
    ("no recipe", f'{{{TIME}, "event": "run_started", "plan": {{}}, "environment": {{}}}}'.encode()),
    ("wrong checksum", f'{{{TIME}, "event": "run_finished", "check": "00000000"}}'.encode()),
    ("endless number", f'{{{TIME}, "event": "started", "member": "tiny", "index": {"9" * 5000}}}'.encode()),
    ("long number", f'{{{TIME}, "event": "trained", "member": "tiny", "samples": 1{"0" * 400}}}'.encode()),
    ("half a character", f'{{{TIME}, "event": "started", "member": "tiny", "parent": "\\ud800"}}'.encode()),
    ("deep nesting", f'{{{TIME}, "event": "trained", "member": "tiny", "push": {"[" * 10**5}{"]" * 10**5}}}'.encode()),
]


@pytest.mark.parametrize("line", [pytest.param(line, id=name) for name, line in DAMAGED])
def test_a_damaged_line_is_skipped_and_counted(ledger: Ledger, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    before = read_family(ledger.path.parent)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([lines[0], line + b"\n", lines[1], line + b"\n", *lines[2:]]))
    assert read_family(ledger.path.parent) == before == read_family(ledger.path.parent)
    (warning,) = caplog.messages
    assert "skipped 2 damaged lines (line 2, 4: " in warning and str(ledger.path) in warning and "\n" not in warning


def test_a_flipped_bit_anywhere_is_noticed_and_nothing_else_is_lost(ledger: Ledger) -> None:
    ledger.append("saved", "tiny", weights_sha256="f" * 64, folder="01-tiny", metrics_after={"test": {"r": 0.5}})
    content, whole = ledger.path.read_bytes(), list(ledger.entries())
    for place in range(len(content.splitlines()[0]) + 1, len(content), 3):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 7
        ledger.path.write_bytes(damaged)
        left = list(ledger.entries())
        assert all(event in whole for event in left) and len(left) >= len(whole) - 2, place


def test_a_ledger_that_does_not_say_any_more_what_was_run_is_refused(ledger: Ledger) -> None:
    content = ledger.path.read_bytes()
    for damaged in (content.replace(b"run_started", b"run_stated", 1), bytes(len(content)), b"\x00" * 9 + content):
        ledger.path.write_bytes(damaged)
        with pytest.raises(HfChainError, match="damaged: no line of it says any more .*restore the file") as error:
            read_family(ledger.path.parent)
        assert "\n" not in str(error.value)


def test_fields_of_a_later_release_are_left_alone(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    ledger.append("started", "small", index=1, colour="red")
    assert read_family(ledger.path.parent).member("small").index == 1 and not caplog.messages


def test_a_folder_without_a_ledger_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="give the folder of a run"):
        read_family(tmp_path)


def test_processes_that_append_at_once_do_not_mix_their_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=append_many, args=(tmp_path, name)) for name in ("one", "two")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    samples = {"one": [], "two": []}
    for entry in Ledger(tmp_path).entries():
        samples[entry["member"]].append(entry["samples"])
    assert samples == {"one": list(range(50)), "two": list(range(50))}


def test_an_append_does_not_read_what_was_written_before(ledger: Ledger) -> None:
    size = 1 << 40
    os.truncate(ledger.path, size)  # A hole, which no memory could hold.
    with ledger.path.open("ab") as file:
        file.write(b"\n")
    ledger.append("grown", "tiny")
    with ledger.path.open("rb") as file:
        file.seek(size + 1)
        assert from_line(file.read().rstrip(b"\n"))[0]["event"] == "grown"
