"""The grafted model: any tower, any decoder, images and text in one batch, and a folder that keeps it all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_chain.models import ChainCLIPModel, GraftedVLMForConditionalGeneration, GraftedVLMProcessor, from_parts
from support.decoders import DECODERS, tiny_decoder
from support.grafted_parts import (
    NAFLEX,
    TOWERS,
    image_processor,
    photos,
    processed,
    tiny_parts,
    tiny_tokenizer,
    tiny_tower,
)

QUESTION, TWO, TEXT = "what is this <image>", "<image> is <image> a goldfish", "what is a goldfish"
CHAT = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is this"}]},
    {"role": "assistant", "content": "a goldfish"},
]


def image_tokens(model: GraftedVLMForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """One image, step by step."""
    tokens = model.vision_tower(pixels).last_hidden_state
    if model.config.vision_config.model_type == "clip_vision_model":
        tokens = model.vision_tower.post_layernorm(tokens)
    return torch.stack([model.image_start, *model.adapter(tokens[0]), model.image_end])


def by_hand(model: GraftedVLMForConditionalGeneration, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of a batch whose embeddings are spliced one image at a time."""
    rows, images = [], [image_tokens(model, pixels) for pixels in inputs["pixel_values"].split(1)]
    for ids in inputs["input_ids"]:
        pieces, position = [], 0
        while position < len(ids):
            if ids[position] == model.config.image_token_id:
                pieces.append(images.pop(0))
            else:
                pieces.append(model.get_input_embeddings()(ids[position : position + 1]))
            position += len(pieces[-1])
        rows.append(torch.cat(pieces))
    mask = inputs["attention_mask"]
    return model.language_model(inputs_embeds=torch.stack(rows), attention_mask=mask).logits[mask.bool()]


@pytest.mark.parametrize("tower", TOWERS)
@torch.no_grad()
def test_images_stand_where_their_placeholders_do_for_any_tower(tower: str) -> None:
    model, processor = tiny_parts(tower)
    inputs = processed(processor, [QUESTION, TWO, TEXT])
    logits = model(**inputs).logits[inputs["attention_mask"].bool()]
    torch.testing.assert_close(logits, by_hand(model, inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 3])
@torch.no_grad()
def test_an_adapter_may_have_any_depth(layers: int, tmp_path: Path) -> None:
    model, processor = tiny_parts(adapter_layers=layers, adapter_hidden_size=20)
    assert len(model.adapter.linears) == layers
    inputs = processed(processor, [QUESTION, TWO, TEXT])
    logits, mask = model(**inputs).logits, inputs["attention_mask"].bool()
    torch.testing.assert_close(logits[mask], by_hand(model, inputs), rtol=1e-5, atol=1e-5)
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModelForImageTextToText.from_pretrained(tmp_path)(**inputs).logits, logits)


