"""Memory of one device in a stage: weights, gradients, optimiser state and activations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from hf_chain.arguments.checkpointing import CHECKPOINTING
from hf_chain.arguments.precision import uses_bfloat16
from hf_chain.cost.macs import image_tokens
from hf_chain.cost.steps import ADAMW_MOMENTS, BFLOAT16, FLOAT32, MemoryEstimate
from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.models.grafted_vlm.vision_towers import tower_layers


@dataclass(frozen=True)
class Batch:
    """What one device takes at once: rows of a length, with the images of all of them."""

    rows: int
    length: int
    images: int


def stage_memory(model: PreTrainedModel, batch: Batch, training: dict[str, Any], weight_bytes: int) -> MemoryEstimate:
    """Estimates what a stage needs on one device, without sharding. Workspaces and fragmentation come on top.

    Gradients pass the frozen decoder on their way to the encoder, so its activations are held from the first trained
    weight on. What a layer holds is counted for a gated MLP and memory-efficient attention.

    Args:
        model (`PreTrainedModel`): a vision-language model, frozen as it is trained; it may be on the meta device.
        batch (`Batch`): a micro-batch.
        training (`dict`): `GraftConfig` fields.
        weight_bytes (`int`): bytes of a weight, 2 or 4.

    Returns:
        `MemoryEstimate`: bytes.
    """
    total, trained = _sizes(model.parameters())
    autocast = uses_bfloat16(training.get("bf16", True))
    number = BFLOAT16 if autocast else FLOAT32
    checkpointing = any(training.get(name) for name in CHECKPOINTING)
    # What is trained is in float32, and without autocast the rest too; autocast keeps a copy of every such matrix from
    # forward to backward.
    parameters = (weight_bytes if autocast else FLOAT32) * (total - trained) + FLOAT32 * trained
    copies = BFLOAT16 * _float32_matrices(model, weight_bytes) if autocast and trained else 0
    return MemoryEstimate(
        parameters=parameters + copies,
        gradients=FLOAT32 * trained,
        optimizer=ADAMW_MOMENTS * FLOAT32 * trained,
        activations=_activations(model, batch, number, checkpointing) if trained else 0,
        teacher=0,
    )


def _activations(model: PreTrainedModel, batch: Batch, number: int, checkpointing: bool) -> int:
    vision, text = model.config.vision_config, model.config.text_config
    tokens, patches = batch.rows * batch.length, batch.images * image_tokens(model.config)
    held, reached = [0], False
    for layer in tower_layers(model.vision_tower):
        trained = any(parameter.requires_grad for parameter in layer.parameters())
        reached = reached or trained
        if reached:
            held.append(patches * _layer(vision, number, trained))
    largest = max(held)
    for layer in decoder_layers(model.language_model):
        trained = any(parameter.requires_grad for parameter in layer.parameters())
        held.append(tokens * _layer(text, number, trained))
    largest = max(largest, *held)
    if checkpointing:
        streams = patches * vision.hidden_size * reached * len(tower_layers(model.vision_tower))
        streams += tokens * text.hidden_size * text.num_hidden_layers
        held = [largest, number * streams]
    # Logits and their gradient, and those of responses once more in float32.
    logits = tokens * text.vocab_size * (2 * number + FLOAT32)
    return sum(held) + logits


def _layer(config: Any, number: int, trained: bool) -> int:
    """Bytes of one token in one layer.

    Frozen linear layers need no inputs. What remains are the two norms' inputs (in float32), queries, keys, values and
    the output of attention, and the gate, its activation and the factor of a gated MLP.
    """
    width, inner = config.hidden_size, getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    attention = config.num_attention_heads * (getattr(config, "head_dim", None) or width // config.num_attention_heads)
    frozen = 2 * FLOAT32 * width + number * (4 * attention + 3 * inner)
    return frozen + (number * (4 * width + attention + inner) if trained else 0)


def _sizes(parameters: Iterable[nn.Parameter]) -> tuple[int, int]:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in parameters]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


def _float32_matrices(model: PreTrainedModel, weight_bytes: int) -> int:
    weights = (module.weight for module in model.modules() if isinstance(module, nn.Linear))
    return sum(weight.numel() for weight in weights if weight.requires_grad or weight_bytes == FLOAT32)
