"""What the hidden state after a layer predicts, in any decoder: by the table of families, or as found in the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import FAMILIES, check_head, decoder_layers, lm_logits

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class LogitLens:
    """The layers of a decoder, and its prediction from the hidden state after any of them.

    Attributes:
        layers (`nn.ModuleList`): the L layers.
        logits (`Callable`): from hidden states `[..., d]` to logits `[..., V]`.
    """

    layers: nn.ModuleList
    logits: Callable[[torch.Tensor], torch.Tensor]


def logit_lens(model: PreTrainedModel) -> LogitLens:
    """Finds layers and prediction of a decoder-only language model.

    Of a family that is not in the table, norm and head are found in the model, and have to give its own logits.

    Args:
        model (`PreTrainedModel`): a decoder with a language-model head, in evaluation mode.

    Returns:
        `LogitLens`: what was found.

    Raises:
        HfChainError: when the model has no head or no list of its layers, or predicts in another way.
    """
    layers = any_layers(model)
    if model.config.model_type in FAMILIES:
        return LogitLens(layers, partial(lm_logits, model))
    lens = LogitLens(layers, partial(_found_logits, model, _norm_after(layers, model.get_decoder())))
    _check(model, lens)
    return lens


def any_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a decoder of any family.

    Args:
        model (`PreTrainedModel`): a decoder with a language-model head.

    Returns:
        `nn.ModuleList`: the layers themselves.

    Raises:
        HfChainError: when the model has no head, or no list of its layers.
    """
    if model.config.model_type in FAMILIES:
        return decoder_layers(model)
    check_head(model)
    depth = decoder_config(model.config).num_hidden_layers
    for child in model.get_decoder().children():
        if isinstance(child, nn.ModuleList) and len(child) == depth:
            return child
    raise HfChainError(f"{type(model).__name__} has no list of {depth} layers, so nothing can be measured there")


def decoder_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The decoder's own configuration, of a composite model too, whatever its family."""
    return cast("PreTrainedConfig", config.get_text_config(decoder=True))


def _norm_after(layers: nn.ModuleList, decoder: nn.Module) -> nn.Module | None:
    children = list(decoder.children())
    later = children[children.index(layers) + 1 :]
    return next((child for child in later if "norm" in type(child).__name__.lower()), None)


def _found_logits(model: PreTrainedModel, norm: nn.Module | None, hidden: torch.Tensor) -> torch.Tensor:
    logits = model.get_output_embeddings()(hidden if norm is None else norm(hidden))
    config = decoder_config(model.config)
    # What families do to their logits: Cohere, Granite, and those after Gemma-2.
    logits = logits * (getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1)
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else (logits / cap).tanh() * cap


@torch.no_grad()
def _check(model: PreTrainedModel, lens: LogitLens) -> None:
    states: list[torch.Tensor] = []

    def keep(module: nn.Module, args: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        states.append(output if isinstance(output, torch.Tensor) else output[0])

    hook = lens.layers[-1].register_forward_hook(keep)
    try:
        ids = torch.arange(3, 7, device=model.get_input_embeddings().weight.device)[None]
        expected = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
    found = lens.logits(states[0]).to(expected)
    rounding = 16 * torch.finfo(expected.dtype).eps * float(expected.abs().max())
    if not torch.allclose(found, expected, rtol=0, atol=rounding):
        raise HfChainError(
            f"{type(model).__name__} does more to its last hidden state than norm and head, so the predictions of its"
            " layers are not known: add a row to FAMILIES in hf_chain/grafting/anatomy.py"
        )
