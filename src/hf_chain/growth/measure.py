"""How far a successor's outputs are from its predecessor's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import interpolate, normalize

from hf_chain.errors import HfChainError
from hf_chain.families import family_of, value_of
from hf_chain.module_modes import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LENGTH = 16
"""Tokens of a random text, at most."""
POOLED = ("image_embeds", "pooler_output")
"""What encoders call their pooled output, with a projection and without."""


def growth_error(
    predecessor: PreTrainedModel, successor: PreTrainedModel, seed: int = 0, batch: int = 8
) -> dict[str, float]:
    """Relative error of a successor's outputs on random inputs.

    Args:
        predecessor (`PreTrainedModel`): The smaller model.
        successor (`PreTrainedModel`): The larger one; of more channels, words or classes the first are compared.
        seed (`int`, *optional*, defaults to 0): The seed of the inputs.
        batch (`int`, *optional*, defaults to 8): The number of images and of texts.

    Returns:
        `dict[str, float]`: Norm of the difference over norm of the predecessor's: `image` and `text` embeddings of
        dual encoders, `logits` of language models and classifiers, `features` of other vision models.
    """
    family = family_of(predecessor.config)
    generator = torch.Generator().manual_seed(seed)
    inputs = random_inputs(predecessor, generator, batch)
    expected, actual = (_outputs(model, inputs, family.kind) for model in (predecessor, successor))
    if family.kind == "dual" and any(stream.output_is_stream for stream in family.streams):
        expected, actual = _cosines(expected), _cosines(actual)
    return {kind: _relative_error(expected[kind], actual[kind]) for kind in expected}


def embedding_error(
    predecessor: PreTrainedModel, successor: PreTrainedModel, seed: int = 0, batch: int = 8
) -> dict[str, float]:
    """Relative error of the L2-normalised embeddings of a dual encoder on random images and texts.

    Args:
        predecessor (`PreTrainedModel`): The smaller model.
        successor (`PreTrainedModel`): The larger one; of a larger embedding the leading coordinates are compared.
        seed (`int`, *optional*, defaults to 0): The seed of the inputs.
        batch (`int`, *optional*, defaults to 8): The number of images and of texts.

    Returns:
        `dict[str, float]`: `image` and `text`, norm of the difference over norm of the predecessor's embeddings.

    Raises:
        HfChainError: For a model without embeddings.
    """
    if family_of(predecessor.config).kind != "dual":
        raise HfChainError(f"{type(predecessor).__name__} has no image and text embeddings: use growth_error")
    return growth_error(predecessor, successor, seed, batch)


def _relative_error(expected: torch.Tensor, actual: torch.Tensor) -> float:
    if expected.dim() == 3 and expected.shape[1] != actual.shape[1]:
        # A finer grid of patches: the class tokens are compared.
        expected, actual = expected[:, 0], actual[:, 0]
    difference = actual[..., : expected.shape[-1]] - expected
    return (difference.norm() / expected.norm()).item()


def _cosines(embeddings: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Products with all embeddings, where the coordinates themselves may turn."""
    everything = torch.cat(list(embeddings.values()))
    return {kind: values @ everything.T for kind, values in embeddings.items()}


@torch.no_grad()
def _outputs(model: PreTrainedModel, inputs: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    if "pixel_values" in inputs:
        inputs["pixel_values"] = _resized(inputs["pixel_values"], model).to(model.dtype)
    with evaluation_mode(model):
        if kind == "dual":
            pixels = {name: value for name, value in inputs.items() if name != "input_ids"}
            image: Any = model.get_image_features(**pixels)
            text: Any = model.get_text_features(input_ids=inputs["input_ids"])
            outputs = {"image": image.pooler_output, "text": text.pooler_output}
            return {name: normalize(value.cpu().double(), dim=-1) for name, value in outputs.items()}
        output = model(**inputs)
    if getattr(output, "logits", None) is not None:
        return {"logits": output.logits.cpu().double()}
    # What has not passed the last norm is the stream, whose mean may have gone; what is pooled has.
    found = output.last_hidden_state
    if not all(stream.output_is_normed for stream in family_of(model.config).streams):
        found = next(value for name in POOLED if (value := getattr(output, name, None)) is not None)
    return {"features": found.cpu().double()}


def random_inputs(model: PreTrainedModel, generator: torch.Generator, batch: int) -> dict[str, torch.Tensor]:
    """Random inputs that a model takes.

    Args:
        model (`PreTrainedModel`): A model of a family.
        generator (`torch.Generator`): The source of randomness.
        batch (`int`): The number of images and of texts.

    Returns:
        `dict[str, torch.Tensor]`: `pixel_values`, float64 `[batch, 3, H, W]`, and `input_ids`, `[batch, length]`, of
        those that it takes.
    """
    config, inputs = model.config, {}
    vision = getattr(config, "vision_config", config)
    patches = getattr(vision, "num_patches", None)
    if patches is not None:
        # SigLIP-2 takes lists of patches, with the shape of their grid.
        size = vision.num_channels * vision.patch_size**2
        side = math.isqrt(patches)
        inputs["pixel_values"] = torch.randn(batch, patches, size, generator=generator, dtype=torch.float64)
        inputs["pixel_attention_mask"] = torch.ones(batch, patches, dtype=torch.long)
        inputs["spatial_shapes"] = torch.tensor([[side, side]] * batch)
    size = getattr(vision, "image_size", None)
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        shape = (batch, vision.num_channels, height, width)
        inputs["pixel_values"] = torch.randn(*shape, generator=generator, dtype=torch.float64)
    for part in (getattr(config, "text_config", None), config):
        if getattr(part, "vocab_size", None):
            inputs["input_ids"] = _random_texts(part, generator, batch)
            break
    if value_of(config, "mask_ratio") is not None:
        patches = (config.image_size // config.patch_size) ** 2
        inputs["noise"] = torch.rand(batch, patches, generator=generator)
    return inputs


def _random_texts(config: Any, generator: torch.Generator, batch: int) -> torch.Tensor:
    """Random token ids `[batch, length]` that end in the token whose place is pooled, where there is one."""
    length = min(LENGTH, getattr(config, "max_position_embeddings", None) or LENGTH)
    tokens = torch.randint(config.vocab_size, (batch, length), generator=generator)
    if isinstance(config.eos_token_id, int) and config.eos_token_id < config.vocab_size:
        tokens[:, -1] = config.eos_token_id
    return tokens


def _resized(pixels: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    """The images in the size that the model takes."""
    size = value_of(model.config, "vision_config.image_size") or value_of(model.config, "image_size")
    wanted = (size, size) if isinstance(size, int) else tuple(size or pixels.shape[-2:])
    return pixels if pixels.shape[-2:] == wanted else interpolate(pixels, size=wanted, mode="bilinear")
