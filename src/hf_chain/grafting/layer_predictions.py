"""What every layer predicts: its hidden state through the final norm and the head, in any decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

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
from hf_chain.grafting.batches import Batch, batch_shape, forward_inputs, next_tokens

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


LOGITS_AT_A_TIME = 2**25
"""Logits of one layer that are in memory at once: 128 MB in float32, about six times that with the work on them."""


@dataclass(frozen=True)
class LayerPredictions:
    """Predictions of a model with L layers at the N counted positions of a batch, on the CPU.

    Attributes:
        true_token (`torch.Tensor` of shape `[L + 1, N]`): log-probability of the true next token.
        vocabulary_kl (`torch.Tensor` of shape `[L + 1, N]`): KL divergence from the final prediction, in nats.
        cosine (`torch.Tensor` of shape `[L, N]`): cosine of what enters and what leaves a layer.
    """

    true_token: torch.Tensor
    vocabulary_kl: torch.Tensor
    cosine: torch.Tensor


def counted_positions(batch: Batch) -> torch.Tensor:
    """Positions whose next token is measured.

    Args:
        batch (`Batch`): `input_ids` and `attention_mask` `[B, T]`, and maybe `labels` `[B, T]`,
            which are −100 at tokens that do not count.

    Returns:
        `torch.Tensor` of shape `[B, T]`: boolean; empty in rows with one such position, which has nothing to be
        compared with.
    """
    counted = torch.zeros(batch_shape(batch), dtype=torch.bool)
    counted[:, :-1] = next_tokens(batch) != -100
    return counted & (counted.sum(1, keepdim=True) > 1)


@torch.no_grad()
def predict_from_layers(
    model: PreTrainedModel, lens: LogitLens, batch: Batch, counted: torch.Tensor
) -> LayerPredictions:
    """Runs a model once and its head on every hidden state.

    The hidden states of the counted positions stay in memory, each on the device of its layer. Logits do for
    `LOGITS_AT_A_TIME` / V positions of the last layer and of one other.

    Args:
        model (`PreTrainedModel`): a decoder with a language-model head, in evaluation mode.
        lens (`LogitLens`): its layers, and what their hidden states predict.
        batch (`Batch`): `input_ids` and `attention_mask` `[B, T]`.
        counted (`torch.Tensor` of shape `[B, T]`): N positions that have a next token.

    Returns:
        `LayerPredictions`: of the N positions, on the CPU.
    """
    states = _hidden_states(model, lens, batch, counted)
    wanted = next_tokens(batch)[counted[:, :-1]]
    true_token, vocabulary_kl = torch.empty(2, len(states), len(wanted)).unbind()
    step = max(1, LOGITS_AT_A_TIME // decoder_config(model.config).vocab_size)
    for start in range(0, len(wanted), step):
        part = slice(start, start + step)
        final = _log_probabilities(lens, states[-1][part])
        chosen = wanted[part, None].to(final.device)
        final_probability = final.exp()
        for layer, state in enumerate(states):
            predicted = final if layer == len(states) - 1 else _log_probabilities(lens, state[part])
            true_token[layer, part] = predicted.gather(1, chosen)[:, 0].cpu()
            vocabulary_kl[layer, part] = (final - predicted).mul_(final_probability).sum(1).cpu()
    cosine = [
        cosine_similarity(before.to(after.device).float(), after.float(), dim=1).cpu()
        for before, after in zip(states, states[1:], strict=False)
    ]
    return LayerPredictions(true_token, vocabulary_kl, torch.stack(cosine))


def _log_probabilities(lens: LogitLens, state: torch.Tensor) -> torch.Tensor:
    return lens.logits(state).float().log_softmax(1)


def _hidden_states(model: PreTrainedModel, lens: LogitLens, batch: Batch, counted: torch.Tensor) -> list[torch.Tensor]:
    """L + 1 states `[N, d]` at the counted positions: before the first layer and after each."""
    states: list[torch.Tensor] = []

    def keep(state: torch.Tensor) -> None:
        states.append(state[counted.to(state.device)])

    def before(module: Any, args: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        keep(args[0] if args else named["hidden_states"])

    def after(module: Any, args: Any, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        keep(output if isinstance(output, torch.Tensor) else output[0])

    hooks = [lens.layers[0].register_forward_pre_hook(before, with_kwargs=True)]
    hooks += [layer.register_forward_hook(after) for layer in lens.layers]
    try:
        # The head runs on the last position only: it is applied to the states afterwards, a part at a time.
        model(**forward_inputs(model, batch), use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return states
