"""The push queue: members go to the Hub while the run goes on, and no failure reaches it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hf_chain.errors import HfChainError
from hf_chain.hub import HubSettings, PushQueue, RetryPolicy, pending
from hf_chain.runs.ledger import Ledger, read_family
from support.hub_server import HubServer

COMMIT = r"POST /api/models/.*/commit/main"
SETTINGS = HubSettings(push=True, prefix="tester/scenes")


def submit_all(queue: PushQueue, run_dir: Path) -> None:
    for record in read_family(run_dir).members:
        queue.submit(record.name, run_dir / record.folder, record.weights_sha256)


def push_states(run_dir: Path) -> dict[str, str]:
    return {record.name: record.push.get("state", "") for record in read_family(run_dir).members}


def test_every_member_goes_to_a_repository_of_its_own(hub: HubServer, run_dir: Path, patience: RetryPolicy) -> None:
    with PushQueue(Ledger(run_dir), SETTINGS, policy=patience) as queue:
        submit_all(queue, run_dir)
    assert set(hub.repos["models"]) == {"tester/scenes-tiny", "tester/scenes-small"}
    for record in read_family(run_dir).members:
        repo = hub.model(f"tester/scenes-{record.name}")
        assert record.push["state"] == "pushed"
        assert record.push["revision"] == repo.branches["main"]
        assert record.push["url"] == f"{hub.endpoint}/{repo.id}"
        assert record.push["weights_sha256"] == record.weights_sha256
        assert repo.files["model.safetensors"].oid == record.weights_sha256
    assert pending(run_dir) == []


def test_a_failed_push_is_remembered_and_the_next_member_is_pushed(
    hub: HubServer, run_dir: Path, patience: RetryPolicy
) -> None:
    hub.fail(r"POST /api/models/tester/scenes-tiny/commit/main", 500, times=99)
    with PushQueue(Ledger(run_dir), SETTINGS, policy=patience) as queue:
        submit_all(queue, run_dir)
    tiny, small = (record.push for record in read_family(run_dir).members)
    assert (tiny["state"], tiny["repo_id"], tiny["attempts"]) == ("failed", "tester/scenes-tiny", 4)
    assert "500" in tiny["error"] and "\n" not in tiny["error"]
    assert small["state"] == "pushed"
    assert [record.name for record in pending(run_dir)] == ["tiny"]


def test_submitting_does_not_wait_for_the_hub(hub: HubServer, run_dir: Path) -> None:
    hub.fail("POST /api/repos/create", "silence")
    queue = PushQueue(Ledger(run_dir), SETTINGS)
    start = time.monotonic()
    submit_all(queue, run_dir)
    assert time.monotonic() - start < 5
    assert push_states(run_dir) == {"tiny": "", "small": ""}
    queue.close(wait=False)
    assert push_states(run_dir) == {"tiny": "failed", "small": "failed"}


def test_a_hub_that_never_answers_holds_the_end_of_a_run_no_longer_than_the_time_limit(
    hub: HubServer, run_dir: Path
) -> None:
    hub.fail("POST /api/repos/create", "silence", times=9)
    start = time.monotonic()
    with PushQueue(Ledger(run_dir), SETTINGS.model_copy(update={"timeout": 0.5})) as queue:
        submit_all(queue, run_dir)
    assert time.monotonic() - start < 5
    assert "was not finished in time" in read_family(run_dir).members[0].push["error"]
    assert [record.name for record in pending(run_dir)] == ["tiny", "small"]


def test_the_error_of_an_interrupted_run_is_not_hidden(hub: HubServer, run_dir: Path) -> None:
    hub.fail("POST /api/repos/create", "silence")
    with pytest.raises(KeyboardInterrupt), PushQueue(Ledger(run_dir), SETTINGS) as queue:
        submit_all(queue, run_dir)
        raise KeyboardInterrupt
    assert "was interrupted" in read_family(run_dir).members[0].push["error"]


def test_a_vanished_folder_is_a_failed_push(hub: HubServer, run_dir: Path) -> None:
    with PushQueue(Ledger(run_dir), SETTINGS) as queue:
        queue.submit("tiny", run_dir / "gone", "0" * 64)
    assert "No saved member in" in read_family(run_dir).members[0].push["error"]


def test_a_queue_without_a_prefix_says_so(run_dir: Path) -> None:
    with pytest.raises(HfChainError, match="hub.prefix is not set"):
        submit_all(PushQueue(Ledger(run_dir), HubSettings()), run_dir)
