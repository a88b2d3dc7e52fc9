"""Where a decoder-only language model keeps its parts: one row a family, read as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Family:
    """The parts of one family of models with a language-model head.

    Args:
        decoder (`str`): the module that holds embeddings, layers and final norm; also what its weights are called by.
        layers (`str`): the list of layers in it.
        norm (`str`): the norm after the last layer.
        project_out (`str`, *optional*): a projection between the norm and the head, which some of its models have.
        soft_cap (`str`, *optional*): the field of the configuration that limits the logits.
        text (`str`, *optional*): the family of the decoder in a composite model, which also holds other towers.
        prefixes (`tuple[tuple[str, str], ...]`): beginnings of the decoder's names in checkpoints of a composite
            model, and what the decoder on its own calls them.
    """

    decoder: str = "model"
    layers: str = "layers"
    norm: str = "norm"
    project_out: str | None = None
    soft_cap: str | None = None
    text: str | None = None
    prefixes: tuple[tuple[str, str], ...] = ()


FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(),
    "qwen3": Family(),
    "gemma2": Family(soft_cap="final_logit_softcapping"),
    "gemma3_text": Family(soft_cap="final_logit_softcapping"),
    "gemma3": Family(
        decoder="model.language_model",
        text="gemma3_text",
        prefixes=(
            ("language_model.model.", "model."),
            ("language_model.lm_head.", "lm_head."),
            ("model.language_model.", "model."),
            ("lm_head.", "lm_head."),
        ),
    ),
    "phi3": Family(),
    "olmo2": Family(),
    "gpt2": Family(decoder="transformer", layers="h", norm="ln_f"),
    "opt": Family(decoder="model.decoder", norm="final_layer_norm", project_out="project_out"),
    "gpt_neox": Family(decoder="gpt_neox", norm="final_layer_norm"),
    "mixtral": Family(),
    "qwen3_moe": Family(),
}
"""`model_type` -> its row. A new family is a new row, and its layer rules in `layer_config.py` where it has some."""


def family(config: PreTrainedConfig) -> Family:
    """The row of a model.

    Args:
        config (`PreTrainedConfig`): the model's configuration.

    Returns:
        `Family`: its row.

    Raises:
        HfChainError: when the family is not in the table.
    """
    return family_named(config.model_type)


def family_named(model_type: str) -> Family:
    """The row of a family.

    Args:
        model_type (`str`): what its configurations call it.

    Returns:
        `Family`: its row.

    Raises:
        HfChainError: when the family is not in the table.
    """
    if model_type not in FAMILIES:
        raise HfChainError(
            f"model_type {model_type!r} is not known to grafting: use one of {', '.join(FAMILIES)}, or add a row to"
            " FAMILIES in hf_chain/grafting/anatomy.py"
        )
    return FAMILIES[model_type]


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
    family(found)
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
    row = family(text_config(config))
    return f"{row.decoder}.{row.layers}."


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder's layers.

    Args:
        model (`PreTrainedModel`): a model with a language-model head.

    Returns:
        `nn.ModuleList`: the layers themselves.
    """
    row = family(model.config)
    return cast("nn.ModuleList", getattr(_decoder(model), row.layers))


def final_norm(model: PreTrainedModel) -> nn.Module | None:
    """The norm after the last layer; `None` for the few OPT models without one.

    Args:
        model (`PreTrainedModel`): a model with a language-model head.

    Returns:
        `nn.Module`, *optional*: the norm itself.
    """
    return cast("nn.Module | None", getattr(_decoder(model), family(model.config).norm))


def lm_logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """The model's prediction from a hidden state: final norm, projection, head and soft cap, as the model does it.

    Args:
        model (`PreTrainedModel`): a model with a language-model head.
        hidden (`torch.Tensor` of shape `[..., d]`): what comes out of a layer.

    Returns:
        `torch.Tensor` of shape `[..., V]`: the logits.
    """
    row = family(text_config(model.config))
    norm = final_norm(model)
    if norm is not None:
        hidden = norm(hidden)
    projection = getattr(_decoder(model), row.project_out) if row.project_out else None
    if projection is not None:
        hidden = projection(hidden)
    logits = model.get_output_embeddings()(hidden)
    return capped(logits, getattr(text_config(model.config), row.soft_cap) if row.soft_cap else None)


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
    return model.get_submodule(family(model.config).decoder)
