"""Dual encoders of any two towers in a chain: every weight, stock folder, teacher, accumulation, resuming, cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, VisionTextDualEncoderModel

from hf_chain.cost import dual_encoder_macs
from hf_chain.errors import HfChainError
from hf_chain.growth import grow
from support.classifiers import logs
from support.pairs import CONTEXT, IMAGE, RandomPairs, collate, tiny_clip
from support.trainer_kinds import changed, weights
from support.vision_text import trainer, two_towers

TEXTS = ("clip_text_model", "bert")
"""A text tower that grows, and one that stays."""


def grown(small: VisionTextDualEncoderModel, **sizes: Any) -> VisionTextDualEncoderModel:
    """Of the same kinds of towers, with a wider and deeper image tower."""
    kinds = {"vision": small.config.vision_config.model_type, "text": small.config.text_config.model_type}
    model = grow(small, two_towers(**{"width": 32, "layers": 2} | kinds | sizes).config)
    assert isinstance(model, VisionTextDualEncoderModel)
    return model


def test_the_loss_is_the_stock_models_at_captions_that_are_padded(tmp_path: Path) -> None:
    model, pairs = two_towers(text="bert"), RandomPairs(8, 1)
    given = collate([pairs[row] for row in range(8)])
    given["attention_mask"][..., 5:] = 0
    stock = model(
        given["input_ids"][:, 0], given["pixel_values"], attention_mask=given["attention_mask"][:, 0], return_loss=True
    )
    trained = trainer(tmp_path, model)
    assert trained.compute_loss(trained.model, given).item() == pytest.approx(stock.loss.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("vision", "text"),
    [("vit", "clip_text_model"), ("swin", "bert"), ("siglip_vision_model", "clip_text_model"), ("dinov2", "roberta")],
)
def test_every_weight_is_trained_and_saved_as_the_stock_class(vision: str, text: str, tmp_path: Path) -> None:
    small = two_towers(vision=vision, text=text)
    model = grown(small)
    before, taught = weights(model), weights(small)
    trained = trainer(tmp_path, model, small, max_steps=2)
    trained.train()
    # A key bias changes no softmax; nothing hides patches, and texts are of one kind.
    idle = {name for name in before if name.endswith(("k_proj.bias", "key.bias", "mask_token"))}
    idle |= {name for name in before if name.endswith("attention_bias") or "token_type" in name}
    assert before.keys() - changed(model, before) <= idle and not changed(small, taught)
    trained.save_model(str(tmp_path / "end"))
    saved, report = VisionTextDualEncoderModel.from_pretrained(tmp_path / "end", output_loading_info=True)
    assert not any(report.values()) and not changed(model, weights(saved))
    assert type(AutoModel.from_pretrained(tmp_path / "end")) is VisionTextDualEncoderModel


@pytest.mark.parametrize("text", TEXTS)
def test_a_grown_model_begins_at_its_teachers_embeddings(text: str, tmp_path: Path) -> None:
    small = two_towers(text=text)
    trained = trainer(tmp_path, grown(small), small, learning_rate=1e-12)
    trained.train()
    assert max(logs(trained, "feature_loss")) < 1e-6 < min(logs(trained, "contrastive_loss"))


def test_accumulated_batches_train_as_a_large_one(tmp_path: Path) -> None:
    small = two_towers()
    whole, parts = (trainer(tmp_path, grown(small), small, micro_batch_size=size) for size in (None, 2))
    for each in (whole, parts):
        each.train()
    for name in ("loss", "contrastive_loss", "feature_loss", "grad_norm", "logit_scale"):
        assert logs(parts, name) == pytest.approx(logs(whole, name), rel=1e-3), name


def test_activations_that_are_computed_again_train_alike(tmp_path: Path) -> None:
    small = two_towers(text="bert")
    whole, again = (trainer(tmp_path, grown(small), small, gradient_checkpointing=given) for given in (False, True))
    for each in (whole, again):
        each.train()
    assert again.model.is_gradient_checkpointing and logs(again, "loss") == pytest.approx(logs(whole, "loss"))


@pytest.mark.parametrize(("vision", "text"), [("vit", "clip_text_model"), ("swin", "bert")])
def test_a_resumed_training_is_the_uninterrupted_one(vision: str, text: str, tmp_path: Path) -> None:
    small, settings = two_towers(vision=vision, text=text), {"save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path, grown(small), small, **settings)
    whole.train()
    resumed = trainer(tmp_path, grown(small, layers=2), small, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert logs(resumed, "loss") == logs(whole, "loss")
    assert changed(resumed.model, weights(whole.model)) == set()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("vision", ["vit", "deit", "dinov2", "clip_vision_model", "siglip_vision_model", "swin"])
def test_cost_is_what_torch_counts(vision: str, text: str) -> None:
    model = two_towers(vision=vision, text=text).eval()
    model.set_attn_implementation("eager")
    for tokens in (CONTEXT, CONTEXT - 3):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.get_text_features(torch.zeros(1, tokens, dtype=torch.long))
        assert counter.get_total_flops() == 2 * dual_encoder_macs(model.config, tokens).text
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.get_image_features(torch.zeros(1, 3, IMAGE, IMAGE))
    assert counter.get_total_flops() == 2 * dual_encoder_macs(model.config).image


def test_a_step_costs_the_tokens_that_its_collator_pads_to(tmp_path: Path) -> None:
    model, small = two_towers(24, 2, text="bert"), two_towers(text="bert")
    trained = trainer(tmp_path, model, small)
    for tokens in (None, CONTEXT - 3):
        trained.task.text_tokens = tokens
        student, taught = (dual_encoder_macs(each.config, tokens).per_sample(2) for each in (model, small))
        assert trained.step_cost(4).total_macs(4) == 4 * 8 * (3 * student + taught)


def test_what_does_not_fit_is_refused_in_a_line(tmp_path: Path) -> None:
    def refused(words: str, model: Any = None, teacher: Any = None, **settings: Any) -> None:
        with pytest.raises(HfChainError, match=words) as error:
            trainer(tmp_path, model, teacher, **settings)
        assert "\n" not in str(error.value)

    refused("the model to train is a VisionTextDualEncoderModel: task sigmoid trains a SiglipModel", task="sigmoid")
    refused("the teacher is a ViTModel: give a VisionTextDualEncoderModel", None, two_towers().vision_model)
    refused("image_token_keep is 0.5, and a VisionTextDualEncoderModel reads all", image_token_keep=0.5)
    refused("the teacher has vocab_size=30", None, _with_vocabulary(30))


def _with_vocabulary(size: int) -> VisionTextDualEncoderModel:
    model = two_towers()
    model.config.text_config.vocab_size = size
    return model


def test_a_clip_may_teach_one(tmp_path: Path) -> None:
    trained = trainer(tmp_path, two_towers(), tiny_clip())
    before = weights(trained.model)
    trained.train()
    assert changed(trained.model, before) and min(logs(trained, "feature_loss")) > 0
