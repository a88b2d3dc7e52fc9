"""A run that pushes: every member to its own repository, and a Hub that fails never stops the training."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard
from transformers import CLIPModel

from hf_chain.commands.push import push_pending
from hf_chain.errors import HfChainError
from hf_chain.hub import RetryPolicy
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import read_family
from support.hub_fixtures import hub  # noqa: F401
from support.hub_server import HubServer
from support.recipes import tiny_recipe

pytestmark = pytest.mark.slow


def pushing_recipe(folder: Path, **changes):
    return tiny_recipe(folder, members=2, hub__push=True, hub__prefix="tester/scenes", **changes)


def test_a_run_pushes_every_member_with_its_lineage(tmp_path: Path, hub: HubServer) -> None:  # noqa: F811
    run_dir = run(pushing_recipe(tmp_path))
    pushed = [member.push for member in read_family(run_dir).members]
    assert [(push["repo_id"], push["state"]) for push in pushed] == [
        ("tester/scenes-tiny", "pushed"),
        ("tester/scenes-small", "pushed"),
    ]
    files = set(hub.model("tester/scenes-small").files)
    assert {"model.safetensors", "config.json", "README.md", "recipe.yaml", "tokenizer.json"} <= files
    assert not any(name.endswith((".bin", ".pt", ".pth")) for name in files)
    card = ModelCard.load("tester/scenes-small")
    assert card.data.base_model == "tester/scenes-tiny"
    assert card.data.base_model_relation == "finetune"
    assert CLIPModel.from_pretrained("tester/scenes-small").config.projection_dim == 24


def test_a_hub_that_fails_is_remembered_and_served_later(tmp_path: Path, hub: HubServer) -> None:  # noqa: F811
    hub.fail("POST /api/models/tester/scenes-tiny/commit", 500, times=1000)
    recipe = pushing_recipe(tmp_path, hub__timeout=3.0)
    with pytest.raises(HfChainError, match=r"but tiny could not be pushed \(.*500.*\): `hf-chain push .*/tiny` makes"):
        run(recipe)
    run_dir = recipe.run_dir
    states = {member.name: member.push["state"] for member in read_family(run_dir).members}
    assert states == {"tiny": "failed", "small": "pushed"}
    assert all(member.status == "saved" for member in read_family(run_dir).members)
    hub.heal()
    report = push_pending(run_dir, policy=RetryPolicy(attempts=2, first_wait=0.01))
    assert [result.repo_id for result in report.pushed] == ["tester/scenes-tiny"]
    assert {member.push["state"] for member in read_family(run_dir).members} == {"pushed"}


def test_private_members_are_refused_before_training_where_their_repository_is_public(
    tmp_path: Path,
    hub: HubServer,  # noqa: F811
) -> None:
    HfApi().create_repo("tester/scenes-small")
    with pytest.raises(HfChainError, match="hub.private is true but tester/scenes-small is public"):
        run(pushing_recipe(tmp_path, hub__private=True))
    assert not (tmp_path / "tiny").exists()
