"""What translators are trained for: the loss of one batch, as a sum over its tokens.

A sum, because the mean is taken over all batches of an optimiser step, in all processes, whatever their lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy, kl_div

from hf_chain.grafting.batches import Batch, forward_inputs, next_tokens, real_tokens
from hf_chain.grafting.translator.splice_error import token_weights
from hf_chain.grafting.translator.truncated import truncated

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from hf_chain.grafting.translator.splice_error import Splice


def counted_tokens(objective: str, batch: Batch) -> torch.Tensor:
    """Over how many tokens of a batch an objective adds up.

    Args:
        objective (`str`): `hidden`, `logits` or `lm`.
        batch (`Batch`): text.

    Returns:
        `torch.Tensor`: a scalar, on the batch's device.
    """
    return (next_tokens(batch) != -100).sum() if objective == "lm" else real_tokens(batch).sum()


def hidden_loss(
    surrogate: PreTrainedModel, wrapped: nn.Module, target: PreTrainedModel, found: Sequence[Splice], batch: Batch
) -> torch.Tensor:
    """Squared distance of the hidden states at every splice, of each token relative to the target's squared length.

    Neither the layers after the last splice nor the heads are run.

    Args:
        surrogate (`PreTrainedModel`): the surrogate itself.
        wrapped (`nn.Module`): what to call instead of it: the surrogate, or what an engine wrapped it in.
        target (`PreTrainedModel`): what it was cut from.
        found (`Sequence[Splice]`): the splices; their losses are added.
        batch (`Batch`): `input_ids` and `attention_mask` `[B, T]`.

    Returns:
        `torch.Tensor`: a scalar without unit, the sum over the tokens; 0 where the hidden states are the target's.
    """
    with torch.no_grad(), truncated(target, [splice.target_layer for splice in found]):
        expected = target(**forward_inputs(target, batch))
    with truncated(surrogate, [splice.surrogate_layer for splice in found]):
        states = wrapped(**forward_inputs(surrogate, batch))
    real, losses = real_tokens(batch), []
    for s, t in zip(states, expected, strict=True):
        t = t.to(s.device)[real.to(s.device)].float()
        difference = s[real.to(s.device)].float() - t
        losses.append((token_weights(t).float() * difference.square().sum(1)).sum())
    return torch.stack([loss.to(losses[-1].device) for loss in losses]).sum()


def logits_loss(surrogate: PreTrainedModel, wrapped: nn.Module, target: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """KL divergence of the surrogate's prediction from the target's.

    Args:
        surrogate (`PreTrainedModel`): the surrogate itself.
        wrapped (`nn.Module`): what to call instead of it.
        target (`PreTrainedModel`): what it was cut from.
        batch (`Batch`): text.

    Returns:
        `torch.Tensor`: a scalar in nats, the sum over the tokens.
    """
    predicted = wrapped(**forward_inputs(surrogate, batch), use_cache=False).logits
    with torch.no_grad():
        expected = target(**forward_inputs(target, batch), use_cache=False).logits.to(predicted.device)
    real = real_tokens(batch).to(predicted.device)
    found, wanted = (logits[real].float().log_softmax(1) for logits in (predicted, expected))
    return kl_div(found, wanted, reduction="sum", log_target=True)


def lm_loss(surrogate: PreTrainedModel, wrapped: nn.Module, batch: Batch) -> torch.Tensor:
    """Negative log-likelihood of the next token.

    Args:
        surrogate (`PreTrainedModel`): the surrogate itself.
        wrapped (`nn.Module`): what to call instead of it.
        batch (`Batch`): text; `labels` `[B, T]` may say which tokens are to be predicted.

    Returns:
        `torch.Tensor`: a scalar in nats, the sum over the tokens that are to be predicted; 0 where there is none.
    """
    logits = wrapped(**forward_inputs(surrogate, batch), use_cache=False).logits[:, :-1]
    labels = next_tokens(batch).to(logits.device)
    return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
