"""MACs of a vision-language model, piece by piece in the order of its forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hf_chain.cost.transformer import decoder_macs, encoder_macs


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


NOTHING: Mapping[str, float] = {}


def grafted_segments(
    config: Any, rows: int, tokens: int, images: int, trained: Mapping[str, float] = NOTHING
) -> list[Segment]:
    """Cuts the forward pass on a batch into layers.

    Args:
        config (`GraftedVLMConfig`): the model.
        rows (`int`): sequences B.
        tokens (`int`): their length L, image positions and padding included.
        images (`int`): images in all of them.
        trained (`Mapping[str, float]`): trained share of the weights of `patches`, `encoder.0`, `encoder.1`, …,
            `adapter`, `decoder.0`, `decoder.1`, …, and `head`; 0 for those that are not named.

    Returns:
        `list[Segment]`: patches and encoder layers, the adapter, decoder layers, the head.
    """
    vision, text = config.vision_config, config.text_config
    segments = []
    if images:
        patches = encoder_macs(config, layers=())
        segments.append(_segment("patches", images * patches, trained))
        for layer in range(vision.num_hidden_layers):
            macs = images * (encoder_macs(config, layers=(layer,)) - patches)
            segments.append(_segment(f"encoder.{layer}", macs, trained))
        segments.append(_segment("adapter", images * adapter_macs(config), trained))
    return segments + decoder_segments(text, rows, tokens, trained)


def decoder_segments(config: Any, rows: int, tokens: int, trained: Mapping[str, float] = NOTHING) -> list[Segment]:
    """The layers and the head of a language model; arguments as for `grafted_segments`.

    Args:
        config (`PreTrainedConfig`): The language model.
        rows (`int`): Sequences B.
        tokens (`int`): Their length L.
        trained (`Mapping[str, float]`): As for `grafted_segments`.

    Returns:
        `list[Segment]`: The layers, the head.
    """
    layers = [
        _segment(f"decoder.{layer}", rows * decoder_macs(config, tokens, layers=(layer,), head=False), trained)
        for layer in range(config.num_hidden_layers)
    ]
    return [*layers, _segment("head", rows * decoder_macs(config, tokens, layers=()), trained)]


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


def _segment(name: str, macs: int, trained: Mapping[str, float]) -> Segment:
    return Segment(name, macs, trained.get(name, 0.0))
