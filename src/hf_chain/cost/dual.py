"""What an image and a caption cost in dual encoders of any family; starts no torch."""

from __future__ import annotations

from typing import Any

from hf_chain.cost.clip import clip_macs
from hf_chain.cost.macs import by_fields, counted_macs, image_patches, stream_macs
from hf_chain.cost.steps import TowerMACs
from hf_chain.errors import HfChainError
from hf_chain.families import FAMILIES, VISION_TEXT


def dual_encoder_macs(config: Any, text_tokens: int | None = None, image_token_keep: float = 1.0) -> TowerMACs:
    """Counts the forward MACs of a dual encoder: matrix products and the patch convolution, as the FLOP counter does.

    Args:
        config (`PreTrainedConfig`): a CLIP, a SigLIP or a `VisionTextDualEncoder`.
        text_tokens (`int`, *optional*): tokens in a caption, padding included; the whole context by default.
        image_token_keep (`float`): share of the patch tokens that enter the transformer, of a CLIP.

    Returns:
        `TowerMACs`: MACs per image and per caption.

    Raises:
        HfChainError: for another model, or a share that it does not take.
    """
    if config.model_type in ("clip", "chain_clip"):
        return clip_macs(config, text_tokens, image_token_keep)
    if config.model_type not in ("siglip", VISION_TEXT) or image_token_keep != 1:
        raise HfChainError(
            f"the cost of model_type {config.model_type!r} cannot be counted: use clip, siglip or {VISION_TEXT}"
        )
    tokens = text_tokens or config.text_config.max_position_embeddings
    if config.model_type == VISION_TEXT:
        image, caption = config.vision_config, config.text_config
        return TowerMACs(
            image=counted_macs(image) + image.hidden_size * config.projection_dim,
            text=counted_macs(caption, tokens) + caption.hidden_size * config.projection_dim,
        )
    family = FAMILIES["siglip"]
    text, vision = (stream_macs(by_fields(family, stream, config)) for stream in family.streams[:2])
    patches, width = image_patches(config), config.vision_config.hidden_size
    # One query attends to all patches, and an MLP reads what it found.
    pooling = patches * 2 * (width**2 + width) + 2 * width**2 + 2 * width * config.vision_config.intermediate_size
    return TowerMACs(
        image=patches * vision.entry + vision.of_blocks(patches) + pooling,
        text=text.of_blocks(tokens) + text.exit,
    )
