"""What a training step on a batch costs, frozen parts counted as frozen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import dropwhile

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_chain.cost.steps import Segment, piece_macs, training_macs
from hf_chain.engine import size_of
from hf_chain.grafting.anatomy import decoder_layers, final_norm
from hf_chain.models.grafted_vlm.vision_towers import tower_layers
from hf_chain.trainer.lora import is_lora
from hf_chain.trainer.part_aliases import alias_parameters, decoder_of, is_vision_language
from hf_chain.trainer.parts import Part

LENGTH = 1024
"""Sequence length at which costs are measured: large, as MACs are whole numbers."""

LAYER = re.compile(r"(encoder|decoder)\.\d+")


@dataclass(frozen=True)
class BatchCost:
    """MACs of forward and backward pass, as a function of a batch's size.

    Attributes:
        per_token (`float`): for every position, padding included.
        per_pair (`float`): for every pair of positions of a row, which attention compares.
        per_image (`float`): for every image.
        fewest_images (`int`): images that are run for a batch of text alone: one where image parts are trained, as all
            processes have to take part in their gradients.
    """

    per_token: float
    per_pair: float
    per_image: float = 0.0
    fewest_images: int = 0

    def __call__(self, batch: Mapping[str, torch.Tensor]) -> int:
        """MACs of a training step on a batch with `input_ids` `[B, L]` and, with images, `pixel_values` `[N, …]`."""
        rows, length = batch["input_ids"].shape
        images = max(len(batch["pixel_values"]) if "pixel_values" in batch else 0, self.fewest_images)
        return round(rows * length * (self.per_token + length * self.per_pair) + images * self.per_image)


def batch_cost(model: PreTrainedModel, parts: Sequence[Part], checkpointing: bool = False) -> BatchCost:
    """Counts what training `parts` costs; images of a tower that keeps their shape count as the largest one.

    Args:
        model (`PreTrainedModel`): a vision-language model or a plain decoder.
        parts (`Sequence[Part]`): what is trained.
        checkpointing (`bool`): whether layers that gradients pass are run forward twice.
    """
    trained = {id(parameter) for part in parts for parameter in part.parameters.values()}
    lora = {id(parameter) for name, parameter in model.named_parameters() if is_lora(name)}
    weights = {name: _Weights.of(piece, lora, trained) for name, piece in _pieces(model).items()}
    images = int(is_vision_language(model))

    def macs(length: int, images: int) -> int:
        forward = piece_macs(model.config, length, images)
        # Pieces that multiply nothing are there, as gradients may begin at them.
        segments = [
            Segment(name, round(forward.get(name, 0) * (1 + piece.lora_share)), piece.trained_share)
            for name, piece in weights.items()
        ]
        return _step_macs(segments, checkpointing)

    # Of second degree in the length, and linear in the images.
    per_image = macs(LENGTH, 2) - macs(LENGTH, 1) if images else 0
    one, two = (macs(length, images) - images * per_image for length in (LENGTH, 2 * LENGTH))
    per_pair = (two - 2 * one) / (2 * LENGTH**2)
    image_half = {id(p) for p in model.parameters()} - {id(p) for p in decoder_of(model).parameters()}
    return BatchCost(one / LENGTH - LENGTH * per_pair, per_pair, per_image, int(bool(trained & image_half)))


def _pieces(model: PreTrainedModel) -> dict[str, list[nn.Parameter]]:
    """The model's parameters, piece by piece in the order of the forward pass."""
    decoder = decoder_of(model)
    pieces: dict[str, list[nn.Parameter]] = {}
    if is_vision_language(model):
        layers = {
            f"encoder.{index}": list(layer.parameters())
            for index, layer in enumerate(tower_layers(model.vision_tower))
        }
        norm = {"encoder norm": list(alias_parameters(model, "encoder.post_layernorm") or ())}
        pieces = {"patches": _others(model.vision_tower, layers | norm), **layers, **norm}
        pieces["adapter"] = list(model.adapter.parameters())
        pieces["image tokens"] = [model.image_start, model.image_end]
    layers = {f"decoder.{index}": list(layer.parameters()) for index, layer in enumerate(decoder_layers(decoder))}
    norm_module, head = final_norm(decoder), list(decoder.get_output_embeddings().parameters())
    ends = {"decoder norm": list(norm_module.parameters()) if norm_module is not None else [], "head": head}
    # The table of a tied head is at both ends.
    embeddings = [*_others(decoder, layers | ends), *decoder.get_input_embeddings().parameters()]
    return pieces | {"embeddings": embeddings} | layers | ends


def _others(module: nn.Module, pieces: Mapping[str, list[nn.Parameter]]) -> list[nn.Parameter]:
    known = {id(parameter) for piece in pieces.values() for parameter in piece}
    return [parameter for parameter in module.parameters() if id(parameter) not in known]


def _step_macs(segments: Sequence[Segment], checkpointing: bool) -> int:
    total = training_macs(segments)
    if checkpointing:
        begun = list(dropwhile(lambda segment: not segment.trained_share, segments))
        total += sum(segment.forward_macs for segment in begun if LAYER.fullmatch(segment.name))
    return total


@dataclass(frozen=True)
class _Weights:
    """The size of LoRA beside a piece's own weights, and the trained share of them all."""

    lora_share: float
    trained_share: float

    @classmethod
    def of(cls, parameters: Iterable[nn.Parameter], lora: AbstractSet[int], trained: AbstractSet[int]) -> _Weights:
        sizes = {id(parameter): size_of(parameter) for parameter in parameters}
        own = sum(size for key, size in sizes.items() if key not in lora)
        moved = sum(size for key, size in sizes.items() if key in trained)
        total = sum(sizes.values())
        return cls((total - own) / max(1, own), moved / max(1, total))