@pytest.mark.parametrize(("decoder", "tower"), [*((decoder, TOWERS[0]) for decoder in DECODERS), ("llama", NAFLEX)])
@torch.no_grad()
def test_cached_generation_equals_uncached_for_any_decoder(decoder: str, tower: str) -> None:
    model, processor = tiny_parts(tower, decoder)
    inputs = processed(processor, [QUESTION, TWO, TEXT], padding_side="left")
    options: dict[str, Any] = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    options |= {"return_dict_in_generate": True, "output_logits": True}
    cached, uncached = (model.generate(**inputs, **options, use_cache=use) for use in (True, False))
    assert cached.sequences.shape[1] == inputs["input_ids"].shape[1] + 10
    assert torch.equal(cached.sequences, uncached.sequences)
    torch.testing.assert_close(cached.logits, uncached.logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_row_does_not_depend_on_its_batch() -> None:
    model, processor = tiny_parts()
    together = model(**processed(processor, [TEXT, TWO])).logits[0]
    alone = model(**processor(text=TEXT, return_tensors="pt")).logits[0]
    torch.testing.assert_close(together[-len(alone) :], alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_samples_packed_in_one_row_do_not_see_each_other() -> None:
    model, processor = tiny_parts()
    rows = [processed(processor, [prompt]) for prompt in (QUESTION, TEXT)]
    packed = {
        "input_ids": torch.cat([row["input_ids"] for row in rows], dim=1),
        "position_ids": torch.cat([torch.arange(row["input_ids"].shape[1]) for row in rows])[None],
        "pixel_values": rows[0]["pixel_values"],
    }
    apart = torch.cat([model(**row).logits[0] for row in rows])
    torch.testing.assert_close(model(**packed, use_cache=False).logits[0], apart, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tower", ["clip", "siglip_vision_model", "dinov2", "vit"])
@torch.no_grad()
def test_the_hidden_state_of_choice_is_used(tower: str) -> None:
    whole = tiny_tower(tower)
    vision = getattr(whole, "vision_model", whole)
    pixels = torch.randn(1, 3, 16, 16)
    hidden = vision(pixels, output_hidden_states=True).hidden_states[-2]
    prefix = 0 if tower == "siglip_vision_model" else 1
    for normed in (True, False):
        model, _ = tiny_parts(tower, vision_layer=-2, post_layernorm=normed, class_token=False)
        norm = getattr(vision, "post_layernorm", None) or vision.layernorm
        tokens = model.adapter((norm(hidden) if normed else hidden)[0, prefix:])
        expected = torch.stack([model.image_start, *tokens, model.image_end])
        (found,) = model.get_image_features(pixels).pooler_output
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert model.config.vision_config.num_hidden_layers == 2


@torch.no_grad()
def test_naflex_images_keep_their_shape_and_their_number_of_tokens(tmp_path: Path) -> None:
    model, processor = tiny_parts(NAFLEX)
    wide, narrow = photos(2)
    wide = wide.resize((40, 12))
    inputs = processor(text=[TWO, QUESTION], images=[wide, narrow, narrow], padding=True, return_tensors="pt")
    assert len({tuple(shape) for shape in inputs["spatial_shapes"].tolist()}) == 2
    together = model(**inputs).logits[1]
    alone = model(**processor(text=QUESTION, images=narrow, return_tensors="pt")).logits[0]
    torch.testing.assert_close(together[-len(alone) :], alone, rtol=1e-5, atol=1e-5)
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModelForImageTextToText.from_pretrained(tmp_path)(**inputs).logits[1], together)


@pytest.mark.parametrize(
    ("decoder", "tower"),
    [
        *((decoder, "clip_vision_model") for decoder in ("llama", "qwen3", "mixtral", "gemma3")),
        ("llama", "dinov2_with_registers"),
    ],
)
@torch.no_grad()
def test_a_saved_folder_gives_the_same_model_back(decoder: str, tower: str, tmp_path: Path) -> None:
    model, processor = tiny_parts(tower, decoder)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is GraftedVLMForConditionalGeneration
    assert type(again) is GraftedVLMProcessor
    saved = model.state_dict()
    assert loaded.state_dict().keys() == saved.keys()
    assert all(torch.equal(weight, saved[name]) for name, weight in loaded.state_dict().items())
    tied = decoder in ("qwen3", "gemma3")
    assert (loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight) == tied
    assert again.apply_chat_template(CHAT) == processor.apply_chat_template(CHAT)
    assert torch.equal(loaded(**processed(again, [TWO])).logits, model(**processed(processor, [TWO])).logits)


@torch.no_grad()
def test_folders_of_parts_give_what_the_parts_give(tmp_path: Path) -> None:
    clip, decoder = tiny_tower("clip"), tiny_decoder("llama")
    ChainCLIPModel.from_clip(clip).save_pretrained(tmp_path / "member")
    image_processor().save_pretrained(tmp_path / "member")
    decoder.save_pretrained(tmp_path / "decoder")
    tiny_tokenizer().save_pretrained(tmp_path / "decoder")
    model, processor = from_parts(tmp_path / "member", str(tmp_path / "decoder"), vision_layer=-2)
    expected, _ = from_parts(clip, decoder, tiny_tokenizer(), image_processor(), vision_layer=-2)
    state = model.state_dict()
    same = {name for name, weight in expected.state_dict().items() if torch.equal(weight, state[name])}
    assert set(state) - same == {name for name in state if name.startswith(("adapter", "image_"))}
    assert processor.tokens_per_image == 5


@torch.no_grad()
def test_attention_implementations_and_precisions_agree() -> None:
    model, processor = tiny_parts(attn_implementation="sdpa")
    inputs = processed(processor, [QUESTION, TWO])
    mask = inputs["attention_mask"].bool()
    expected = model(**inputs).logits[mask]
    model.set_attn_implementation("eager")
    assert model.language_model.config._attn_implementation == "eager"
    assert model.vision_tower.config._attn_implementation == "eager"
    torch.testing.assert_close(model(**inputs).logits[mask], expected, rtol=1e-4, atol=1e-4)
    rough = model.to(torch.bfloat16)(**inputs).logits[mask]
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), expected, rtol=0.1, atol=0.2)
