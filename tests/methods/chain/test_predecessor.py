"""A family that starts from a published model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, CLIPConfig, CLIPModel

from hf_chain.data import build_processor, train_tokenizer
from hf_chain.errors import HfChainError
from hf_chain.methods.chain.runner import run
from hf_chain.models.chain_clip.published import load_clip
from hf_chain.runs.ledger import read_family
from support.recipes import tiny_recipe


@pytest.mark.parametrize("old_end_token", [False, True])
def test_the_first_member_grows_from_a_published_model(old_end_token: bool, tmp_path: Path) -> None:
    """OpenAI's CLIPs say that their end token is 2, which it is not, and are read at the highest token instead."""
    published = tmp_path / "published"
    tokenizer = train_tokenizer(["a red circle", "a blue square"], 520)
    build_processor(tokenizer, 32).save_pretrained(published)
    tower = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    tokens = {"bos_token_id": 0, "eos_token_id": 2} if old_end_token else {"eos_token_id": 519}
    text = tower | tokens | {"vocab_size": len(tokenizer), "max_position_embeddings": 40}
    config = CLIPConfig(
        vision_config=tower | {"image_size": 32, "patch_size": 16, "hidden_act": "gelu"},
        text_config=text | {"hidden_act": "gelu"},
        projection_dim=16,
    )
    model = CLIPModel(config).eval()
    model.save_pretrained(published)
    changes = {"predecessor": str(published), "tokenizer__name_or_path": str(published)}
    recipe = tiny_recipe(tmp_path / "runs", members=2, evaluation__max_samples=8, **changes)
    family = read_family(run(recipe))
    tiny = family.members[0]
    assert tiny.parent == str(published) and tiny.status == "saved"
    assert max(tiny.growth_error.values()) < 1e-5
    assert CLIPModel.from_pretrained(family.run_dir / tiny.folder).config.text_config.eos_token_id == 519
    texts = AutoProcessor.from_pretrained(published)(
        text=["a red circle", "blue"], padding="max_length", max_length=40, return_tensors="pt"
    )
    with torch.no_grad():
        features = [
            m.get_text_features(**texts).pooler_output for m in (model, load_clip(str(published), end_token=519))
        ]
    assert torch.equal(*features) and not torch.allclose(features[0][0], features[0][1])
    with pytest.raises(HfChainError, match="reads its text tower at token (2|519), and the tokenizer"):
        load_clip(str(published), end_token=7)
