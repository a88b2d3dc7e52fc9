"""What steps of a training cost, as plan and trainer both count them: MACs, frozen parts as frozen, and memory."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from hf_chain.cost.macs import decoder_macs, encoder_macs

BACKWARD_FORWARDS = 2
"""A backward pass costs two forwards: the gradients of the inputs and those of the weights."""
FLOAT32, BFLOAT16 = 4, 2
ADAMW_MOMENTS = 2


@dataclass(frozen=True)
class TowerMACs:
    """Forward multiply-accumulate operations of the two towers.

    Attributes:
        image (`int`): MACs for one image.
        text (`int`): MACs for one caption.
    """

    image: int
    text: int

    def per_sample(self, captions: int) -> int:
        """MACs of one training sample: an image and its `captions`.

        Args:
            captions (`int`): Captions of the image.

        Returns:
            `int`: Multiply-accumulate operations.
        """
        return self.image + captions * self.text


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device. Communication buckets, workspaces and what the allocator wastes come on top.

    Attributes:
        parameters (`int`): Weights, with the bfloat16 copies that autocast keeps from forward to backward.
        gradients (`int`): Gradients of the weights.
        optimizer (`int`): AdamW moments, and the float32 master weights of bfloat16 DeepSpeed.
        activations (`int`): Tensors saved for the backward pass of one micro-batch.
        teacher (`int`): Weights of the frozen teacher, in float32 and whole on every device.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    teacher: int

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes."""
        return sum(asdict(self).values())


def training_steps(epochs: float, samples_per_epoch: int, batch_size: int, streamed: bool = False) -> int:
    """Optimiser steps of a training: short last batches are dropped, by a stream at its end, else in every epoch.

    Args:
        epochs (`float`): Epochs, or parts of one.
        samples_per_epoch (`int`): Images in an epoch.
        batch_size (`int`): Images of the global batch.
        streamed (`bool`): Whether the data are a stream.

    Returns:
        `int`: Steps, 0 where there is no whole batch.
    """
    if streamed:
        return int(epochs * samples_per_epoch) // batch_size
    return math.ceil(epochs * (samples_per_epoch // batch_size))


def branch_steps(trunk_decay: float | None, steps: int) -> int:
    """Steps of the branch that delivers a member whose training has a trunk.

    Args:
        trunk_decay (`float`, *optional*): Its share of the training; there is no branch without one.
        steps (`int`): Of the whole training.

    Returns:
        `int`: Steps.
    """
    return 0 if trunk_decay is None else max(1, round(trunk_decay * steps))


def forward_passes(micro_batch_size: int | None, gradient_checkpointing: bool) -> int:
    """Student forwards in a step: a second one to cache features, and one more to recompute activations.

    Args:
        micro_batch_size (`int`, *optional*): Of `ChainConfig`: accumulate through cached features.
        gradient_checkpointing (`bool`): Of `TrainingArguments`.

    Returns:
        `int`: 1 to 3.
    """
    return 1 + (micro_batch_size is not None) + bool(gradient_checkpointing)


@dataclass(frozen=True)
class StepCost:
    """MACs of a member's training as a function of the optimiser steps done: the plan's and the trainer's own.

    Costs of a sample are pairs: with dropped image tokens, and with all of them. Where none are dropped, both are one.

    Args:
        samples_per_step (`int`): samples of the global batch.
        student (`tuple[int, int]`): MACs of a sample, forward and backward; nothing goes back through what is frozen.
        teacher (`tuple[int, int]`, *optional*): forward MACs of a sample in a live teacher.
        teacher_steps (`int`): steps that run the teacher.
        unmasked_from (`int`): step from which all image tokens are seen.
    """

    samples_per_step: int
    student: tuple[int, int]
    teacher: tuple[int, int] | None = None
    teacher_steps: int = 0
    unmasked_from: int = 0

    def student_macs(self, steps: int) -> int:
        """Training MACs of the student after `steps` optimiser steps."""
        return self._of(self.student, steps)

    def teacher_macs(self, steps: int) -> int:
        """Forward MACs of the live teacher after `steps` optimiser steps."""
        return self._of(self.teacher, min(steps, self.teacher_steps)) if self.teacher is not None else 0

    def total_macs(self, steps: int) -> int:
        """Student and teacher together."""
        return self.student_macs(steps) + self.teacher_macs(steps)

    def _of(self, sample: tuple[int, int], steps: int) -> int:
        masked, whole = sample
        masked_steps = min(steps, self.unmasked_from)
        return self.samples_per_step * (masked_steps * masked + (steps - masked_steps) * whole)


@dataclass(frozen=True)
class Segment:
    """A piece of a model, such as a layer, in the order of the forward pass.

    Attributes:
        name (`str`): Name of the piece.
        forward_macs (`int`): Multiply-accumulate operations of its forward pass.
        trained_share (`float`): Share of its weights that are trained, 0 to 1.
    """

    name: str
    forward_macs: int
    trained_share: float = 0.0


def training_macs(segments: Iterable[Segment]) -> int:
    """Counts the MACs of a training step on a model with frozen parts.

    Every segment is run forward. From the first trained segment on, gradients travel through every segment, frozen or
    not, which costs one more forward each; gradients of weights cost another one, for the weights that are trained.
    A model that is trained as a whole costs three forwards, as in `MemberCost`.

    Args:
        segments (`Iterable[Segment]`): The model in the order of its forward pass.

    Returns:
        `int`: Multiply-accumulate operations.
    """
    total, reached = 0.0, False
    for segment in segments:
        reached = reached or segment.trained_share > 0
        total += segment.forward_macs * (1 + reached + segment.trained_share)
    return round(total)


def piece_macs(config: Any, tokens: int, images: int = 0) -> dict[str, int]:
    """Forward MACs of one sequence with its images, piece by piece in their order.

    Args:
        config (`GraftedVLMConfig` or `PreTrainedConfig`): A vision-language model, or a plain language model.
        tokens (`int`): Length of the sequence, image positions and padding included.
        images (`int`): Images in it.

    Returns:
        `dict[str, int]`: `patches`, `encoder.0`, … and `adapter` where there are images; `decoder.0`, … and `head`.
    """
    text, pieces = getattr(config, "text_config", config), {}
    if images:
        pieces["patches"] = images * (patches := encoder_macs(config, layers=()))
        for layer in range(config.vision_config.num_hidden_layers):
            pieces[f"encoder.{layer}"] = images * (encoder_macs(config, layers=(layer,)) - patches)
        pieces["adapter"] = images * adapter_macs(config)
    for layer in range(text.num_hidden_layers):
        pieces[f"decoder.{layer}"] = decoder_macs(text, tokens, layers=(layer,), head=False)
    return pieces | {"head": decoder_macs(text, tokens, layers=())}


def adapter_macs(config: Any) -> int:
    """MACs of the adapter on one image; on the largest one where their sizes differ.

    Args:
        config (`GraftedVLMConfig`): The model.

    Returns:
        `int`: Multiply-accumulate operations.
    """
    inner = config.adapter_hidden_size or config.embedding_size
    sizes = [config.vision_config.hidden_size, *[inner] * (config.adapter_layers - 1), config.embedding_size]
    weights = sum(before * after for before, after in zip(sizes, sizes[1:], strict=False))
    return (config.tokens_per_image or config.vision_config.num_patches) * weights
