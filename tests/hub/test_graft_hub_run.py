"""A graft that pushes: each stage to its own repository with its own card, and a failure that stops nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

from hf_chain.commands.push import push_pending
from hf_chain.errors import HfChainError
from hf_chain.hub import RetryPolicy, pending
from hf_chain.methods.graft.recipe import GraftRecipe
from hf_chain.methods.graft.runner import run_graft
from hf_chain.runs.ledger import read_family
from support.graft_recipes import streamed_graft_values
from support.hub_server import HubServer

pytestmark = pytest.mark.slow
STAGES = ["surrogate", "encoder", "graft"]


def pushing_recipe(folder: Path, timeout: float = 60.0) -> GraftRecipe:
    """A target and an encoder that exist, and one stage on the surrogate before the graft."""
    values = streamed_graft_values(
        folder,
        rows=24,
        stages=[
            {"name": "encoder", "decoder": "surrogate", "parts": {"adapter": 1e-3, "encoder.last:1": 1e-3}},
            {"name": "graft", "decoder": "target"},
        ],
    )
    return GraftRecipe.model_validate(values | {"hub": {"push": True, "prefix": "tester/tiny", "timeout": timeout}})


def test_every_stage_is_pushed_with_a_card_of_its_own(tmp_path: Path, hub: HubServer) -> None:
    run_dir = run_graft(pushing_recipe(tmp_path))
    pushed = {record.name: record.push for record in read_family(run_dir).members}
    assert {name: (push["repo_id"], push["state"]) for name, push in pushed.items()} == {
        name: (f"tester/tiny-{name}", "pushed") for name in STAGES
    }
    cards = {}
    for name in STAGES:
        files = hub.model(f"tester/tiny-{name}").files
        assert {"model.safetensors", "config.json", "README.md", "recipe.yaml", "tokenizer.json"} <= set(files)
        assert not any(path.endswith((".bin", ".pt", ".pth")) for path in files)
        cards[name] = ModelCard(files["README.md"].data.decode())
        assert str(tmp_path) not in cards[name].text.split("```yaml")[0] and f"# tiny-{name}\n" in cards[name].text
    assert "translator.json" in hub.model("tester/tiny-surrogate").files
    data = {name: card.data for name, card in cards.items()}
    assert {name: card.pipeline_tag for name, card in data.items()} == {
        "surrogate": "text-generation",
        "encoder": "image-text-to-text",
        "graft": "image-text-to-text",
    }
    assert data["surrogate"].base_model is None  # The target is a folder.
    assert (data["encoder"].base_model, data["encoder"]["base_model_relation"]) == ("tester/tiny-surrogate", "merge")
    assert (data["graft"].base_model, data["graft"]["base_model_relation"]) == ("tester/tiny-encoder", "merge")
    assert "closed_form" in cards["surrogate"].text and "## Cost" in cards["surrogate"].text
    commits = hub.model("tester/tiny-encoder").commits
    assert any(
        f"[encoder](https://huggingface.co/tester/tiny-encoder/tree/{oid})" in str(cards["graft"]) for oid in commits
    )
    assert AutoModelForCausalLM.from_pretrained("tester/tiny-surrogate").config.num_hidden_layers == 4


def test_a_push_that_fails_is_remembered_and_made_later(tmp_path: Path, hub: HubServer) -> None:
    hub.fail("POST /api/models/tester/tiny-encoder/commit", 500, times=1000)
    recipe = pushing_recipe(tmp_path, timeout=3.0)
    with pytest.raises(HfChainError, match=r"but encoder could not be pushed \(.*\): `hf-chain push .*` makes"):
        run_graft(recipe)
    run_dir = recipe.run_dir
    family = read_family(run_dir)
    assert {record.name: record.push["state"] for record in family.members} == {
        "surrogate": "pushed",
        "encoder": "failed",
        "graft": "pushed",
    }
    assert family.finished and all(record.status == "saved" for record in family.members)
    assert "500" in family.member("encoder").push["error"]
    assert [record.name for record in pending(run_dir)] == ["encoder"]
    hub.heal()
    report = push_pending(run_dir, policy=RetryPolicy(attempts=2, first_wait=0.01))
    assert [result.repo_id for result in report.pushed] == ["tester/tiny-encoder"] and not pending(run_dir)
    assert "# tiny-encoder\n" in hub.model("tester/tiny-encoder").files["README.md"].data.decode()
