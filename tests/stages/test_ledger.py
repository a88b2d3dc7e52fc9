"""The ledger loses nothing that was recorded and invents nothing."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from hf_chain.errors import HfChainError
from hf_chain.stages.ledger import Ledger, read_family


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
    ledger.append("saved", "tiny", folder="01-tiny")
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


@pytest.mark.parametrize("line", [b'{"event": "sav\n', b"[1, 2]\n", b"\x00\x00\n"])
def test_a_damaged_line_is_named_in_one_line(ledger: Ledger, line: bytes) -> None:
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([lines[0], line, *lines[1:]]))
    with pytest.raises(HfChainError, match="damaged at line 2 .*remove that line") as error:
        read_family(ledger.path.parent)
    assert "\n" not in str(error.value)


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
