"""A grafted model spread over memory and disk, or with FlashAttention, answers as the whole one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.utils import is_flash_attn_2_available

from hf_chain.models import GraftedVLMForConditionalGeneration
from support.grafted_parts import processed, tiny_parts
from support.reference_flash import reference_flash  # noqa: F401

PROMPTS = ["what is this <image>", "<image> is <image> a goldfish", "what is a goldfish"]
FLASH = torch.cuda.is_available() and is_flash_attn_2_available()

LAYERS = 3
APART = {"vision_tower": "cpu", "adapter": "disk", "image_start": "cpu", "image_end": "cpu"}
APART |= {"language_model.lm_head": "disk", "language_model.model.embed_tokens": "cpu"}
APART |= {"language_model.model.norm": "disk", "language_model.model.rotary_emb": "cpu"}
APART |= {f"language_model.model.layers.{layer}": "disk" if layer % 2 else "cpu" for layer in range(LAYERS)}
SPREAD: dict[str, dict[str, Any]] = {
    "parts apart": {"device_map": APART},
    "all on disk": {"device_map": {"": "disk"}},
    "auto": {"device_map": "auto", "max_memory": {"cpu": 60_000}},
}


@pytest.mark.parametrize("spread", SPREAD)
@torch.no_grad()
def test_a_model_spread_over_memory_and_disk_answers_as_the_whole_one(spread: str, tmp_path: Path) -> None:
    made, processor = tiny_parts(decoder_fields={"num_hidden_layers": LAYERS})
    made.save_pretrained(tmp_path / "model")
    whole = GraftedVLMForConditionalGeneration.from_pretrained(tmp_path / "model")
    apart = GraftedVLMForConditionalGeneration.from_pretrained(
        tmp_path / "model", offload_folder=tmp_path / "offload", **SPREAD[spread]
    )
    places = set(apart.hf_device_map.values())
    assert "disk" in places and any(weight.is_meta for weight in apart.parameters())
    assert places == {"disk"} if spread == "all on disk" else places == {"cpu", "disk"}
    inputs = processed(processor, PROMPTS, padding_side="left")
    torch.testing.assert_close(apart(**inputs).logits, whole(**inputs).logits)
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert torch.equal(apart.generate(**inputs, **options), whole.generate(**inputs, **options))


@pytest.mark.parametrize("decoder", ["llama", "gemma2", "gemma3", "opt"])
@torch.no_grad()
def test_the_way_to_flash_attention_gives_the_logits_and_tokens_of_sdpa(
    decoder: str,
    reference_flash: list[str],  # noqa: F811
) -> None:
    """Padding on either side, several images, text alone, generation with a cache; the kernel is in plain torch."""
    model, processor = tiny_parts(decoder=decoder, attn_implementation="eager")
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    right, left = (processed(processor, PROMPTS, padding_side=side) for side in ("right", "left"))
    mask = right["attention_mask"].bool()
    logits, tokens = model(**right).logits[mask], model.generate(**left, **options)
    assert not reference_flash
    model.set_attn_implementation("flash_attention_2")
    torch.testing.assert_close(model(**right).logits[mask], logits, rtol=1e-4, atol=1e-4)
    assert set(reference_flash) == {"flash_attn_func", "flash_attn_varlen_func"}, "of the tower and of the decoder"
    assert torch.equal(model.generate(**left, **options), tokens)


@pytest.mark.skipif(not FLASH, reason="needs a GPU and flash-attn")
@torch.no_grad()
def test_flash_attention_agrees_with_sdpa() -> None:
    """Within what bfloat16 itself does to the logits."""
    heads = {"num_attention_heads": 3}  # of 8 channels, the fewest that FlashAttention takes
    model, processor = tiny_parts(tower_fields=heads, attn_implementation="sdpa")
    inputs = {name: value.cuda() for name, value in processed(processor, PROMPTS).items()}
    mask = inputs["attention_mask"].bool()
    model.to("cuda", torch.bfloat16)
    expected = model(**inputs).logits[mask]
    model.set_attn_implementation("flash_attention_2")
    assert model.language_model.config._attn_implementation == "flash_attention_2"
    assert model.vision_tower.config._attn_implementation == "flash_attention_2"
    torch.testing.assert_close(model(**inputs).logits[mask].float(), expected.float(), rtol=0.1, atol=0.2)
