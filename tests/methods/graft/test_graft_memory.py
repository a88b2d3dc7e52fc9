"""The estimate of a stage's memory against what autograd holds."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from hf_chain.losses import response_loss, response_targets
from hf_chain.methods.graft.plan import Batch, stage_memory
from hf_chain.trainer.parts import freeze_all_but, resolve_parts
from support.grafts import VISION, tiny_vlm

ROWS, LENGTH = 4, 96
TEXT = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
PARTS = [{"adapter": 1e-3}, {"adapter": 1e-3, "decoder": 1e-3}]


def held_by_autograd(model: PreTrainedModel) -> int:
    """Bytes of the tensors that are kept for the backward pass of a batch, weights left out."""
    words = torch.randint(1, 30, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    positions = (VISION["image_size"] // VISION["patch_size"]) ** 2 + 3
    words[:, :positions] = model.config.image_token_id
    batch = {
        "input_ids": words,
        "attention_mask": torch.ones_like(words),
        "labels": words.masked_fill(words > 30, -100),
    }
    pixels = torch.randn(ROWS, 3, VISION["image_size"], VISION["image_size"])
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(
            pixel_values=pixels, use_cache=False, **{k: v for k, v in batch.items() if k != "labels"}
        ).logits
        response_loss(logits, *response_targets(batch))
    return sum(kept.values())


@pytest.mark.parametrize("parts", PARTS, ids=["adapter", "decoder"])
def test_activations_are_what_autograd_holds(parts: dict[str, float]) -> None:
    model = tiny_vlm(text=TEXT)
    model.language_model.set_attn_implementation("sdpa")
    freeze_all_but(model, resolve_parts(model, parts, 1e-3))
    estimate = stage_memory(model, Batch(ROWS, LENGTH, ROWS), {"bf16": False}, weight_bytes=4)
    # The estimate also has the gradient of the logits, which comes with the backward pass.
    logits = ROWS * LENGTH * TEXT["vocab_size"] * 4
    assert estimate.activations - logits == pytest.approx(held_by_autograd(model), rel=0.25)


def test_trained_weights_are_float32_and_have_gradients_and_moments() -> None:
    model = tiny_vlm()
    (part,) = resolve_parts(model, {"decoder": 1e-3}, 1e-3)
    freeze_all_but(model, [part])
    trained, total = sum(p.numel() for p in part.parameters.values()), model.num_parameters()
    estimate = stage_memory(model, Batch(2, 32, 2), {"bf16": True}, weight_bytes=2)
    assert (estimate.gradients, estimate.optimizer) == (4 * trained, 8 * trained)
    assert 2 * (total - trained) + 4 * trained < estimate.parameters < 2 * total + 4 * trained
    freeze_all_but(model, [])
    grafted = stage_memory(model, Batch(1, 1, 0), {}, weight_bytes=2)
    assert grafted.total == grafted.parameters == 2 * total


def test_checkpointing_holds_less() -> None:
    model = tiny_vlm(text=TEXT)
    freeze_all_but(model, resolve_parts(model, {"decoder": 1e-3}, 1e-3))
    whole, less = (
        stage_memory(model, Batch(ROWS, LENGTH, ROWS), {"gradient_checkpointing": on}, 4) for on in (False, True)
    )
    assert less.activations < 0.6 * whole.activations and less.gradients == whole.gradients
