"""Everything that is built on the target is built on the revision, and in the type, that the recipe says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hf_chain.methods.graft.recipe import GraftRecipe
from hf_chain.methods.graft.runner import run_graft
from support.graft_recipes import streamed_graft_values
from support.hub_fixtures import hub  # noqa: F401


@pytest.mark.usefixtures("hub")
def test_surrogate_graft_and_baseline_are_of_one_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    stages = [
        {"name": "encoder", "decoder": "surrogate", "parts": {"adapter": 1e-3}},
        {"name": "graft", "decoder": "target"},
    ]
    values = streamed_graft_values(tmp_path, 16, stages)
    api, folder = HfApi(), tmp_path / "target"
    api.create_repo("tester/target")
    revision = api.upload_folder(repo_id="tester/target", folder_path=folder).oid
    target = AutoModelForCausalLM.from_pretrained(folder)
    expected = {name: value.to(torch.bfloat16) for name, value in target.state_dict().items()}
    with torch.no_grad():
        for weight in target.parameters():
            weight.neg_()
    target.save_pretrained(folder, max_shard_size="40KB")
    api.upload_folder(repo_id="tester/target", folder_path=folder)
    values["target"] = {"name_or_path": "tester/target", "revision": revision, "dtype": "bfloat16"}
    values["baseline"] = [{"name": "alignment", "decoder": "target", "parts": {"adapter": 1e-3}}]
    values["training"] |= {"bf16": True}
    run_dir = run_graft(GraftRecipe.model_validate(values))
    for stage in ("03-graft", "04-alignment"):
        found = load_file(run_dir / stage / "model.safetensors")
        for name, value in expected.items():
            torch.testing.assert_close(found[f"language_model.{name}"], value, rtol=0, atol=0)
