"""An exported Llava is trained and cast as the model it was made of."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoProcessor, LlavaForConditionalGeneration
from transformers.utils import logging

from hf_chain.grafting.export_llava import export_llava
from support.grafted_parts import TOWERS, photos, tiny_parts

LEARNING_RATE, LORA_RATE = 2e-5, 2e-4
PROMPTS = ["<image> what is this", "a goldfish <image> is a goldfish"]


class Pair(NamedTuple):
    """A model and its export, and the same batch for both, with labels on the words."""

    native: Any
    llava: Any
    native_batch: dict[str, torch.Tensor]
    llava_batch: dict[str, torch.Tensor]


def pair(folder: Path, *, serving: bool = False, **options: Any) -> Pair:
    native, processor = tiny_parts(**options)
    export_llava(native, processor, folder, serving=serving)
    llava, stock = LlavaForConditionalGeneration.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    words = len(processor.tokenizer) - 1  # the image token is the last one of ours
    around = [prompt.replace("<image>", "<image_start><image><image_end>") for prompt in PROMPTS]
    batches = []
    for maker, prompts in ((processor, PROMPTS), (stock, around)):
        batch = dict(maker(text=prompts, images=photos(2), padding=True, return_tensors="pt"))
        ids = batch["input_ids"]
        batch["labels"] = ids.masked_fill((ids >= words) | (batch["attention_mask"] == 0), -100)
        batches.append(batch)
    return Pair(native, llava, *batches)


@torch.no_grad()
def image_embeddings(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Of the patches and class tokens, float32 [N, T, D]."""
    model = model.eval()
    inner = getattr(model, "base_model", model)
    inner = getattr(inner, "model", inner)
    found = torch.stack(list(inner.get_image_features(pixels.to(model.dtype)).pooler_output)).float()
    return found[:, 1:-1] if hasattr(inner, "image_start") else found


def moved(model: Any, batch: dict[str, torch.Tensor], rate: float) -> float:
    """How far one step of AdamW moves the embeddings of the images, beside their size."""
    before = image_embeddings(model, batch["pixel_values"])
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=rate)
    loss = model.train()(**batch).loss
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        assert model.eval()(**batch).loss < loss
    return float((image_embeddings(model, batch["pixel_values"]) - before).norm() / before.norm())


def with_lora(model: Any) -> Any:
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))


@pytest.mark.parametrize("tower", TOWERS)
def test_one_step_moves_the_export_as_far_as_the_model(tower: str, tmp_path: Path) -> None:
    """Not a million times as far, as beside a gain that drowns the stream. Farther by the stream's size, as any Llava
    that reads hidden states."""
    native, llava, native_batch, llava_batch = pair(tmp_path / "llava", tower=tower)
    expected = moved(native, native_batch, LEARNING_RATE)
    assert 1e-4 < expected < 0.1
    assert 0.5 * expected < moved(llava, llava_batch, LEARNING_RATE) < 6 * expected


@pytest.mark.parametrize("tower", TOWERS)
def test_one_step_of_lora_moves_the_export_as_far_as_the_model(tower: str, tmp_path: Path) -> None:
    native, llava, native_batch, llava_batch = pair(tmp_path / "llava", tower=tower)
    expected = moved(with_lora(native), native_batch, LORA_RATE)
    assert 1e-5 < expected < 0.1
    assert 0.3 * expected < moved(with_lora(llava), llava_batch, LORA_RATE) < 4 * expected


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_export_is_cast_at_no_more_loss_than_the_model(dtype: torch.dtype, tower: str, tmp_path: Path) -> None:
    native, llava, native_batch, llava_batch = pair(tmp_path / "llava", tower=tower)
    pixels = native_batch["pixel_values"]
    exact = image_embeddings(native, pixels)
    expected = (image_embeddings(copy.deepcopy(native).to(dtype), pixels) - exact).norm()
    assert (image_embeddings(llava.to(dtype), pixels) - exact).norm() < 1.5 * expected
    llava_batch["pixel_values"] = pixels.to(dtype)
    with torch.no_grad():
        assert llava(**llava_batch).logits.isfinite().all()


@torch.no_grad()
def test_a_model_in_float16_is_exported_in_float16(tmp_path: Path) -> None:
    native, llava, native_batch, llava_batch = pair(tmp_path / "llava", dtype=torch.float16)
    assert llava.dtype == torch.float16
    expected, found = native(**native_batch).loss, llava(**llava_batch).loss
    assert float(found) == pytest.approx(float(expected), rel=2e-3)


@torch.no_grad()
def test_a_large_stream_is_matched_by_a_large_gain(tmp_path: Path) -> None:
    """What the norm adds is not lost in the rounding of a stream a hundred times its size."""
    native, processor = tiny_parts()
    for layer in native.vision_tower.encoder.layers:
        layer.mlp.fc2.weight *= 300
    export_llava(native, processor, tmp_path / "llava")
    llava = LlavaForConditionalGeneration.from_pretrained(tmp_path / "llava")
    pixels = processor.image_processor(photos(2), return_tensors="pt")["pixel_values"]
    exact = image_embeddings(native, pixels)
    torch.testing.assert_close(image_embeddings(llava, pixels), exact, rtol=0, atol=1e-5)
    rough = image_embeddings(native.to(torch.float16), pixels)
    assert (image_embeddings(llava.to(torch.float16), pixels) - exact).norm() < 2 * (rough - exact).norm()


@torch.no_grad()
def test_an_export_for_serving_reads_one_hidden_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As engines other than transformers do; it says that it is not to be trained."""
    logging.enable_propagation()
    try:
        native, llava, native_batch, llava_batch = pair(tmp_path / "llava", serving=True)
    finally:
        logging.disable_propagation()
    assert "is for inference in float32 and bfloat16 alone: training or float16 ruins it" in caplog.text
    assert llava.config.vision_feature_layer == -1
    assert float(llava(**llava_batch).loss) == pytest.approx(float(native(**native_batch).loss), rel=1e-6)


def test_without_a_norm_both_exports_are_one(tmp_path: Path) -> None:
    written = []
    for serving in (False, True):
        _, llava, *_ = pair(tmp_path / str(serving), serving=serving, post_layernorm=False)
        assert llava.config.vision_feature_layer == -1
        written.append((tmp_path / str(serving) / "model.safetensors").read_bytes())
    assert written[0] == written[1]
