"""What one member costs, a CLIP: MACs, parameters, and memory of one device in training."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from hf_chain.cost.family import MemberCost
from hf_chain.cost.macs import by_fields, image_patches, stream_macs
from hf_chain.cost.steps import ADAMW_MOMENTS, BFLOAT16, FLOAT32, MemoryEstimate, TowerMACs
from hf_chain.errors import HfChainError
from hf_chain.families import CLIP, CLIP_VISION

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPVisionConfig

Strategy = Literal["ddp", "zero1", "zero2", "zero3"]


def clip_macs(config: CLIPConfig, text_tokens: int | None = None, image_token_keep: float = 1.0) -> TowerMACs:
    """Counts the forward MACs of a CLIP model: matrix products and the patch convolution, as the FLOP counter does.

    FLOPs are twice these numbers. Causal attention is counted in full, as `torch.utils.flop_counter` does.

    Args:
        config (`CLIPConfig`): The model.
        text_tokens (`int`, *optional*): Tokens in a caption, padding included; `max_position_embeddings` by default.
        image_token_keep (`float`, defaults to 1.0): Share of the patch tokens that enter the transformer (FLIP). The
            class token always does, and the patch convolution still sees the whole image.

    Returns:
        `TowerMACs`: MACs per image and per caption.

    Raises:
        HfChainError: when a caption is longer than the text tower's context, or the kept share is not in (0, 1].
    """
    context = config.text_config.max_position_embeddings
    text_tokens = context if text_tokens is None else text_tokens
    if not 1 <= text_tokens <= context:
        raise HfChainError(f"text_tokens is {text_tokens}: choose 1 to {context}, the text tower's positions")
    text, vision = (stream_macs(by_fields(CLIP, stream, config)) for stream in CLIP.streams)
    patches, prefix = image_patches(config), CLIP.streams[1].class_tokens
    seen = kept_patches(patches, image_token_keep) + prefix
    return TowerMACs(
        image=patches * vision.entry + vision.of_blocks(seen) + vision.exit,
        text=text.of_blocks(text_tokens) + text.exit,
    )


def clip_parameters(config: CLIPConfig | CLIPVisionConfig) -> int:
    """Number of parameters of the stock model with this configuration.

    Args:
        config (`CLIPConfig` or `CLIPVisionConfig`): The model, or its vision tower, which is all that a graft uses.

    Returns:
        `int`: Weights and biases, with projections and logit scale where there are two towers.
    """
    alone = config.model_type == "clip_vision_model"
    family = CLIP_VISION if alone else CLIP
    weights = (weight for stream in family.streams for weight in by_fields(family, stream, config))
    return (not alone) + sum(math.prod(shape) for _, _, shape in weights)


def clip_evaluation_macs(config: CLIPConfig, images: int, texts: int, text_tokens: int | None = None) -> int:
    """MACs of encoding `images` and `texts` (captions or class prompts of `text_tokens` tokens) once.

    Args:
        config (`CLIPConfig`): The model.
        images (`int`): Images that are encoded.
        texts (`int`): Captions and class prompts that are.
        text_tokens (`int`, *optional*): Tokens in each; the whole context by default.

    Returns:
        `int`: Multiply-accumulate operations.
    """
    macs = clip_macs(config, text_tokens)
    return images * macs.image + texts * macs.text


def clip_member(
    name: str,
    config: CLIPConfig,
    epochs: float,
    samples_per_epoch: int,
    captions: int = 1,
    text_tokens: int | None = None,
    image_token_keep: float = 1.0,
    teacher: CLIPConfig | None = None,
    cached_views: int | None = None,
    cached_captions: int | None = None,
    **training: Any,
) -> MemberCost:
    """What it takes to train a CLIP as a member of a chain.

    Args:
        name (`str`): Name of the member.
        config (`CLIPConfig`): Its model.
        epochs (`float`): Epochs it is trained in the chain.
        samples_per_epoch (`int`): Images in an epoch.
        captions (`int`): Captions a step sees of each image.
        text_tokens (`int`, *optional*): Tokens in a caption; the whole context by default.
        image_token_keep (`float`): Share of patch tokens the student sees (FLIP).
        teacher (`CLIPConfig`, *optional*): The frozen predecessor. Live it sees the student's tokens, cached whole
            images.
        cached_views (`int`, *optional*): Image views in the teacher's feature cache, which is filled before the
            training. `None`: the teacher runs live.
        cached_captions (`int`, *optional*): Different captions in that cache; `captions` an image by default.
        training: Further fields of `MemberCost`.

    Returns:
        `MemberCost`: Its cost.
    """
    if captions <= 0:
        raise HfChainError(f"captions of member {name} is {captions}: it must be above 0")

    def forward(model: CLIPConfig) -> tuple[int, int]:
        masked, whole = (clip_macs(model, text_tokens, keep) for keep in (image_token_keep, 1.0))
        return masked.per_sample(captions), whole.per_sample(captions)

    cache, seen = 0, clip_macs(config, text_tokens, image_token_keep)
    if teacher is not None and cached_views is not None:
        macs, texts = clip_macs(teacher, text_tokens), cached_captions
        texts = captions * samples_per_epoch if texts is None else texts
        cache = cached_views * samples_per_epoch * macs.image + texts * macs.text
    cost = MemberCost(
        name=name,
        parameters=clip_parameters(config),
        forward=forward(config),
        epochs=epochs,
        samples_per_epoch=samples_per_epoch,
        teacher=forward(teacher) if teacher is not None and cached_views is None else None,
        cache_macs=cache,
        **training,
    )
    details = {
        "macs_per_image": seen.image,
        "macs_per_caption": seen.text,
        "captions": captions,
        "text_share": captions * clip_macs(config, text_tokens).text / cost.macs_per_sample,
    }
    return replace(cost, details=details)


def kept_patches(patches: int, keep: float) -> int:
    """Patch tokens that stay when a share `keep` in (0, 1] of `patches` is kept: rounded down, at least one.

    Args:
        patches (`int`): Patches of one image.
        keep (`float`): Share, in (0, 1].

    Returns:
        `int`: Their number.

    Raises:
        HfChainError: when the share is not in (0, 1].
    """
    if not 0 < keep <= 1:
        raise HfChainError(f"image_token_keep is {keep}: choose a share above 0 and at most 1")
    return max(1, int(patches * keep))


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

    vision: Any = config.vision_config
    text: Any = config.text_config
    images = kept_patches(image_patches(vision), image_token_keep) + 1
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


def _bytes_per_token(tower: Any, outer: int, bf16: bool, autocast: bool) -> int:
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
    text: Any = config.text_config
    return clip_parameters(config) - int(text.vocab_size * text.hidden_size)
