"""Pushing a member: what arrives, what is repeated, what is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from hf_chain.errors import HfChainError
from hf_chain.hub import (
    HubSettings,
    PushError,
    RetryPolicy,
    check_login,
    check_private,
    predecessor_revision,
    push_member,
)
from hf_chain.hub.card import outside_ancestor
from support.hub_server import HubServer

REPO = "tester/scenes-tiny"
COMMIT = r"POST /api/models/.*/commit/main"


@pytest.fixture
def folder(run_dir: Path) -> Path:
    return run_dir / "01-tiny"


def test_a_pushed_member_holds_every_file_of_its_folder_in_one_commit(hub: HubServer, folder: Path) -> None:
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "optimizer.safetensors").write_bytes(b"no part of the member")
    result = push_member(folder, REPO, api=HfApi(endpoint=hub.endpoint, token="hf_test"))
    files = hub.model(REPO).files
    expected = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert {name: blob.data for name, blob in files.items() if name != ".gitattributes"} == expected
    assert files["model.safetensors"].lfs
    assert [commit.title for commit in hub.model(REPO).history] == ["Upload 01-tiny with hf_chain", "initial commit"]
    assert (result.revision, result.attempts) == (hub.model(REPO).branches["main"], 1)
    assert result.url == f"{hub.endpoint}/{REPO}"


def test_what_is_pushed_is_said_and_trainable_files_go_along_where_asked(
    hub: HubServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "trainable.safetensors").write_bytes(bytes(2_000_000))
    (folder / "trainable.json").write_text("{}")
    push_member(folder, REPO)
    count = len(list(folder.iterdir())) - 2
    (said,) = caplog.messages
    assert said.startswith(f"Pushing {count} files (") and said.endswith(
        f"B, the largest model.safetensors) of 01-tiny to {REPO}"
    )
    assert not any(name.startswith("trainable") for name in hub.model(REPO).files)
    push_member(folder, REPO, trainable=True)
    assert {"trainable.safetensors", "trainable.json"} <= hub.model(REPO).files.keys()
    assert "the largest trainable.safetensors)" in caplog.messages[-1]


def test_pushing_an_unchanged_folder_makes_no_commit(hub: HubServer, folder: Path) -> None:
    first = push_member(folder, REPO)
    assert push_member(folder, REPO).revision == first.revision
    (folder / "README.md").write_text("---\nlicense: mit\n---\nchanged\n")
    assert push_member(folder, REPO).revision != first.revision
    assert len(hub.model(REPO).history) == 3


def test_a_private_member_is_hidden_from_others(hub: HubServer, folder: Path) -> None:
    push_member(folder, REPO, private=True)
    with pytest.raises(Exception, match="401"):
        HfApi(endpoint=hub.endpoint, token=False).model_info(REPO)


@pytest.mark.parametrize(("private", "becomes"), [(None, True), (False, False), (True, True)])
def test_what_an_organisation_rules_holds_unless_something_is_said(
    hub: HubServer, folder: Path, private: bool | None, becomes: bool
) -> None:
    hub.private_by_rule = True
    assert HubSettings().private is None
    push_member(folder, REPO, private)
    assert hub.model(REPO).private is becomes


def test_nothing_private_is_pushed_to_a_public_repository(hub: HubServer, folder: Path) -> None:
    HfApi(endpoint=hub.endpoint, token="hf_test").create_repo(REPO, private=False)
    wanted = HubSettings(push=True, prefix="tester/scenes", private=True)
    for refused in (lambda: push_member(folder, REPO, private=True), lambda: check_private(wanted, ["new", "tiny"])):
        with pytest.raises(HfChainError, match=f"^hub.private is true but {REPO} is public: make it private"):
            refused()
    assert set(hub.model(REPO).files) == {".gitattributes"}
    hub.model(REPO).private = True
    check_private(wanted, ["new", "tiny"])
    assert "model.safetensors" not in hub.model(REPO).files and push_member(folder, REPO, private=True).revision


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("request_", ["POST /api/repos/create", "POST /api/validate-yaml", COMMIT])
def test_requests_that_huggingface_hub_does_not_repeat_are_repeated(
    hub: HubServer, folder: Path, request_: str, status: int, patience: RetryPolicy
) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    hub.fail(request_, status, times=2)
    result = push_member(folder, REPO, policy=patience)
    assert result.attempts == 3
    assert hub.model(REPO).branches["main"] == result.revision


@pytest.mark.parametrize("kind", ["cut", "hang_up", "silence"])
@pytest.mark.parametrize("request_", ["POST /api/repos/create", COMMIT])
def test_a_broken_connection_is_repeated_and_makes_one_commit(
    hub: HubServer, folder: Path, request_: str, kind: str, patience: RetryPolicy
) -> None:
    hub.fail(request_, kind)
    assert push_member(folder, REPO, policy=patience).attempts == 2
    assert len(hub.model(REPO).history) == 2


@pytest.mark.parametrize("kind", ["hang_up", 500])
def test_an_upload_that_breaks_is_taken_up_again(
    hub: HubServer, folder: Path, kind: str | int, patience: RetryPolicy
) -> None:
    hub.fail("PUT /lfs/", kind)
    push_member(folder, REPO, policy=patience)
    assert hub.model(REPO).files["model.safetensors"].data == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("headers", [{"Retry_After": "1"}, {"RateLimit": '"api";r=0;t=1'}])
def test_the_wait_the_hub_asks_for_is_kept(
    hub: HubServer, folder: Path, headers: dict[str, str], patience: RetryPolicy
) -> None:
    hub.fail(COMMIT, 429, **headers)
    start = time.monotonic()
    push_member(folder, REPO, policy=patience)
    assert time.monotonic() - start >= 1.0


def test_a_wait_beyond_the_time_limit_ends_the_push_at_once(hub: HubServer, folder: Path) -> None:
    hub.fail(COMMIT, 429, Retry_After="3600")
    with pytest.raises(PushError, match="429") as caught:
        push_member(folder, REPO, policy=RetryPolicy(first_wait=0.01, total=5.0))
    assert caught.value.attempts == 1


@pytest.mark.parametrize(("status", "remedy"), [(401, "hf auth login"), (403, "hub.prefix"), (404, "check the name")])
def test_a_refusal_is_one_line_and_is_not_repeated(
    hub: HubServer, folder: Path, status: int, remedy: str, patience: RetryPolicy
) -> None:
    hub.fail(COMMIT, status, times=9)
    with pytest.raises(PushError) as caught:
        push_member(folder, REPO, policy=patience)
    assert caught.value.attempts == 1
    assert remedy in str(caught.value) and REPO in str(caught.value) and "\n" not in str(caught.value)


def test_a_foreign_namespace_is_refused(hub: HubServer, folder: Path, patience: RetryPolicy) -> None:
    with pytest.raises(PushError, match=r"may not write to someone/scenes-tiny \(403\)"):
        push_member(folder, "someone/scenes-tiny", policy=patience)


def test_a_folder_without_a_member_is_named(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="No saved member in .*config.json"):
        push_member(tmp_path, REPO)
    assert hub.requests == []


def test_login_names_the_user(hub: HubServer, patience: RetryPolicy) -> None:
    hub.fail("GET /api/whoami-v2", 503)
    assert check_login(policy=patience) == "tester"


def test_without_a_token_the_login_says_what_to_do(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HfChainError, match="^Not logged in to the Hub: run `hf auth login`.*$"):
        check_login()


def test_a_wrong_token_is_refused_in_one_line(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HfChainError, match=r"^The Hub refused the token \(401\).*hf auth login.*$"):
        check_login()


@pytest.mark.parametrize("answer", [{"type": "user"}, [], {"name": "tester", "orgs": [7]}])
def test_an_answer_that_is_not_the_hubs_is_one_line(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HfApi, "whoami", lambda api: answer)
    with pytest.raises(HfChainError, match="^The Hub's answer does not say who is logged in: check HF_ENDPOINT"):
        check_login()


def test_a_page_in_place_of_the_hub_is_named(hub: HubServer, patience: RetryPolicy) -> None:
    hub.fail("GET /api/whoami-v2", 200, times=99)
    with pytest.raises(HfChainError, match="^What answers for the Hub about the login is a page, such as a proxy's"):
        check_login(policy=patience)


def test_a_user_of_no_organisation_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HfApi, "whoami", lambda api: {"name": "tester", "orgs": None})
    assert check_login("tester/scenes") == "tester"


def test_a_hub_out_of_reach_is_one_line(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, patience: RetryPolicy
) -> None:
    with pytest.raises(HfChainError) as caught:
        check_login(api=HfApi(endpoint="http://127.0.0.1:9", token="hf_test"), policy=patience)
    assert "\n" not in str(caught.value) and "refused" in str(caught.value)


def test_a_predecessor_from_the_hub_is_named_with_its_commit(hub: HubServer, folder: Path) -> None:
    revision = push_member(folder, REPO).revision
    HfApi().create_tag(REPO, tag="v1")
    push_member(folder.parent / "02-small", REPO)
    assert predecessor_revision(REPO, "v1") == f"{REPO}@{revision}"
    cached = Path(constants.HF_HUB_CACHE) / "models--tester--scenes-tiny" / "snapshots" / revision
    assert predecessor_revision(cached) == f"{REPO}@{revision}"
    assert predecessor_revision(folder) == str(folder)


def test_a_model_without_a_namespace_is_known_by_its_commit_too(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--gpt2" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    found = outside_ancestor(predecessor_revision(snapshot))
    assert (found.repo_id, found.revision) == ("gpt2", "a" * 40)
    assert found.url == f"https://huggingface.co/gpt2/tree/{'a' * 40}"


def test_a_predecessor_that_is_nowhere_is_one_line(hub: HubServer) -> None:
    with pytest.raises(HfChainError, match="^The Hub finds no model tester/nothing .*$"):
        predecessor_revision("tester/nothing")
