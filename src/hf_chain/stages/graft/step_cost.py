"""What one training step on a batch costs, from which weights are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_chain.cost.frozen import training_macs
from hf_chain.cost.grafted import decoder_segments, grafted_segments
from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.trainer.part_aliases import decoder_of, is_vision_language


def batch_macs(model: PreTrainedModel) -> Callable[[Mapping[str, torch.Tensor]], int]:
    """A function that counts the MACs of a training step on a batch, padding included.

    Args:
        model (`PreTrainedModel`): a grafted vision-language model, or a decoder; frozen as it is trained.
    """
    trained = trained_shares(model)

    @lru_cache(maxsize=4096)
    def count(rows: int, tokens: int, images: int) -> int:
        if is_vision_language(model):
            return training_macs(grafted_segments(model.config, rows, tokens, images, trained))
        return training_macs(decoder_segments(model.config, rows, tokens, trained))

    def count_batch(batch: Mapping[str, torch.Tensor]) -> int:
        pixels = batch.get("pixel_values")
        return count(*batch["input_ids"].shape, 0 if pixels is None else len(pixels))

    return count_batch


def trained_shares(model: PreTrainedModel) -> dict[str, float]:
    """Share of the weights that are trained, by the names of `grafted_segments`."""
    decoder = decoder_of(model)
    shares = {f"decoder.{i}": _share(layer.parameters()) for i, layer in enumerate(decoder_layers(decoder))}
    shares["head"] = _share(decoder.get_output_embeddings().parameters())
    if not is_vision_language(model):
        return shares
    tower = model.vision_tower
    depth = tower.config.num_hidden_layers
    layers = next(m for m in tower.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)
    shares |= {f"encoder.{i}": _share(layer.parameters()) for i, layer in enumerate(layers)}
    convolution = next(m for m in tower.modules() if isinstance(m, nn.Conv2d))
    shares["patches"] = _share(convolution.parameters())
    # Start and end embeddings and the encoder's last norm stand where the adapter does.
    around = [*model.adapter.parameters(), model.image_start, model.image_end]
    return shares | {"adapter": _share(around)}


def _share(parameters: Iterable[nn.Parameter]) -> float:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in parameters]
    return sum(size for size, trains in sizes if trains) / max(1, sum(size for size, _ in sizes))
