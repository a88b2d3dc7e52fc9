"""The grafted model: any tower, any decoder, images and text in one batch, and a folder that keeps it all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import hf_chain  # noqa: F401 - registers the model with the Auto classes
from hf_chain.models import GraftedVLMForConditionalGeneration, GraftedVLMProcessor
from support.decoders import DECODERS
from support.grafted_parts import TOWERS, photos, tiny_parts

QUESTION, TWO, TEXT = "what is this <image>", "<image> is <image> a goldfish", "what is a goldfish"


def batch(processor: GraftedVLMProcessor, prompts: list[str], **options: Any) -> dict[str, torch.Tensor]:
    images = photos(sum(prompt.count("<image>") for prompt in prompts))
    return dict(processor(text=prompts, images=images or None, padding=True, return_tensors="pt", **options))


def spliced(model: GraftedVLMForConditionalGeneration, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """`inputs_embeds` built by hand, one image at a time."""
    rows, images = [], iter(inputs["pixel_values"].split(1))
    for ids in inputs["input_ids"]:
        tokens: list[torch.Tensor] = []
        position = 0
        while position < len(ids):
            if ids[position] == model.config.image_token_id:
                tower = model.vision_tower(next(images)).last_hidden_state
                if model.config.vision_config.model_type == "clip_vision_model":
                    tower = model.vision_tower.post_layernorm(tower)
                tokens += [model.image_start, *model.adapter(tower[0]), model.image_end]
                position += 2 + tower.shape[1]
            else:
                tokens.append(model.get_input_embeddings()(ids[position : position + 1])[0])
                position += 1
        rows.append(torch.stack(tokens))
    return torch.stack(rows)


@pytest.mark.parametrize("tower", TOWERS)
def test_images_stand_where_their_placeholders_do_for_any_tower(tower: str) -> None:
    model, processor = tiny_parts(tower)
    inputs = batch(processor, [QUESTION, TWO, TEXT])
    with torch.no_grad():
        logits = model(**inputs).logits
        mask = inputs["attention_mask"]
        by_hand = model.language_model(inputs_embeds=spliced(model, inputs), attention_mask=mask).logits
    torch.testing.assert_close(logits[mask.bool()], by_hand[mask.bool()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
def test_cached_generation_equals_uncached_for_any_decoder(decoder: str) -> None:
    model, processor = tiny_parts(decoder=decoder)
    inputs = batch(processor, [QUESTION, TWO, TEXT], padding_side="left")
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    cached = model.generate(**inputs, **options)
    assert cached.shape[1] == inputs["input_ids"].shape[1] + 6
    assert torch.equal(cached, model.generate(**inputs, **options, use_cache=False))


def test_a_row_does_not_depend_on_its_batch() -> None:
    model, processor = tiny_parts()
    inputs = batch(processor, [TEXT, TWO])
    alone = processor(text=TEXT, return_tensors="pt")
    with torch.no_grad():
        together = model(**inputs).logits[0, : alone["input_ids"].shape[1]]
        torch.testing.assert_close(together, model(**alone).logits[0], rtol=1e-5, atol=1e-5)


def test_a_saved_folder_gives_the_same_model_back(tmp_path: Path) -> None:
    for tied in (False, True):
        model, processor = tiny_parts(decoder="qwen3", decoder_fields={"tie_word_embeddings": tied})
        inputs = batch(processor, [QUESTION])
        folder = tmp_path / str(tied)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        loaded = AutoModelForImageTextToText.from_pretrained(folder)
        assert isinstance(loaded, GraftedVLMForConditionalGeneration)
        assert {name: weight.tolist() for name, weight in loaded.state_dict().items()} == {
            name: weight.tolist() for name, weight in model.state_dict().items()
        }
        head, table = loaded.get_output_embeddings().weight, loaded.get_input_embeddings().weight
        assert (head is table) == tied
        again = AutoProcessor.from_pretrained(folder)
        assert isinstance(again, GraftedVLMProcessor)
        assert again.apply_chat_template(_chat()) == processor.apply_chat_template(_chat())
        with torch.no_grad():
            assert torch.equal(loaded(**batch(again, [QUESTION])).logits, model(**inputs).logits)


def _chat() -> list[dict[str, Any]]:
    typed = [{"type": "image"}, {"type": "text", "text": "what is this"}]
    return [{"role": "user", "content": typed}, {"role": "assistant", "content": "a goldfish"}]
