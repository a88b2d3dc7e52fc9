"""How good a translator is on held-out text, against the target and against layer dropping alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from hf_chain.errors import HfChainError
from hf_chain.grafting.batches import Batch, check_batches, forward_inputs, next_tokens
from hf_chain.grafting.translator.splice_error import SpliceErrorSum, add_real, finite_errors, splices
from hf_chain.grafting.translator.truncated import remembered, truncated, without_layers
from hf_chain.grafting.translator_table import loss_recovered
from hf_chain.module_modes import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_chain.grafting.ranges import LayerRange


LARGEST_LOSS = 700.0
"""Nats a token, beyond which there is no perplexity in float64."""


class LossSum:
    """Negative log-likelihood of next tokens, added up batch by batch.

    Args:
        name (`str`): what the user calls the model.
    """

    def __init__(self, name: str) -> None:
        self.name, self.total, self.tokens = name, 0.0, 0

    def add(self, logits: torch.Tensor, batch: Batch) -> None:
        """Adds the real tokens of a batch, with `labels` only those whose label is not −100.

        Args:
            logits (`torch.Tensor` of shape `[B, L, V]`): the predictions.
            batch (`Batch`): the text.
        """
        labels = next_tokens(batch).to(logits.device)
        found = logits[:, :-1].float().flatten(0, 1)
        self.total += cross_entropy(found, labels.flatten(), ignore_index=-100, reduction="sum").item()
        self.tokens += int((labels != -100).sum())

    @property
    def perplexity(self) -> float:
        """exp of the mean.

        Raises:
            HfChainError: when there is no token to predict, or predictions are not finite.
        """
        if not self.tokens:
            raise HfChainError("the held-out batches hold no token to predict: give sequences of two tokens or more")
        if not self.total / self.tokens < LARGEST_LOSS:
            raise HfChainError(
                f"predictions of {self.name} are not finite: load it with dtype=torch.bfloat16 or torch.float32"
            )
        return math.exp(self.total / self.tokens)


def perplexity(model: PreTrainedModel, batches: Iterable[Batch], dropped: Sequence[LayerRange] = ()) -> float:
    """exp of the mean negative log-likelihood of the next token, padding left out.

    Args:
        model (`PreTrainedModel`): a language model, also one spread over devices or offloaded by `device_map`.
        batches (`Iterable[Batch]`): text; with `labels` only tokens whose label is not −100 are predicted.
        dropped (`Sequence[LayerRange]`, *optional*): layers to leave out.

    Returns:
        `float`: above 1.

    Raises:
        HfChainError: when there is no token to predict, or predictions are not finite.
    """
    check_batches(batches, "the held-out text", passes=1)
    losses = LossSum(name_of(model))
    with evaluation_mode(model), without_layers(model, dropped):
        for batch in batches:
            losses.add(model(**forward_inputs(model, batch), use_cache=False).logits, batch)
    return losses.perplexity


def name_of(model: PreTrainedModel) -> str:
    """What a user calls a model."""
    return model.name_or_path or type(model).__name__


@dataclass(frozen=True)
class Reference:
    """What every translator of the same ranges is compared with.

    Attributes:
        target_perplexity (`float`): of the whole target.
        dropping_perplexity (`float`): of the target when the ranges are dropped and nothing stands for them.
        dropping_splice_error (`list[float]`): the error at each splice then.
    """

    target_perplexity: float
    dropping_perplexity: float
    dropping_splice_error: list[float]


@dataclass(frozen=True)
class TranslatorQuality:
    """What a translator is worth.

    Attributes:
        splice_error (`list[float]`): the error at each splice, see `SpliceErrorSum`.
        perplexity (`float`): of the surrogate.
        reference (`Reference`): what to compare it with.
    """

    splice_error: list[float]
    perplexity: float
    reference: Reference

    @property
    def recovered(self) -> float | None:
        """See [`~grafting.translator_table.loss_recovered`]."""
        return loss_recovered(self.reference.target_perplexity, self.reference.dropping_perplexity, self.perplexity)


def measure_reference(target: PreTrainedModel, ranges: Sequence[LayerRange], held_out: Iterable[Batch]) -> Reference:
    """Perplexity of the target, and perplexity and splice error of layer dropping.

    Args:
        target (`PreTrainedModel`): the language model; it is not changed.
        ranges (`Sequence[LayerRange]`): the replaced layers.
        held_out (`Iterable[Batch]`): text.

    Returns:
        `Reference`: the three numbers.

    Raises:
        HfChainError: as `perplexity` and `dropping_error`.
    """
    check_batches(held_out, "the held-out text", passes=1)
    sums = _ReferenceSums(target, ranges)
    with evaluation_mode(target):
        for batch in held_out:
            sums.add(batch)
    return sums.reference


def measure_quality(
    surrogate: PreTrainedModel,
    target: PreTrainedModel,
    held_out: Iterable[Batch],
    reference: Reference | None = None,
) -> TranslatorQuality:
    """Splice error and perplexity of a surrogate.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage.
        target (`PreTrainedModel`): what it was cut from.
        held_out (`Iterable[Batch]`): text, gone through once.
        reference (`Reference`, *optional*): measured on the same text before.

    Returns:
        `TranslatorQuality`: the surrogate's numbers beside the reference.

    Raises:
        HfChainError: as `perplexity` and `splice_error`.
    """
    check_batches(held_out, "the held-out text", passes=1)
    found = splices(surrogate)
    sums = _ReferenceSums(target, [splice.replaced for splice in found]) if reference is None else None
    losses, errors = LossSum(name_of(surrogate)), [SpliceErrorSum() for _ in found]
    with evaluation_mode(surrogate, target):
        for batch in held_out:
            if sums is not None:
                expected = sums.add(batch)
            else:
                with truncated(target, [splice.target_layer for splice in found]):
                    expected = target(**forward_inputs(target, batch))
            with remembered(surrogate, [splice.surrogate_layer for splice in found]) as states:
                losses.add(surrogate(**forward_inputs(surrogate, batch), use_cache=False).logits, batch)
            for error, splice, wanted in zip(errors, found, expected, strict=True):
                add_real(error, states[splice.surrogate_layer], wanted, batch)
    if sums is not None:
        reference = sums.reference
    assert reference is not None
    return TranslatorQuality(finite_errors(errors), losses.perplexity, reference)


class _ReferenceSums:
    """The target, whole and without the ranges, on one batch after the other."""

    def __init__(self, target: PreTrainedModel, ranges: Sequence[LayerRange]) -> None:
        self.target, self.ranges = target, ranges
        self.whole, self.dropped = LossSum(name_of(target)), LossSum(name_of(target))
        self.errors = [SpliceErrorSum() for _ in ranges]

    def add(self, batch: Batch) -> list[torch.Tensor]:
        """Runs both, and returns the target's hidden states after each range, `[B, L, d]`."""
        ends = [span.last for span in self.ranges]
        found = []
        for losses, dropped in ((self.whole, ()), (self.dropped, self.ranges)):
            with without_layers(self.target, dropped), remembered(self.target, ends) as states:
                losses.add(self.target(**forward_inputs(self.target, batch), use_cache=False).logits, batch)
            found.append([states[end] for end in ends])
        expected, guessed = found
        for error, guess, wanted in zip(self.errors, guessed, expected, strict=True):
            add_real(error, guess, wanted, batch)
        return expected

    @property
    def reference(self) -> Reference:
        return Reference(self.whole.perplexity, self.dropped.perplexity, finite_errors(self.errors))
