"""What every layer predicts for one batch: its hidden state through the final norm and the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cosine_similarity

from hf_chain.grafting.anatomy import decoder_config
from hf_chain.grafting.batches import Batch, batch_shape, forward_inputs, next_tokens
from hf_chain.grafting.logit_lens import LogitLens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
