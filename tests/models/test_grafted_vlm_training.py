"""Which weights learn: through a frozen decoder, with checkpointed activations, and from text alone."""

from __future__ import annotations

import pytest
import torch

from hf_chain.models import GraftedVLMForConditionalGeneration
from support.grafted_parts import NAFLEX, TOWERS, processed, tiny_parts

PROMPTS = ["what is this <image>", "<image> is <image> a goldfish", "what is a goldfish"]
PARTS = {
    "adapter": ("adapter.",),
    "image start and end": ("image_start", "image_end"),
    "encoder tail": ("vision_tower.encoder.layers.2.", "vision_tower.post_layernorm."),
    "decoder": ("language_model.",),
}


def labelled(inputs: dict[str, torch.Tensor], image_token: int) -> dict[str, torch.Tensor]:
    """With the loss on every token that is not an image's or padding."""
    ignored = (inputs["input_ids"] == image_token) | (inputs["attention_mask"] == 0)
    return inputs | {"labels": inputs["input_ids"].masked_fill(ignored, -100)}


def gradients(model: GraftedVLMForConditionalGeneration, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**inputs).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("part", PARTS)
def test_the_trainable_part_learns_and_nothing_else_does(part: str) -> None:
    model, processor = tiny_parts()
    model.train()
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith(PARTS[part]))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    model(**labelled(processed(processor, PROMPTS), model.config.image_token_id)).loss.backward()
    optimizer.step()
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    trainable = {name for name, weight in model.named_parameters() if weight.requires_grad}
    # A bias on the keys shifts all scores of a query alike, which attention does not notice.
    assert changed | {name for name in trainable if name.endswith("k_proj.bias")} == trainable


@pytest.mark.parametrize(("tower", "layers"), [*((tower, 2) for tower in (*TOWERS, NAFLEX)), ("vit", 1), ("vit", 3)])
def test_no_weight_is_without_a_gradient(tower: str, layers: int) -> None:
    """Distributed training waits for it for ever."""
    model, processor = tiny_parts(tower, adapter_layers=layers)
    inputs = labelled(processed(processor, PROMPTS[:1]), model.config.image_token_id)
    assert gradients(model, inputs).keys() == dict(model.named_parameters()).keys()


def test_checkpointed_activations_give_the_same_gradients() -> None:
    model, processor = tiny_parts()
    inputs = labelled(processed(processor, PROMPTS), model.config.image_token_id)
    model.train()
    model.language_model.requires_grad_(False)
    plain = gradients(model, inputs)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert {name for name, module in model.named_modules() if getattr(module, "gradient_checkpointing", False)}
    checkpointed = gradients(model, inputs)
    assert plain.keys() == checkpointed.keys() == {n for n, w in model.named_parameters() if w.requires_grad}
    assert all(grad.any() for grad in plain.values())
    torch.testing.assert_close(checkpointed, plain)


@pytest.mark.parametrize("tower", ["clip_vision_model", NAFLEX])
def test_text_alone_reaches_every_weight_and_moves_only_the_decoder(tower: str) -> None:
    model, processor = tiny_parts(tower)
    inputs = labelled(dict(processor(text=PROMPTS[2], return_tensors="pt")), model.config.image_token_id)
    model.train()
    grads = gradients(model, inputs)
    assert grads.keys() == dict(model.named_parameters()).keys()
    image_half = {name for name in grads if not name.startswith("language_model.")}
    assert not any(grads[name].any() for name in image_half)
    decoder = model.language_model
    decoder.zero_grad()
    decoder(**inputs).loss.backward()
    for name, weight in decoder.named_parameters():
        torch.testing.assert_close(grads[f"language_model.{name}"], weight.grad)


def test_text_alone_costs_no_images_outside_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_parts()
    inputs = processor(text=PROMPTS[2], return_tensors="pt")
    monkeypatch.setattr(model.vision_tower, "forward", lambda *_, **__: pytest.fail("the vision tower ran"))
    with torch.no_grad():
        model(**inputs)
    model.train()
    model.vision_tower.requires_grad_(False)
    model.adapter.requires_grad_(False)
    model.image_start.requires_grad_(False)
    model.image_end.requires_grad_(False)
    model(**inputs)


def test_the_loss_is_the_mean_over_the_tokens_that_are_counted() -> None:
    model, processor = tiny_parts()
    inputs = labelled(processed(processor, PROMPTS), model.config.image_token_id)
    counted = int((inputs["labels"][:, 1:] != -100).sum())
    whole = model(**inputs).loss
    torch.testing.assert_close(model(**inputs, num_items_in_batch=2 * counted).loss, whole / 2)


def test_new_weights_start_as_in_the_paper() -> None:
    torch.manual_seed(0)
    model, _ = tiny_parts(decoder_fields={"hidden_size": 1024, "num_hidden_layers": 1, "head_dim": 8})
    for edge in (model.image_start, model.image_end):
        assert edge.norm().item() == pytest.approx(1, abs=0.1)
    assert not torch.equal(model.image_start, model.image_end)
    for layer in model.adapter.linears:
        assert layer.weight.std().item() == pytest.approx((3 * layer.in_features) ** -0.5, rel=0.1)
