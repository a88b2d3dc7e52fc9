"""The names of trainable parts, and where a model keeps them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.grafting.lineage import is_surrogate, read_lineage
from hf_chain.models.grafted_vlm.vision_towers import tower_layers, tower_norm
from hf_chain.trainer.lora import is_lora

logger = logging.get_logger(__name__)

LAST = re.compile(r"(encoder|decoder)\.last:(\d+)")
VLM_ATTRIBUTES = ("vision_tower", "adapter", "language_model")


def decoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The language model: of a vision-language model its decoder, and otherwise the model itself."""
    return model.language_model if is_vision_language(model) else model


def is_vision_language(model: nn.Module) -> bool:
    """Whether the model has an encoder, an adapter and a decoder."""
    return all(hasattr(model, name) for name in VLM_ATTRIBUTES)


def image_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Parameters that only a batch with images can teach: all but those of the decoder."""
    if not is_vision_language(model):
        return []
    decoder = {id(parameter) for parameter in model.language_model.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in decoder]


def alias_parameters(model: PreTrainedModel, alias: str) -> Iterable[nn.Parameter] | None:
    """The parameters that an alias stands for; `None` when `alias` is none, or the model has no such part.

    Args:
        model (`PreTrainedModel`): a vision-language model or a plain decoder.
        alias (`str`): such as `adapter` or `encoder.last:8`.

    Raises:
        HfChainError: when fewer layers are there than `decoder.last:N` asks for. An encoder gives those it has.
    """
    if (match := LAST.fullmatch(alias)) and (match[1] == "decoder" or is_vision_language(model)):
        return _last_layers(model, match[1], int(match[2]))
    return ALIASES[alias](model) if alias in ALIASES else None


def known_aliases(model: PreTrainedModel) -> list[str]:
    """The aliases that stand for something in `model`."""
    known = [alias for alias, parameters in ALIASES.items() if parameters(model)]
    towers = ("encoder", "decoder") if is_vision_language(model) else ("decoder",)
    return [*known, *(f"{tower}.last:1 to :{len(_layers(model, tower))}" for tower in towers)]


def _of_vision_language(name: str) -> Callable[[PreTrainedModel], list[nn.Parameter] | None]:
    def parameters(model: PreTrainedModel) -> list[nn.Parameter] | None:
        return list(getattr(model, name).parameters()) if is_vision_language(model) else None

    return parameters


def _image_tokens(model: PreTrainedModel) -> list[nn.Parameter] | None:
    if not is_vision_language(model):
        return None
    return [model.image_start, model.image_end]


def _final_norm(model: PreTrainedModel) -> list[nn.Parameter] | None:
    if not is_vision_language(model):
        return None
    return list(tower_norm(model.vision_tower).parameters())


def _translator(model: PreTrainedModel) -> list[nn.Parameter] | None:
    decoder = decoder_of(model)
    if not is_surrogate(decoder.config):
        return None
    layers = decoder_layers(decoder)
    lineage = read_lineage(decoder.config)
    return [parameter for index in lineage.translator_layers for parameter in layers[index].parameters()]


def _decoder(model: PreTrainedModel) -> list[nn.Parameter]:
    adapters = {id(parameter) for parameter in _lora(model)}
    return [parameter for parameter in decoder_of(model).parameters() if id(parameter) not in adapters]


def _lora(model: PreTrainedModel) -> list[nn.Parameter]:
    return [parameter for name, parameter in decoder_of(model).named_parameters() if is_lora(name)]


def _last_layers(model: PreTrainedModel, tower: str, count: int) -> list[nn.Parameter]:
    layers = _layers(model, tower)
    if tower == "encoder" and count > len(layers):
        # The published recipes train the last eight, and small encoders have fewer.
        logger.warning_once(f"part encoder.last:{count}: the encoder has {len(layers)} layers, and all are trained")
    elif not 1 <= count <= len(layers):
        raise HfChainError(f"part {tower}.last:{count} asks for {count} layers: the {tower} has 1 to {len(layers)}")
    named = [item for layer in layers[-count:] for item in layer.named_parameters()]
    return [parameter for name, parameter in named if not is_lora(name)]


def _layers(model: PreTrainedModel, tower: str) -> nn.ModuleList:
    return tower_layers(model.vision_tower) if tower == "encoder" else decoder_layers(decoder_of(model))


ALIASES: dict[str, Callable[[PreTrainedModel], list[nn.Parameter] | None]] = {
    "adapter": _of_vision_language("adapter"),
    "decoder": _decoder,
    "encoder": _of_vision_language("vision_tower"),
    "encoder.post_layernorm": _final_norm,
    "image_tokens": _image_tokens,
    "lora": _lora,
    "translator": _translator,
}
"""Name -> its parameters in a model; `encoder.last:N` and `decoder.last:N` stand beside them."""
