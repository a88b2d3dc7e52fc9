"""Fine-tuning: every trainable weight moves, classes are learnt, and a killed one goes on to the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from hf_chain.evaluation import Evaluation
from hf_chain.evaluation.image_features import image_tower
from hf_chain.transfer import fine_tune
from hf_chain.transfer.fine_tune import TowerClassifier, evaluate_fine_tuned
from hf_chain.transfer.model import load_vision_model
from hf_chain.transfer.rows import load_set
from hf_chain.transfer.settings import TransferSet
from support.families import ROWS
from support.stops import interrupt


def tuned(vit: Path, shades: Path, epochs: int = 2) -> tuple[dict[str, torch.Tensor], Evaluation]:
    """Weights of a fine-tuned tower, and what they reach."""
    short = {"epochs": epochs, "batch_size": 10, "learning_rate": 1e-2}
    data = load_set(TransferSet(name="shades", source=str(shades), kind="fine_tune", fine_tune=short))
    model, processor = load_vision_model(vit)
    found = evaluate_fine_tuned(model, processor, data, vit.parent / "out", training={"save_steps": 2})
    return image_tower(model).model.state_dict(), found


def test_all_weights_move_and_the_classes_are_learnt(vit: Path, shades: Path) -> None:
    before = image_tower(load_vision_model(vit)[0]).model.state_dict()
    after, found = tuned(vit, shades, epochs=8)
    assert [name for name, weight in after.items() if torch.equal(weight, before[name])] == []
    assert found.metrics["fine_tune_top1"] > 0.9 and found.chance["fine_tune_top1"] == pytest.approx(1 / 3)
    tower = image_tower(load_vision_model(vit)[0])
    forward = tower.macs + 3 * tower.model.config.hidden_size
    assert found.macs == (24 * 10 * 3 + 15) * forward
    assert not (vit.parent / "out").exists()


def test_a_killed_one_goes_on_to_the_same_weights(vit: Path, shades: Path) -> None:
    whole, _ = tuned(vit, shades)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, fine_tune._FineTuner, step=5)
        tuned(vit, shades)
    (folder,) = (vit.parent / "out").iterdir()
    assert [path.name for path in folder.iterdir()] == ["checkpoint-4"]
    again, _ = tuned(vit, shades)
    assert all(torch.equal(again[name], weight) for name, weight in whole.items())


@pytest.mark.parametrize("kind", ["clip", "siglip", "vit", "vit_mae", "dinov2", "swin", "convnext"])
def test_the_weights_that_a_tower_trains_are_those_that_its_features_depend_on(kind: str) -> None:
    model = getattr(transformers, ROWS[kind].model)(ROWS[kind].config())
    head = TowerClassifier(image_tower(model), 3)
    size = image_tower(model).model.config.image_size
    loss = head(torch.randn(2, 3, size, size), torch.tensor([0, 2]))["loss"]
    loss.backward()
    missing = {name for name, weight in head.named_parameters() if weight.requires_grad and weight.grad is None}
    assert not missing and head.head.weight.grad is not None
    frozen = {name for name, weight in head.named_parameters() if not weight.requires_grad}
    assert all("pooler" in name or "mask_token" in name for name in frozen)
