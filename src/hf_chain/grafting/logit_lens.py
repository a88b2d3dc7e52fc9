"""What the hidden state after a layer predicts, in any decoder: by the table of families, or as found in the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from hf_chain.cost.macs import layer_list
from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import (
    check_head,
    decoder_config,
    decoder_layers,
    is_described,
    lm_logits,
    scaled_logits,
)
from hf_chain.grafting.batches import forward_inputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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

    Of a family that is not in the table, norm and head are found in the model, and have to give its own logits of four
    tokens, whose forward is not counted as a cost.

    Args:
        model (`PreTrainedModel`): a decoder with a language-model head, in evaluation mode.

    Returns:
        `LogitLens`: what was found.

    Raises:
        HfChainError: when the model has no head or no list of its layers, or predicts in another way.
    """
    layers = layers_of(model)
    if is_described(model.config):
        return LogitLens(layers, partial(lm_logits, model))
    lens = LogitLens(layers, partial(_found_logits, model, _norm_after(layers, model)))
    _check(model, lens)
    return lens


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a decoder of any family.

    Args:
        model (`PreTrainedModel`): a decoder with a language-model head.

    Returns:
        `nn.ModuleList`: the layers themselves.

    Raises:
        HfChainError: when the model has no head, or no list of its layers.
    """
    if is_described(model.config):
        return decoder_layers(model)
    check_head(model)
    return cast("nn.ModuleList", layer_list(model, decoder_config(model.config).num_hidden_layers))


def _norm_after(layers: nn.ModuleList, model: PreTrainedModel) -> nn.Module | None:
    """The norm that stands behind the layers, in the module that holds both."""
    siblings = next(found for module in model.modules() if layers in (found := list(module.children())))
    later = siblings[siblings.index(layers) + 1 :]
    return next((module for module in later if "norm" in type(module).__name__.lower()), None)


def _found_logits(model: PreTrainedModel, norm: nn.Module | None, hidden: torch.Tensor) -> torch.Tensor:
    config = decoder_config(model.config)
    logits = model.get_output_embeddings()(hidden if norm is None else norm(hidden))
    return scaled_logits(logits, config)


@torch.no_grad()
def _check(model: PreTrainedModel, lens: LogitLens) -> None:
    states: list[torch.Tensor] = []

    def keep(module: nn.Module, args: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        states.append(output if isinstance(output, torch.Tensor) else output[0])

    hook = lens.layers[-1].register_forward_hook(keep)
    try:
        inputs = forward_inputs(model, {"input_ids": torch.arange(3, 7)[None]})
        expected = model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    found = lens.logits(states[0]).to(expected)
    # The same operations on the same shapes: nothing but their order may differ.
    rounding = 2 * torch.finfo(expected.dtype).eps * float(expected.abs().max())
    if not torch.allclose(found, expected, rtol=0, atol=rounding):
        raise HfChainError(
            f"{type(model).__name__} does more to its last hidden state than norm and head, so what its layers predict"
            " is not known: measure another model, or name layers to replace"
        )
