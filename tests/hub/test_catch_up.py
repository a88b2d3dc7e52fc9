"""Finishing pushes later."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers import CLIPModel

from hf_chain.commands.push import push_pending
from hf_chain.errors import HfChainError
from hf_chain.files import file_sha256, weights_sha256
from hf_chain.hub import HubSettings, PushQueue, RetryPolicy, pending
from hf_chain.runs.ledger import Ledger, read_family
from support.damage import DAMAGES
from support.hub_server import HubServer

COMMIT = r"POST /api/models/.*/commit/main"


def names(records: list) -> list[str]:
    return [record.name for record in records]


def test_a_saved_run_is_pending_until_it_is_pushed(hub: HubServer, run_dir: Path, patience: RetryPolicy) -> None:
    assert names(pending(run_dir)) == ["tiny", "small"]
    report = push_pending(run_dir, policy=patience)
    assert [result.repo_id for result in report.pushed] == ["tester/scenes-tiny", "tester/scenes-small"]
    assert report.failed == {}
    assert pending(run_dir) == []
    before = len(hub.requests)
    assert push_pending(run_dir, policy=patience).pushed == []
    assert len(hub.requests) == before


def test_a_push_that_failed_in_training_is_finished_later(
    hub: HubServer, run_dir: Path, patience: RetryPolicy
) -> None:
    hub.fail(COMMIT, 403, times=2)
    with PushQueue(Ledger(run_dir), HubSettings(push=True, prefix="tester/scenes"), policy=patience) as queue:
        for record in read_family(run_dir).members:
            queue.submit(record.name, run_dir / record.folder, record.weights_sha256)
    assert names(pending(run_dir)) == ["tiny", "small"]
    assert len(push_pending(run_dir, policy=patience).pushed) == 2
    assert [record.push["state"] for record in read_family(run_dir).members] == ["pushed", "pushed"]
    assert "model.safetensors" in hub.model("tester/scenes-small").files


def test_what_fails_again_stays_pending_with_its_reason(hub: HubServer, run_dir: Path, patience: RetryPolicy) -> None:
    hub.fail(r"scenes-tiny/commit/main", 500, times=99)
    report = push_pending(run_dir, policy=patience)
    assert [result.repo_id for result in report.pushed] == ["tester/scenes-small"]
    assert list(report.failed) == ["tiny"] and "500" in report.failed["tiny"]
    assert names(pending(run_dir)) == ["tiny"]


def train_again(folder: Path) -> str:
    """Changes the weights of a member and returns their hash."""
    model = CLIPModel.from_pretrained(folder)
    model.logit_scale.data += 1
    model.save_pretrained(folder)
    return weights_sha256(folder)


def test_a_member_trained_again_is_pending_again(hub: HubServer, run_dir: Path, patience: RetryPolicy) -> None:
    push_pending(run_dir, policy=patience)
    Ledger(run_dir).append("saved", "tiny", weights_sha256="f" * 64)
    assert names(pending(run_dir)) == ["tiny"]


def test_a_member_whose_card_was_finished_later_is_pending_again(
    hub: HubServer, run_dir: Path, patience: RetryPolicy
) -> None:
    push_pending(run_dir, policy=patience)
    Ledger(run_dir).append("card_finished", "tiny")
    assert names(pending(run_dir)) == ["tiny"]
    push_pending(run_dir, policy=patience)
    assert pending(run_dir) == []


def test_an_unfinished_member_is_not_pending(run_dir: Path) -> None:
    Ledger(run_dir).append("started", "large", folder="03-large", parent="small")
    assert names(pending(run_dir)) == ["tiny", "small"]


def test_members_can_be_pushed_to_a_second_place(hub: HubServer, run_dir: Path, patience: RetryPolicy) -> None:
    push_pending(run_dir, policy=patience)
    assert names(pending(run_dir, "tester/copies")) == ["tiny", "small"]
    push_pending(run_dir, HubSettings(prefix="tester/copies"), policy=patience)
    assert "tester/copies-small" in hub.repos["models"]
    card = hub.model("tester/copies-small").files["README.md"].data.decode()
    assert re.search(r"^base_model: tester/copies-tiny$", card, re.MULTILINE)


def test_a_local_card_learns_its_repository(hub: HubServer, run_dir: Path, patience: RetryPolicy) -> None:
    push_pending(run_dir, policy=patience)
    card = hub.model("tester/scenes-small").files["README.md"].data.decode()
    assert 'from_pretrained("tester/scenes-small")' in card
    revision = hub.model("tester/scenes-tiny").branches["main"]
    assert f"https://huggingface.co/tester/scenes-tiny/tree/{revision}" in card


def test_a_card_edited_by_hand_after_its_push_is_kept(hub: HubServer, run_dir: Path, patience: RetryPolicy) -> None:
    push_pending(run_dir, policy=patience)
    card = run_dir / "01-tiny" / "README.md"
    card.write_text(card.read_text() + "\nA note of mine.\n")
    Ledger(run_dir).append("saved", "tiny", weights_sha256=train_again(run_dir / "01-tiny"))
    assert names(pending(run_dir)) == ["tiny"]
    push_pending(run_dir, policy=patience)
    assert b"A note of mine." in hub.model("tester/scenes-tiny").files["README.md"].data


@pytest.mark.parametrize("damage", ["deleted", "zeroed", "flipped"])
def test_a_damaged_card_is_written_anew_or_named_before_it_is_pushed(
    damage: str, hub: HubServer, run_dir: Path, patience: RetryPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    push_pending(run_dir, policy=patience)
    card, ledger = run_dir / "01-tiny" / "README.md", Ledger(run_dir)
    whole = card.read_bytes()
    ledger.append("saved", "tiny", weights_sha256=train_again(run_dir / "01-tiny"), card_sha256=file_sha256(card))
    DAMAGES[damage](card)
    push_pending(run_dir, policy=patience)
    pushed = hub.model("tester/scenes-tiny").files["README.md"].data
    if damage == "flipped":
        assert pushed == card.read_bytes() != whole
        assert f"{card} is not as it was written: it is kept as edited; remove it to have it written" in caplog.text
    else:
        assert pushed == card.read_bytes() and card.read_bytes().startswith(b"---")
        assert f"{card} is gone or damaged: it is written anew" in caplog.text


def test_a_card_that_is_no_text_is_no_traceback(hub: HubServer, run_dir: Path, patience: RetryPolicy) -> None:
    write_card = run_dir / "01-tiny" / "README.md"
    write_card.write_bytes(b"\xff\xfe")
    assert not push_pending(run_dir, policy=patience).failed
    assert write_card.read_bytes().startswith(b"---")


def test_a_run_without_a_prefix_says_what_to_give(run_dir: Path) -> None:
    with pytest.raises(HfChainError, match="give a prefix such as user/scenes"):
        push_pending(run_dir, HubSettings())


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="No ledger.jsonl in"):
        pending(tmp_path)
