"""Where a surrogate joins its target again, and how far its hidden state is from that of the target there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.grafting.batches import Batch, check_batches, forward_inputs, real_tokens
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.ranges import LayerRange
from hf_chain.grafting.translator.truncated import truncated, without_layers
from hf_chain.module_modes import evaluation_mode

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Splice:
    """One replaced range.

    Args:
        replaced (`LayerRange`): the range, in the target's layers.
        translators (`tuple[int, ...]`): what stands for it, in the surrogate's layers.
    """

    replaced: LayerRange
    translators: tuple[int, ...]

    @property
    def surrogate_layer(self) -> int:
        """The surrogate's layer after which the splice is."""
        return self.translators[-1]

    @property
    def target_layer(self) -> int:
        """The target's layer after which it is."""
        return self.replaced.last


def splices(surrogate: PreTrainedModel) -> tuple[Splice, ...]:
    """The splices of a surrogate, from its lineage, first layers first.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage.

    Returns:
        `tuple[Splice]`: one for each range.

    Raises:
        HfChainError: when the model has no lineage of a surrogate.
    """
    lineage = read_lineage(surrogate.config)
    layers, each = lineage.translator_layers, lineage.translators
    return tuple(
        Splice(span, tuple(layers[number * each : (number + 1) * each]))
        for number, span in enumerate(lineage.replaced)
    )


def translator_modules(surrogate: PreTrainedModel) -> list[nn.Module]:
    """The translator layers of all ranges, which are about to change.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage.

    Returns:
        `list[nn.Module]`: layers of the surrogate.

    Raises:
        HfChainError: when the model has no lineage of a surrogate, or weights of these layers are offloaded.
    """
    layers = decoder_layers(surrogate)
    chosen = [layers[index] for splice in splices(surrogate) for index in splice.translators]
    if any(weight.is_meta for layer in chosen for weight in layer.parameters()):
        raise HfChainError(
            "the surrogate's translator is offloaded, and cannot change there: load the surrogate whole"
        )
    return chosen


class SpliceErrorSum:
    """The splice error, added up token by token in float64.

    With t_i the target's hidden state after the range at token i and s_i the surrogate's,

        E² = Σ_i w_i ‖s_i − t_i‖² / Σ_i w_i ‖t_i − t̄‖²,   w_i = ‖t_i‖⁻²,   t̄ = Σ_i w_i t_i / Σ_i w_i.

    0 is the target itself, 1 is as bad as a constant. A token counts relative to its own length because every later
    layer normalises it; else the first token, many times longer in most LLMs (arXiv 2402.17762), would outweigh all
    others.
    """

    def __init__(self) -> None:
        self.difference = self.weight = self.tokens = 0.0
        self.weighted_sum: torch.Tensor | float = 0.0

    def add(self, surrogate: torch.Tensor, target: torch.Tensor) -> None:
        """Adds N tokens, `[N, d]` each.

        Args:
            surrogate (`torch.Tensor` of shape `[N, d]`): its hidden states.
            target (`torch.Tensor` of shape `[N, d]`): the target's.
        """
        target = target.double()
        weights = token_weights(target)
        difference = (surrogate.to(target.device).double() - target).square().sum(1)
        self.difference += (weights * difference).sum().item()
        self.weight += weights.sum().item()
        self.weighted_sum = self.weighted_sum + (weights[:, None] * target).sum(0)
        self.tokens += len(target)

    @property
    def error(self) -> float:
        """E; not a number before there are two different tokens."""
        mean_part = torch.as_tensor(self.weighted_sum).square().sum().item() / max(self.weight, 1e-300)
        spread = self.tokens - mean_part
        return math.sqrt(self.difference / spread) if spread > 0 else math.nan


def token_weights(target: torch.Tensor) -> torch.Tensor:
    """w_i = ‖t_i‖⁻² of hidden states `[N, d]`, in float64.

    Args:
        target (`torch.Tensor` of shape `[N, d]`): the target's hidden states.

    Returns:
        `torch.Tensor` of shape `[N]`: w.
    """
    return target.double().square().sum(1).clamp_min(1e-300).reciprocal()


def splice_error(surrogate: PreTrainedModel, target: PreTrainedModel, batches: Iterable[Batch]) -> list[float]:
    """The error at each splice, see `SpliceErrorSum`; only the layers up to the last splice are run.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage.
        target (`PreTrainedModel`): what it was cut from.
        batches (`Iterable[Batch]`): text.

    Returns:
        `list[float]`: one error for each replaced range, first layers first.

    Raises:
        HfChainError: when the model is no surrogate, hidden states are not finite, or there is no text.
    """
    found = splices(surrogate)
    return _errors(surrogate, target, [(s.surrogate_layer, s.target_layer) for s in found], batches)


def dropping_error(target: PreTrainedModel, ranges: Sequence[LayerRange], batches: Iterable[Batch]) -> list[float]:
    """The error at each splice when the ranges are dropped and nothing stands for them.

    Args:
        target (`PreTrainedModel`): the language model; it is not changed.
        ranges (`Sequence[LayerRange]`): the dropped layers, first ones first.
        batches (`Iterable[Batch]`): text.

    Returns:
        `list[float]`: one error for each range.

    Raises:
        HfChainError: when hidden states are not finite, or there is no text.
    """
    return _errors(target, target, [(span.last, span.last) for span in ranges], batches, dropped=ranges)


def _errors(
    surrogate: PreTrainedModel,
    target: PreTrainedModel,
    layers: Sequence[tuple[int, int]],
    batches: Iterable[Batch],
    dropped: Sequence[LayerRange] = (),
) -> list[float]:
    check_batches(batches, "the held-out text", passes=1)
    sums = [SpliceErrorSum() for _ in layers]
    surrogate_layers, target_layers = zip(*layers, strict=True)
    with evaluation_mode(surrogate, target):
        for batch in batches:
            with truncated(target, target_layers):
                expected = target(**forward_inputs(target, batch))
            with without_layers(surrogate, dropped), truncated(surrogate, surrogate_layers):
                found = surrogate(**forward_inputs(surrogate, batch))
            for total, s, t in zip(sums, found, expected, strict=True):
                add_real(total, s, t, batch)
    return finite_errors(sums)


def add_real(total: SpliceErrorSum, surrogate: torch.Tensor, target: torch.Tensor, batch: Batch) -> None:
    """Adds the tokens of a batch that are no padding to a sum.

    Args:
        total (`SpliceErrorSum`): the sum.
        surrogate (`torch.Tensor` of shape `[B, L, d]`): its hidden states.
        target (`torch.Tensor` of shape `[B, L, d]`): the target's.
        batch (`Batch`): the text.
    """
    real = real_tokens(batch)
    total.add(surrogate[real.to(surrogate.device)], target[real.to(target.device)])


def finite_errors(sums: Iterable[SpliceErrorSum]) -> list[float]:
    """The error of each sum.

    Raises:
        HfChainError: when one is not finite.
    """
    errors = [total.error for total in sums]
    if not all(map(math.isfinite, errors)):
        raise HfChainError(
            "hidden states at the splice are not finite, or all equal: load both models in float32 or bfloat16, and"
            " give real text"
        )
    return errors
