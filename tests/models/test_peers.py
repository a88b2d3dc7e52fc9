"""Checkpoints of open_clip and timm are stock models that compute the same, and come back as they were.

`tests/models/peers/make.py` has written them and what these libraries compute with them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPVisionModel, PreTrainedModel, ViTForImageClassification

from hf_chain.errors import HfChainError
from hf_chain.growth import grow
from hf_chain.growth.larger import larger_config
from hf_chain.models.peers import from_peer, to_peer
from support.families import PIXELS, ROWS

PEERS = Path(__file__).parent / "peers"
CLIPS, VITS = ("open_clip", "open_clip_quickgelu"), ("timm", "timm_features")
SAME = 1e-5


@torch.no_grad()
def outputs(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if isinstance(model, CLIPModel):
        image = model.get_image_features(inputs["pixel_values"]).pooler_output
        return {"image": image, "text": model.get_text_features(inputs["input_ids"]).pooler_output}
    return {"logits": model(inputs["pixel_values"]).logits}


def difference(model: PreTrainedModel, expected: dict[str, torch.Tensor]) -> float:
    found = outputs(model, expected)
    return max((value - expected[name]).abs().max().item() for name, value in found.items())


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = (path for path in folder.glob("*.safetensors") if path.stem != "expected")
    return load_file(path)


@pytest.mark.parametrize("name", [*CLIPS, *VITS])
def test_a_checkpoint_computes_what_its_own_library_does(name: str, tmp_path: Path) -> None:
    model, _ = from_peer(PEERS / name)
    expected = load_file(PEERS / name / "expected.safetensors")
    assert difference(model, expected) < SAME
    model.save_pretrained(tmp_path)
    assert difference(type(model).from_pretrained(tmp_path), expected) < SAME


@pytest.mark.parametrize("name", [*CLIPS, *VITS])
def test_a_checkpoint_comes_back_byte_for_byte_and_says_the_same(name: str, tmp_path: Path) -> None:
    model, images = from_peer(PEERS / name)
    peer = to_peer(model, tmp_path, images)
    before, after = weights_of(PEERS / name), weights_of(tmp_path)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[weight], after[weight]) for weight in before)
    again, same_images = from_peer(tmp_path)
    assert again.config.to_dict() == model.config.to_dict()
    assert same_images.to_dict() == images.to_dict()
    assert (tmp_path / peer.config_file).is_file()


def test_half_precision_stays_half(tmp_path: Path) -> None:
    folder = shutil.copytree(PEERS / "open_clip", tmp_path / "open_clip")
    halves = {name: weight.half() for name, weight in weights_of(folder).items()}
    save_file(halves, folder / "open_clip_model.safetensors")
    model, _ = from_peer(folder)
    assert {weight.dtype for weight in model.parameters()} == {torch.float16}
    (tmp_path / "back").mkdir()
    to_peer(model, tmp_path / "back")
    assert all(torch.equal(halves[name], weight) for name, weight in weights_of(tmp_path / "back").items())


def test_images_are_prepared_as_the_checkpoint_says() -> None:
    _, images = from_peer(PEERS / "open_clip")
    assert (images.size["shortest_edge"], images.crop_size["height"]) == (16, 16)
    assert (images.image_mean, images.image_std) == ((0.5, 0.4, 0.3), (0.3, 0.2, 0.1))
    _, images = from_peer(PEERS / "timm")
    # timm resizes to the size over crop_pct, 0.9, rounded down.
    assert (images.size["shortest_edge"], images.crop_size["height"], images.resample) == (17, 16, 3)


@pytest.mark.parametrize(("name", "side"), [("open_clip", 16), ("timm", 17)])
def test_images_are_squashed_where_the_checkpoint_says_so(name: str, side: int, tmp_path: Path) -> None:
    folder = shutil.copytree(PEERS / name, tmp_path / name)
    path = next(folder.glob("*.json"))
    told = json.loads(path.read_text())
    changes = {"preprocess_cfg": {"resize_mode": "squash"}, "pretrained_cfg": {"crop_mode": "squash"}}
    for part, values in changes.items():
        told.setdefault(part, {}).update(values)
    path.write_text(json.dumps(told))
    model, images = from_peer(folder)
    picture = Image.radial_gradient("L").convert("RGB").resize((20, 31))
    squashed = picture.resize((side, side), Image.Resampling.BICUBIC).crop((0, 0, 16, 16))
    expected = (
        torch.tensor(np.array(squashed)).movedim(2, 0) / 255 - torch.tensor(images.image_mean)[:, None, None]
    ) / (torch.tensor(images.image_std)[:, None, None])
    assert torch.allclose(images(picture, return_tensors="pt")["pixel_values"][0], expected, atol=1e-6)
    (tmp_path / "back").mkdir()
    to_peer(model, tmp_path / "back", images)
    assert from_peer(tmp_path / "back")[1].to_dict() == images.to_dict()


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("open_clip", {"vision_config.hidden_size": 48, "text_config.hidden_size": 24, "projection_dim": 16}),
        ("timm", {"hidden_size": 36, "num_hidden_layers": 3}),
    ],
)
def test_a_grown_model_goes_back_with_its_function(name: str, sizes: dict[str, int], tmp_path: Path) -> None:
    model, images = from_peer(PEERS / name)
    grown = grow(model, larger_config(model.config, sizes))
    inputs = load_file(PEERS / name / "expected.safetensors")
    to_peer(grown, tmp_path, images)
    found, expected = outputs(from_peer(tmp_path)[0], inputs), outputs(grown, inputs)
    assert all(torch.allclose(found[kind], expected[kind], atol=SAME) for kind in expected)


def test_a_vit_of_another_epsilon_is_scaled_for_timm(tmp_path: Path) -> None:
    config = ViTForImageClassification.config_class(**PIXELS, num_labels=3, layer_norm_eps=1e-2)
    model = ViTForImageClassification(config).eval()
    inputs = {"pixel_values": 0.01 * torch.randn(2, 3, 16, 16)}
    to_peer(model, tmp_path)
    again, _ = from_peer(tmp_path)
    assert again.config.layer_norm_eps == 1e-6
    assert torch.allclose(again(**inputs).logits, model(**inputs).logits, atol=SAME)
    # What the scale is for.
    model.config.layer_norm_eps = 1e-6
    other = ViTForImageClassification(model.config).eval()
    other.load_state_dict(model.state_dict())
    assert not torch.allclose(other(**inputs).logits, again(**inputs).logits, atol=1e-2)


Change = Callable[[dict[str, Any]], Any]


def with_args(**changes: Any) -> Change:
    return lambda told: told["model_args"].update(changes)


def with_part(part: str, **changes: Any) -> Change:
    return lambda told: told["model_cfg"][part].update(changes)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "open_clip",
            with_part("vision_cfg", timm_model_name="vit_base"),
            "vision_cfg.timm_model_name='vit_base' has no",
        ),
        ("open_clip", with_part("vision_cfg", layers=[3, 4, 6, 3]), r"vision_cfg.layers=\[3, 4, 6, 3\] is a ResNet"),
        ("open_clip", with_part("vision_cfg", pool_type="avg"), "vision_cfg.pool_type='avg' .* only 'tok' has one"),
        ("open_clip", with_part("vision_cfg", ls_init_value=0.1), "vision_cfg.ls_init_value=0.1 has no counterpart"),
        ("open_clip", with_part("vision_cfg", image_size=[16, 24]), "vision_cfg.image_size=.* only squares"),
        ("open_clip", with_part("vision_cfg", depths=3), "vision_cfg.depths=3 has no counterpart in CLIPModel"),
        (
            "open_clip",
            with_part("vision_cfg", width=32),
            "visual.class_embedding of .* has shape .* do not belong together",
        ),
        ("open_clip", with_part("text_cfg", layers=3), "lacks transformer.resblocks.2"),
        ("open_clip", with_part("text_cfg", layers=1), "holds transformer.resblocks.1.* no counterpart in CLIPModel"),
        ("open_clip", with_part("text_cfg", width="wide"), "open_clip_config.json of .* cannot be read"),
        ("open_clip", with_part("text_cfg", hf_model_name="roberta"), "text_cfg.hf_model_name='roberta' has no count"),
        ("open_clip", lambda told: told["model_cfg"].update(custom_text=True), "custom_text=True has no counterpart"),
        (
            "open_clip",
            lambda told: told["preprocess_cfg"].update(resize_mode="longest"),
            "resize_mode='longest' has no",
        ),
        ("timm", with_args(reg_tokens=4), "reg_tokens=4 has no counterpart in ViTForImageClassification: only 0"),
        ("timm", with_args(global_pool="avg"), "global_pool='avg' has no counterpart .* only 'token'"),
        ("timm", with_args(class_token=False), "class_token=False has no counterpart"),
        ("timm", with_args(init_values=1e-5), "init_values=1e-05 has no counterpart"),
        ("timm", with_args(act_layer="silu"), "act_layer='silu' has no counterpart"),
        ("timm", with_args(num_classes=6), "head.weight of .* has shape .* do not belong together"),
        (
            "timm",
            lambda told: told.update(architecture="vit_base_patch16_clip_224"),
            "architecture 'vit_base_patch16_cl",
        ),
        ("timm", lambda told: told.update(architecture="resnet50"), "architecture 'resnet50' has no counterpart"),
        (
            "timm",
            lambda told: told.update(model_args=[]) or told.update(model_args=[1]),
            "model_args=.* no JSON object",
        ),
    ],
)
def test_what_has_no_counterpart_is_named(name: str, change: Change, said: str, tmp_path: Path) -> None:
    folder = shutil.copytree(PEERS / name, tmp_path / name)
    path = next(folder.glob("*.json"))
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises(HfChainError, match=said) as raised:
        from_peer(folder)
    assert "\n" not in str(raised.value)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    folder = shutil.copytree(PEERS / "timm", tmp_path / "timm")
    weights = load_file(folder / "model.safetensors")
    weights["norm.weight"][0] = torch.nan
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(HfChainError, match=r"vit\.layernorm\.weight"):
        from_peer(folder)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(HfChainError, match=r"model\.safetensors cannot be read"):
        from_peer(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(HfChainError, match=r"holds no model\.safetensors, and pickles are not read"):
        from_peer(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(HfChainError, match=r"config\.json cannot be read"):
        from_peer(folder)


def test_stock_models_without_a_counterpart_are_named(tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="the model is a LlamaForCausalLM: only CLIPModel and ViTForImageClassific"):
        to_peer(ROWS["llama"].trained_like(), tmp_path)
    with pytest.raises(HfChainError, match="is a CLIPVisionModel: only"):
        to_peer(CLIPVisionModel(CLIPVisionModel.config_class(**PIXELS)), tmp_path)
    clip = ROWS["clip"].trained_like()
    clip.config.text_config.hidden_act = "silu"
    with pytest.raises(HfChainError, match="text_config.hidden_act='silu' has no counterpart in open_clip"):
        to_peer(clip, tmp_path)
    assert list(tmp_path.iterdir()) == []
