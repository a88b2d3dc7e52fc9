"""SigLIPs in a chain: the loss of the stock class, a teacher's embeddings, accumulation, resuming, cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, SiglipModel

from hf_chain.cost import dual_encoder_macs
from hf_chain.errors import HfChainError
from hf_chain.growth import grow
from support.classifiers import logs
from support.pairs import CONTEXT, IMAGE, VOCABULARY, RandomPairs, collate, tiny_clip
from support.siglips import siglip, trainer
from support.trainer_kinds import changed, weights


def batch(rows: int = 8, captions: int = 1) -> dict[str, torch.Tensor]:
    pairs = RandomPairs(rows, captions)
    return collate([pairs[row] for row in range(rows)])


def grown(small: SiglipModel) -> SiglipModel:
    return grow(small, siglip(24, 2).config)


def test_the_loss_is_the_stock_models_and_reads_padding(tmp_path: Path) -> None:
    model, given = siglip(), batch()
    stock = model(given["input_ids"][:, 0], given["pixel_values"], return_loss=True)
    given["attention_mask"][..., 3:] = 0
    trained = trainer(tmp_path, model)
    assert trained.compute_loss(trained.model, given).item() == pytest.approx(stock.loss.item(), rel=1e-5)


@pytest.mark.parametrize("task", ["sigmoid", "contrastive"])
def test_every_weight_is_trained_and_saved_as_the_stock_class(task: str, tmp_path: Path) -> None:
    small = siglip()
    model = grown(small)
    before, taught = weights(model), weights(small)
    trained = trainer(tmp_path, model, small, task=task, max_steps=2)
    trained.train()
    idle = {name for name in before if name.endswith("k_proj.bias")}
    # A bias of all logits changes no softmax, and engines expect a gradient of all that is trained.
    idle |= {"logit_bias"} if task == "contrastive" else set()
    assert model.logit_bias.requires_grad is (task == "sigmoid")
    assert before.keys() - changed(model, before) <= idle and not changed(small, taught)
    trained.save_model(str(tmp_path / "end"))
    saved, report = AutoModel.from_pretrained(tmp_path / "end", output_loading_info=True)
    assert type(saved) is SiglipModel and not any(report.values())
    assert not changed(model, weights(saved))


def test_a_grown_model_begins_at_its_teachers_embeddings(tmp_path: Path) -> None:
    """Growth turns SigLIP's embeddings, and the maps to the teacher turn them back."""
    small = siglip()
    trained = trainer(tmp_path, grown(small), small, learning_rate=1e-12)
    trained.train()
    assert max(logs(trained, "feature_loss")) < 1e-6 < min(logs(trained, "sigmoid_loss"))


def test_accumulated_batches_train_as_a_large_one(tmp_path: Path) -> None:
    small = siglip()
    whole, parts = (trainer(tmp_path, grown(small), small, micro_batch_size=size) for size in (None, 2))
    for each in (whole, parts):
        each.train()
    for name in ("loss", "sigmoid_loss", "feature_loss", "grad_norm", "logit_bias", "logit_scale"):
        assert logs(parts, name) == pytest.approx(logs(whole, name), rel=1e-3), name


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path: Path) -> None:
    small, settings = siglip(), {"save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path, grown(small), small, **settings)
    whole.train()
    resumed = trainer(tmp_path, grown(siglip(seed=3)), small, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert logs(resumed, "loss") == logs(whole, "loss")
    assert changed(resumed.model, weights(whole.model)) == set()


def test_cost_is_what_torch_counts(tmp_path: Path) -> None:
    model = siglip(24, 2)
    model.set_attn_implementation("eager")
    macs = dual_encoder_macs(model.config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.get_image_features(torch.zeros(1, 3, IMAGE, IMAGE))
    assert counter.get_total_flops() == 2 * macs.image
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.get_text_features(torch.zeros(1, CONTEXT, dtype=torch.long))
    assert counter.get_total_flops() == 2 * macs.text
    student, taught = macs.per_sample(2), dual_encoder_macs(siglip().config).per_sample(2)
    assert trainer(tmp_path, model, siglip()).step_cost(4).total_macs(4) == 4 * 8 * (3 * student + taught)


def test_what_does_not_fit_is_refused_in_a_line(tmp_path: Path) -> None:
    def refused(words: str, model: Any = None, teacher: Any = None, **settings: Any) -> None:
        with pytest.raises(HfChainError, match=words) as error:
            trainer(tmp_path, model, teacher, **settings)
        assert "\n" not in str(error.value)

    refused("the model to train is a CLIPModel: task sigmoid trains a SiglipModel", tiny_clip())
    refused("the teacher is a SiglipVisionModel: give a SiglipModel", None, siglip().vision_model)
    refused("image_token_keep is 0.5, and a SigLIP reads all patches", image_token_keep=0.5)
    refused("image_token_keep is 0.5, and a SiglipModel reads all", task="contrastive", image_token_keep=0.5)
    fewer = siglip()
    fewer.config.text_config.vocab_size = VOCABULARY - 1
    refused(f"the teacher has vocab_size={VOCABULARY - 1}", None, fewer)
