"""What translators are trained for: the loss of one batch, as a sum over its tokens.

A sum, because the mean is taken over all batches of an optimiser step, in all processes, whatever their lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, kl_div

from hf_chain.errors import HfChainError
from hf_chain.grafting.batches import Batch, forward_inputs, next_tokens, real_tokens
from hf_chain.grafting.translator.splice_error import token_weights
from hf_chain.grafting.translator.truncated import entered, remembered, truncated

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from hf_chain.grafting.translator.splice_error import Splice


def counted_tokens(objective: str, batch: Batch) -> torch.Tensor:
    """Over how many tokens of a batch an objective adds up.

    Args:
        objective (`str`): `hidden`, `logits`, `lm` or `gradients`.
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
    return _states_loss(states, expected, real_tokens(batch))


def _states_loss(states: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], real: torch.Tensor) -> torch.Tensor:
    losses = []
    for s, t in zip(states, expected, strict=True):
        t = t.to(s.device)[real.to(s.device)].float()
        difference = s[real.to(s.device)].float() - t
        losses.append((token_weights(t).float() * difference.square().sum(1)).sum())
    return torch.stack([loss.to(losses[-1].device) for loss in losses]).sum()


def gradients_loss(
    surrogate: PreTrainedModel, wrapped: nn.Module, target: PreTrainedModel, found: Sequence[Splice], batch: Batch
) -> torch.Tensor:
    """The loss of `hidden`, and how far what flows back out of the surrogate is from what flows out of the target.

    With g the gradient of the loss of the next tokens with respect to the states that enter the first replaced range,
    a sequence of L tokens adds L ‖g − g'‖² / ‖g'‖², g' the target's. The layers before are the target's own, so an
    encoder before them gets the target's gradient where this is 0. Emulators are judged so by GradOT (arXiv
    2507.04455).

    Args:
        surrogate (`PreTrainedModel`): the surrogate itself.
        wrapped (`nn.Module`): what to call instead of it.
        target (`PreTrainedModel`): what it was cut from.
        found (`Sequence[Splice]`): the splices.
        batch (`Batch`): text, or embeddings with images in them; `labels` `[B, T]` may say what is to be predicted.

    Returns:
        `torch.Tensor`: a scalar without unit, the sum over the tokens.

    Raises:
        HfChainError: when the first layer of all is replaced.
    """
    begin = found[0].replaced.first
    if not begin:
        raise HfChainError("layer 0 is replaced, and there is no state before it: keep it, or train for hidden")
    with torch.no_grad(), truncated(target, [begin - 1]):
        (entering,) = target(**forward_inputs(target, batch))
    # Attention has a second derivative in plain operations alone.
    with sdpa_kernel(SDPBackend.MATH):
        wanted, expected = _flowing_back(
            target, target, begin, entering, [one.target_layer for one in found], batch, again=False
        )
        flowing, states = _flowing_back(
            surrogate, wrapped, begin, entering, [one.surrogate_layer for one in found], batch, again=True
        )
    lengths = real_tokens(batch).sum(1).to(flowing.device)
    flowing, wanted = flowing.float().flatten(1), wanted.to(flowing.device).float().flatten(1)
    size, difference = wanted.square().sum(1), (flowing - wanted).square().sum(1)
    # A sequence with nothing to predict has no gradient.
    apart = (torch.where(size > 0, difference / size.clamp(min=1e-30), 0.0) * lengths).sum()
    return apart + _states_loss(states, expected, real_tokens(batch)).to(apart.device)


def _flowing_back(
    model: PreTrainedModel,
    wrapped: nn.Module,
    begin: int,
    entering: torch.Tensor,
    ends: Sequence[int],
    batch: Batch,
    again: bool,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The gradient `[B, L, d]` of the loss with respect to what enters layer `begin`, and the states after `ends`.

    Where `again`, gradients can be taken of both.
    """
    with torch.enable_grad():
        # A view, as FLOP counters take no gradients of leaves.
        states_in = entering.detach().requires_grad_().view_as(entering)
        with entered(model, begin, states_in), remembered(model, ends) as states:
            logits = wrapped(**forward_inputs(model, batch), use_cache=False).logits[:, :-1]
        labels = next_tokens(batch).to(logits.device)
        loss = cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
        (flowing,) = torch.autograd.grad(loss, states_in, create_graph=again)
    return flowing, [states[end] if again else states[end].detach() for end in ends]


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
