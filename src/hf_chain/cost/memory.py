"""Memory of one device in training: weights, gradients, optimiser state, activations and the teacher."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, get_args

from hf_chain.cost.macs import Tower, clip_parameters, kept_patches, num_patches, towers
from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from transformers import CLIPConfig

Strategy = Literal["ddp", "zero1", "zero2", "zero3"]

FLOAT32, BFLOAT16 = 4, 2
ADAMW_MOMENTS = 2


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


def clip_memory(
    config: CLIPConfig,
    micro_batch: int,
    captions: int = 1,
    text_tokens: int | None = None,
    image_token_keep: float = 1.0,
    bf16: bool = False,
    teacher: CLIPConfig | None = None,
    strategy: Strategy = "ddp",
    processes: int = 1,
) -> MemoryEstimate:
    """Estimates the memory one device needs to train a CLIP model with AdamW and `sdpa` attention.

    Sharding follows ZeRO (arXiv 1910.02054, section 5): stage 1 splits the optimiser state, stage 2 the gradients as
    well, stage 3 the weights too. In bfloat16, `ddp` means autocast over float32 weights, while DeepSpeed holds
    bfloat16 weights and float32 masters.

    Args:
        config (`CLIPConfig`): The student.
        micro_batch (`int`): Images in one forward and backward on one device.
        captions (`int`, defaults to 1): Captions of each image.
        text_tokens (`int`, *optional*): Tokens in a caption; the whole context by default.
        image_token_keep (`float`, defaults to 1.0): Share of patch tokens that stay.
        bf16 (`bool`, defaults to `False`): Mixed precision instead of float32.
        teacher (`CLIPConfig`, *optional*): The live teacher; leave it out when its features are cached.
        strategy (`str`, defaults to `"ddp"`): `ddp`, `zero1`, `zero2` or `zero3`.
        processes (`int`, defaults to 1): Devices that share the training.

    Returns:
        `MemoryEstimate`: Bytes per device.

    Raises:
        HfChainError: when the strategy is unknown or a count is below 1.
    """
    if strategy not in get_args(Strategy):
        raise HfChainError(f"Strategy {strategy!r} is unknown: choose {', '.join(get_args(Strategy))}")
    for name, value in {"micro_batch": micro_batch, "captions": captions, "processes": processes}.items():
        if value < 1:
            raise HfChainError(f"{name} is {value}: it must be at least 1")
    parameters, stage = clip_parameters(config), get_args(Strategy).index(strategy)
    autocast, deepspeed_bf16 = bf16 and stage == 0, bf16 and stage > 0
    weight = BFLOAT16 if deepspeed_bf16 else FLOAT32
    master = FLOAT32 if deepspeed_bf16 else 0

    def sharded(size: int, from_stage: int) -> int:
        return -(-size // processes) if stage >= from_stage else size

    vision, text = towers(config)
    images = kept_patches(num_patches(vision), image_token_keep) + 1
    texts = captions * (text.max_position_embeddings if text_tokens is None else text_tokens)
    pixels = vision.num_channels * vision.image_size**2
    per_sample = (
        pixels * (BFLOAT16 if bf16 else FLOAT32)
        + images * _bytes_per_token(vision, 2, bf16, autocast)
        + texts * _bytes_per_token(text, 1, bf16, autocast)
    )
    return MemoryEstimate(
        parameters=sharded(weight * parameters, 3) + (BFLOAT16 * _cast_parameters(config) if autocast else 0),
        gradients=sharded(weight * parameters, 2),
        optimizer=sharded((master + ADAMW_MOMENTS * FLOAT32) * parameters, 1),
        activations=micro_batch * per_sample,
        teacher=FLOAT32 * clip_parameters(teacher) if teacher is not None else 0,
    )


def _bytes_per_token(tower: Tower, outer: int, bf16: bool, autocast: bool) -> int:
    """Saved bytes of one token through all blocks, and of the `outer` residual streams kept outside of them.

    A block keeps the inputs and outputs of its two norms, q, k, v, the attention output, and the MLP's hidden units
    before and after the activation (quick GELU also keeps its sigmoid). Autocast keeps the residual stream in float32
    and a bfloat16 copy of it for each of the four linear layers that read it.
    """
    width = tower.hidden_size
    size = BFLOAT16 if bf16 else FLOAT32
    hidden = (3 if tower.hidden_act == "quick_gelu" else 2) * tower.intermediate_size
    block = size * (8 * width + hidden) + (2 * FLOAT32 * width if autocast else 0)
    residual = FLOAT32 if autocast else size
    return int(tower.num_hidden_layers * block + outer * residual * width)


def _cast_parameters(config: CLIPConfig) -> int:
    """Weights that autocast turns into bfloat16: all but the token embedding, which is looked up."""
    _, text = towers(config)
    return clip_parameters(config) - int(text.vocab_size * text.hidden_size)
