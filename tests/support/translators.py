"""Tiny targets, surrogates and texts for the tests of translators."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.grafting.translator.refit import layer_writes
from support.decoders import some_tokens, tiny_decoder

RANGE = "1-4"


def some_text(batches: int = 2, rows: int = 10, length: int = 16, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Batches of random tokens without padding."""
    return [text_batch(some_tokens(rows, length, seed + number)) for number in range(batches)]


def text_batch(tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """A batch of these tokens `[B, L]`, none of them padding."""
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def target_and_surrogate(
    model_type: str = "llama", replaced: str = RANGE, translators: int = 1, **fields: Any
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A tiny random target and the surrogate cut from it."""
    target = tiny_decoder(model_type, **fields)
    return target, build_surrogate(target, replaced, translators=translators)


@torch.no_grad()
def silence(model: PreTrainedModel, layers: range) -> None:
    """Lets layers without experts write nothing, so that they hand on what they get."""
    writes = layer_writes(model.config)
    for layer in layers:
        for write in (writes.attention, writes.mlp):
            for weight in decoder_layers(model)[layer].get_submodule(write.projection).parameters():
                weight.zero_()


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Copies of all weights by name."""
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def changed_weights(model: PreTrainedModel, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of the weights that are not bit by bit what they were."""
    return {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
