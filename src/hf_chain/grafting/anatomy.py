"""The parts of a decoder-only language model, found as its family describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hf_chain.errors import HfChainError
from hf_chain.families import COMPOSITES, FAMILIES, Family

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

DECODERS = tuple(name for name, family in FAMILIES.items() if family.kind == "language")
"""`model_type` of the language models that are described."""


def is_described(config: PreTrainedConfig) -> bool:
    """Whether a model is a described decoder, or holds one.

    Args:
        config (`PreTrainedConfig`): any model's configuration.
    """
    return config.model_type in DECODERS or config.model_type in COMPOSITES


def check_described(model_type: str) -> None:
    """Refuses models that are no described decoder and hold none.

    Args:
        model_type (`str`): what their configurations call them.

    Raises:
        HfChainError: when it is neither.
    """
    if model_type not in DECODERS and model_type not in COMPOSITES:
        raise HfChainError(
            f"model_type {model_type!r} is not known to grafting: use one of {', '.join((*DECODERS, *COMPOSITES))}, or"
            " add a family (docs/families.md)"
        )


def decoder_family(config: PreTrainedConfig) -> Family:
    """The family of a decoder, of a composite model too.

    Args:
        config (`PreTrainedConfig`): a model's configuration.

    Raises:
        HfChainError: when it is not described.
    """
    return FAMILIES[text_config(config).model_type]


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The decoder's own configuration, of a composite model too.

    Args:
        config (`PreTrainedConfig`): a model's configuration.

    Returns:
        `PreTrainedConfig`: the same where the model is a decoder alone.

    Raises:
        HfChainError: when the decoder's family is not in the table.
    """
    found = decoder_config(config)
    check_described(found.model_type)
    return found


def decoder_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The decoder's own configuration, of a composite model too, whatever its family.

    Args:
        config (`PreTrainedConfig`): a model's configuration.

    Returns:
        `PreTrainedConfig`: the same where the model is a decoder alone.
    """
    return cast("PreTrainedConfig", config.get_text_config(decoder=True))


def num_layers(config: PreTrainedConfig) -> int:
    """The number of decoder layers.

    Args:
        config (`PreTrainedConfig`): a model's configuration.

    Returns:
        `int`: of a composite model, its decoder's.
    """
    return cast(int, text_config(config).num_hidden_layers)


def hidden_size(config: PreTrainedConfig) -> int:
    """The width of the hidden state between two layers.

    Args:
        config (`PreTrainedConfig`): a model's configuration.

    Returns:
        `int`: channels d.
    """
    return cast(int, text_config(config).hidden_size)


def layer_prefix(config: PreTrainedConfig) -> str:
    """What the names of the decoder's layer weights begin with in the state dict of a decoder on its own.

    Args:
        config (`PreTrainedConfig`): a model's configuration; of a composite one, its decoder counts.

    Returns:
        `str`: such as `"model.layers."`, before the layer's number.
    """
    return decoder_family(config).streams[0].blocks


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder's layers.

    Args:
        model (`PreTrainedModel`): a model with a language-model head.

    Returns:
        `nn.ModuleList`: the layers themselves.
    """
    _, _, name = layer_prefix(model.config).rstrip(".").rpartition(".")
    return cast("nn.ModuleList", getattr(_decoder(model), name))


def final_norm(model: PreTrainedModel) -> nn.Module | None:
    """The norm after the last layer; `None` for the few OPT models without one.

    Args:
        model (`PreTrainedModel`): a model with a language-model head.

    Returns:
        `nn.Module`, *optional*: the norm itself.
    """
    _, _, name = str(decoder_family(model.config).streams[0].last_norm).rpartition(".")
    return cast("nn.Module | None", getattr(_decoder(model), name))


def lm_logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """The model's prediction from a hidden state: final norm, projection, head, scale and soft cap, as it does it.

    Args:
        model (`PreTrainedModel`): a model with a language-model head.
        hidden (`torch.Tensor` of shape `[..., d]`): what comes out of a layer.

    Returns:
        `torch.Tensor` of shape `[..., V]`: the logits.
    """
    norm, name = final_norm(model), decoder_family(model.config).project_out
    if norm is not None:
        hidden = norm(hidden)
    projection = getattr(_decoder(model), name) if name else None
    if projection is not None:
        hidden = projection(hidden)
    logits = model.get_output_embeddings()(hidden)
    return scaled_logits(logits, text_config(model.config))


def scaled_logits(logits: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """What the stock classes do to logits behind the head, as the fields of their configurations say.

    Args:
        logits (`torch.Tensor`): of any shape.
        config (`PreTrainedConfig`): the decoder's.

    Returns:
        `torch.Tensor`: of the same shape.
    """
    if factor := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * factor
    if divisor := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / divisor
    return capped(logits, getattr(config, "final_logit_softcapping", None))


def capped(logits: torch.Tensor, cap: float | None) -> torch.Tensor:
    """Logits under a soft cap, in the order and the precision of the stock classes, so that they are the model's own.

    Args:
        logits (`torch.Tensor`): of any shape.
        cap (`float`, *optional*): what they stay below.

    Returns:
        `torch.Tensor`: of the same shape.
    """
    return logits if cap is None else (logits / cap).tanh() * cap


def check_head(model: PreTrainedModel) -> None:
    """Makes sure that a model predicts tokens.

    Args:
        model (`PreTrainedModel`): any model.

    Raises:
        HfChainError: when it has no language-model head.
    """
    if model.get_output_embeddings() is None:
        raise HfChainError(
            f"{type(model).__name__} has no language-model head: load it with AutoModelForCausalLM.from_pretrained"
        )


def _decoder(model: PreTrainedModel) -> nn.Module:
    check_head(model)
    composite = COMPOSITES.get(model.config.model_type)
    prefix = composite.decoder if composite else layer_prefix(model.config).rstrip(".").rpartition(".")[0]
    return model.get_submodule(prefix)
