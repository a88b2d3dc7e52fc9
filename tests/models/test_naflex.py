"""What holds for images whose number of tokens is not known beforehand."""

from __future__ import annotations

from transformers import Siglip2ImageProcessorPil

from hf_chain.cost.grafted import adapter_macs
from hf_chain.data.chat import ChatEncoder
from hf_chain.models.grafted_vlm import from_parts
from support.chat_models import chat_tokenizer
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
