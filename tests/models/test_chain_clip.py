"""The model in training, its folder, and the stock model beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, CLIPConfig, CLIPModel

from hf_chain.errors import HfChainError
from hf_chain.models import ChainCLIPConfig, ChainCLIPModel
from support.chain_clips import clip_inputs, tiny_clip

MAPS = "teacher_maps.safetensors"


def test_maps_to_an_earlier_teacher_do_not_stay_in_the_folder(tmp_path: Path) -> None:
    ChainCLIPModel.from_clip(tiny_clip(), 24).save_pretrained(tmp_path)
    assert (tmp_path / MAPS).exists()
    ChainCLIPModel.from_clip(tiny_clip()).save_pretrained(tmp_path)
    assert not (tmp_path / MAPS).exists()
    assert ChainCLIPModel.from_pretrained(tmp_path).image_to_teacher is None


def test_captions_without_their_dimension_are_refused_with_the_remedy() -> None:
    model, inputs = ChainCLIPModel.from_clip(tiny_clip()).eval(), clip_inputs()
    with pytest.raises(HfChainError, match=r"input_ids has shape \[2, 6\].*give input_ids.unsqueeze\(1\)"):
        model(**inputs)
    ids, mask = inputs["input_ids"].unsqueeze(1), inputs["attention_mask"].unsqueeze(1)
    found = model(pixel_values=inputs["pixel_values"], input_ids=ids, attention_mask=mask)
    expected = tiny_clip()(**inputs)
    torch.testing.assert_close(found.text_embeds[:, 0], expected.text_embeds)
    torch.testing.assert_close(found.image_embeds, expected.image_embeds)


def test_maps_are_found_wherever_the_weights_are(tmp_path: Path) -> None:
    model = ChainCLIPModel.from_clip(tiny_clip(), 24)
    with torch.no_grad():
        model.image_to_teacher.weight.normal_()
    model.save_pretrained(tmp_path / "all" / "part", variant="fp16", max_shard_size="20KB")
    loaded = ChainCLIPModel.from_pretrained(tmp_path / "all", subfolder="part", variant="fp16")
    states = [CLIPModel.from_pretrained(tmp_path / "all/part", variant="fp16").state_dict(), loaded.state_dict()]
    assert torch.equal(states[1].pop("image_to_teacher.weight"), model.image_to_teacher.weight)
    assert torch.equal(states[1].pop("text_to_teacher.weight"), model.text_to_teacher.weight)
    for name, weight in model.to_clip().state_dict().items():
        assert all(torch.equal(state[name].reshape(weight.shape), weight) for state in states)


def test_a_configuration_or_a_field_of_it_asks_for_maps(tmp_path: Path) -> None:
    tiny_clip().save_pretrained(tmp_path)
    wanted = ChainCLIPConfig(**tiny_clip().config.to_dict() | {"model_type": "chain_clip"}, teacher_projection_dim=24)
    for asked in ({"config": wanted}, {"teacher_projection_dim": 24}):
        model, report = ChainCLIPModel.from_pretrained(tmp_path, output_loading_info=True, **asked)
        assert report["missing_keys"] == {"image_to_teacher.weight", "text_to_teacher.weight"}
        assert torch.equal(model.image_to_teacher.weight, torch.eye(24, 16))
    assert type(AutoModel.from_config(wanted)) is ChainCLIPModel
    model.save_pretrained(tmp_path)
    with pytest.raises(HfChainError, match="does not hold the model's maps to its teacher"):
        ChainCLIPModel.from_pretrained(tmp_path, teacher_projection_dim=20)
    plain = ChainCLIPModel.from_pretrained(tmp_path, config=CLIPConfig.from_pretrained(tmp_path))
    assert plain.config.teacher_projection_dim == 24


def test_weights_are_taken_from_memory() -> None:
    model = ChainCLIPModel.from_clip(tiny_clip(), 24)
    with torch.no_grad():
        model.text_to_teacher.weight.normal_()
    again = ChainCLIPModel.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in model.state_dict().items())
    stock = ChainCLIPModel.from_pretrained(None, config=tiny_clip().config, state_dict=tiny_clip().state_dict())
    assert torch.equal(stock.visual_projection.weight, tiny_clip().visual_projection.weight)
