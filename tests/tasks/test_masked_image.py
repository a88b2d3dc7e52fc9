"""ViT-MAE in a chain: the stock loss, masks by row, the teacher's tokens under the same mask, resuming, cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, ViTMAEForPreTraining, ViTMAEModel, default_data_collator

from hf_chain.cost import masked_image_macs
from hf_chain.errors import HfChainError
from hf_chain.models.chain_mae import mask_noise
from support.classifiers import logs, masked_model, rows, trainer
from support.trainer_kinds import changed, weights

WIDER = {"hidden_size": 36, "num_attention_heads": 6}


def test_every_trainable_weight_is_trained_and_the_folder_is_stock(tmp_path: Path) -> None:
    model, teacher = masked_model(**WIDER), masked_model(seed=1)
    trained = trainer(tmp_path, model, teacher, max_steps=2)
    before, taught = weights(trained.model), weights(teacher)
    trainable = {name for name, weight in trained.model.named_parameters() if weight.requires_grad}
    assert "tokens_to_teacher.weight" in trainable
    trained.train()
    assert trainable - changed(trained.model, before) <= {
        n for n in trainable if n.endswith(("k_proj.bias", "key.bias"))
    }
    assert not changed(teacher, taught)
    trained.save_model(str(tmp_path / "end"))
    saved, report = ViTMAEForPreTraining.from_pretrained(tmp_path / "end", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in saved.state_dict().items())
    assert saved.config.architectures == ["ViTMAEForPreTraining"]
    encoder, report = ViTMAEModel.from_pretrained(tmp_path / "end", output_loading_info=True)
    assert not report["missing_keys"] and isinstance(AutoModel.from_pretrained(tmp_path / "end"), ViTMAEModel)
    assert torch.equal(encoder.layernorm.weight, model.vit.layernorm.weight)


@pytest.mark.parametrize("normed", [False, True])
def test_the_loss_is_the_stock_models_and_the_teacher_sees_the_same_patches(normed: bool, tmp_path: Path) -> None:
    model, teacher = masked_model(norm_pix_loss=normed), masked_model(seed=1)
    trained = trainer(tmp_path, model, teacher)
    batch = default_data_collator(rows(model, 8))
    batch |= trained.task.drawn(trained.model, batch, 3, 4)
    stock = model(pixel_values=batch["pixel_values"], noise=batch["noise"])
    seen = [
        normalize(one.vit(batch["pixel_values"], noise=batch["noise"]).last_hidden_state[:, 1:], dim=-1)
        for one in (model, teacher)
    ]
    distance = 2 * (1 - (seen[0] * seen[1]).sum(-1)).mean()
    trained.model.train()
    found = trained.compute_loss(trained.model, batch)
    assert found.item() == pytest.approx((stock.loss + distance).item(), rel=1e-5)


def test_masks_are_of_seed_step_and_row() -> None:
    rows_of = {tuple(noise) for noise in mask_noise([3, 4], 16, seed=1, step=2).tolist()}
    assert (
        rows_of == {tuple(mask_noise([row], 16, seed=1, step=2)[0].tolist()) for row in (4, 3)} and len(rows_of) == 2
    )
    same = mask_noise([3], 16, seed=1, step=2)
    assert not any(torch.equal(same, mask_noise([3], 16, *other)) for other in ((1, 3), (2, 2)))


def test_accumulated_batches_train_as_a_large_one(tmp_path: Path) -> None:
    whole = trainer(tmp_path, masked_model(**WIDER), masked_model(seed=1))
    parts = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "micro_batch_size": 2}
    small = trainer(tmp_path, masked_model(**WIDER), masked_model(seed=1), **parts)
    for each in (whole, small):
        each.train()
    for name in ("loss", "masked_image_loss", "feature_loss", "grad_norm", "macs"):
        assert logs(small, name) == pytest.approx(logs(whole, name), rel=1e-3), name


def test_a_resumed_training_is_the_uninterrupted_one_with_its_map(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole, resumed = (trainer(tmp_path, masked_model(s, **WIDER), masked_model(1), **settings) for s in (0, 2))
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert logs(resumed, "loss") == logs(whole, "loss")
    assert changed(resumed.model, weights(whole.model)) == set()
    (tmp_path / "checkpoint-2" / "teacher_maps.safetensors").unlink()
    with pytest.raises(HfChainError, match="does not hold the model's map to its teacher"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_an_evaluation_hides_the_same_every_time(tmp_path: Path) -> None:
    trained = trainer(tmp_path, masked_model())
    assert trained.evaluate()["eval_loss"] == trained.evaluate()["eval_loss"]


def test_cost_is_what_torch_counts(tmp_path: Path) -> None:
    # The decoder has a configuration of its own, in which nothing can be set afterwards.
    model = masked_model(decoder_hidden_size=16, decoder_num_attention_heads=2, _attn_implementation="eager")
    side = model.config.image_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, side, side))
    encoder, decoder = masked_image_macs(model.config)
    assert counter.get_total_flops() == pytest.approx(2 * (encoder + decoder), rel=0.02)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.vit(torch.zeros(1, 3, side, side))
    assert counter.get_total_flops() == pytest.approx(2 * encoder, rel=0.02)
    cost = trainer(tmp_path, model, masked_model()).step_cost(4)
    assert cost.total_macs(4) == 4 * 8 * (3 * (encoder + decoder) + encoder)


def test_what_does_not_fit_is_refused_in_a_line(tmp_path: Path) -> None:
    def refused(words: str, model: object, teacher: object = None) -> None:
        with pytest.raises(HfChainError, match=words) as error:
            trainer(tmp_path, model, teacher, task="masked_image")
        assert "\n" not in str(error.value)

    refused("the model to train is a ViTMAEModel: give a ViTMAEForPreTraining", masked_model().vit)
    refused("the teacher has mask_ratio=0.5 and the model", masked_model(), masked_model(mask_ratio=0.5))
    refused("the teacher is a ViTMAEModel: give", masked_model(), masked_model().vit)
