"""MACs and parameters of a CLIP dual encoder, counted from its configuration alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from transformers import CLIPConfig

Tower = Any
"""A `CLIPVisionConfig` or `CLIPTextConfig`, whose sizes transformers types as unions that cannot be computed with."""


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
    vision, text = towers(config)
    context = text.max_position_embeddings
    text_tokens = context if text_tokens is None else text_tokens
    if not 1 <= text_tokens <= context:
        raise HfChainError(f"text_tokens is {text_tokens}: choose 1 to {context}, the text tower's positions")
    patches = num_patches(vision)
    patch_convolution = patches * vision.num_channels * vision.patch_size**2 * vision.hidden_size
    image_tokens = kept_patches(patches, image_token_keep) + 1
    return TowerMACs(
        image=patch_convolution + _encoder_macs(vision, image_tokens) + vision.hidden_size * config.projection_dim,
        text=_encoder_macs(text, text_tokens) + text.hidden_size * config.projection_dim,
    )


def vision_parameters(vision: Tower) -> int:
    """Number of parameters of a stock `CLIPVisionModel`, which is what a graft uses of a dual encoder.

    Args:
        vision (`CLIPVisionConfig`): The vision tower.

    Returns:
        `int`: Weights and biases, without the projection.
    """
    vectors = 1 + vision.num_channels * vision.patch_size**2 + (num_patches(vision) + 1) + 4
    return int(vectors * vision.hidden_size + _encoder_parameters(vision))


def clip_parameters(config: CLIPConfig) -> int:
    """Number of parameters of the stock `CLIPModel` with this configuration.

    Args:
        config (`CLIPConfig`): The model.

    Returns:
        `int`: Weights and biases, both towers, projections and logit scale.
    """
    vision, text = towers(config)
    text_vectors = text.vocab_size + text.max_position_embeddings + 2 + config.projection_dim
    logit_scale = 1
    return int(
        vision_parameters(vision)
        + vision.hidden_size * config.projection_dim
        + text_vectors * text.hidden_size
        + _encoder_parameters(text)
        + logit_scale
    )


def towers(config: CLIPConfig) -> tuple[Tower, Tower]:
    """The vision and the text configuration."""
    return config.vision_config, config.text_config


def num_patches(vision: Tower) -> int:
    """Patches of one image.

    Args:
        vision (`CLIPVisionConfig`): The vision tower.

    Returns:
        `int`: Their number, without the class token.
    """
    return int(vision.image_size // vision.patch_size) ** 2


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


def _encoder_macs(tower: Tower, tokens: int) -> int:
    width = tower.hidden_size
    projections = 4 * tokens * width**2
    attention = 2 * tokens**2 * width
    mlp = 2 * tokens * width * tower.intermediate_size
    return int(tower.num_hidden_layers * (projections + attention + mlp))


def _encoder_parameters(tower: Tower) -> int:
    width, hidden = tower.hidden_size, tower.intermediate_size
    attention = 4 * (width**2 + width)
    mlp = 2 * width * hidden + hidden + width
    norms = 4 * width
    return int(tower.num_hidden_layers * (attention + mlp + norms))
