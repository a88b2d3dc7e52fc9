"""What holds for images whose number of tokens is not known beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset
from PIL import Image
from transformers import Siglip2ImageProcessorPil

from hf_chain.cost.macs import encoder_macs
from hf_chain.cost.steps import adapter_macs
from hf_chain.data.chat import ChatEncoder
from hf_chain.data.chat.rows import FEATURES
from hf_chain.evaluation.question_answering import evaluate_answers
from hf_chain.models.grafted_vlm import from_parts
from hf_chain.trainer.batch_cost import batch_cost
from hf_chain.trainer.parts import resolve_parts
from support.chat_models import chat_tokenizer, talk
from support.decoders import tiny_decoder
from support.grafted_parts import tiny_tower


def test_lengths_are_measured_again_when_images_may_have_more_patches() -> None:
    def fingerprint(patches: int) -> str:
        pixels = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=patches)
        tower, decoder = tiny_tower("siglip2_vision_model"), tiny_decoder("llama", vocab_size=500)
        return ChatEncoder(from_parts(tower, decoder, chat_tokenizer(), pixels)[1]).fingerprint

    assert fingerprint(16) == fingerprint(16) != fingerprint(9)


def test_the_adapter_counts_on_the_largest_image() -> None:
    pixels = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    decoder = tiny_decoder("llama", vocab_size=500)
    model, _ = from_parts(tiny_tower("siglip2_vision_model"), decoder, chat_tokenizer(), pixels)
    weights = sum(weight.numel() for weight in model.adapter.parameters() if weight.ndim > 1)
    assert adapter_macs(model.config) == model.config.vision_config.num_patches * weights > 0


@pytest.mark.parametrize("generate", [True, False])
def test_questions_are_answered_and_counted(tmp_path: Path, generate: bool) -> None:
    pixels = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    decoder = tiny_decoder("llama", vocab_size=500)
    model, processor = from_parts(tiny_tower("siglip2_vision_model"), decoder, chat_tokenizer(), pixels)
    Image.new("RGB", (48, 16), "red").save(tmp_path / "wide.png")
    images = [{"path": str(tmp_path / "wide.png"), "bytes": None}]
    row = {**talk("<image>\nred?", "yes"), "images": images, "kind": "exists", "answers": [], "negatives": ""}
    rows = Dataset.from_list([row], features=FEATURES)
    answered = evaluate_answers(model, processor, rows, generate=generate)
    assert answered.macs > encoder_macs(model.config) + adapter_macs(model.config)


def test_training_counts_every_image_as_the_largest() -> None:
    pixels = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    decoder = tiny_decoder("llama", vocab_size=500)
    model, _ = from_parts(tiny_tower("siglip2_vision_model"), decoder, chat_tokenizer(), pixels)
    cost = batch_cost(model, resolve_parts(model, ["adapter"], 1e-3))
    assert cost.per_image == encoder_macs(model.config) + 3 * adapter_macs(model.config)
