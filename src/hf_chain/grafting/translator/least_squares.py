"""Fitting translators by least squares, without a gradient step.

Source: ReplaceMe (arXiv 2505.02819) folds a linear map for dropped layers into the MLP's last projection. Here that
projection, and the attention's, are fitted themselves, which contains its map and stays a stock layer as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers.utils import logging

from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.grafting.batches import Batch, check_batches
from hf_chain.grafting.translator.refit import Refit, layer_writes, refits_of
from hf_chain.grafting.translator.splice_error import Splice, splices, translator_modules
from hf_chain.grafting.translator.splice_runs import RIDGES, SpliceRuns, calibrate
from hf_chain.module_modes import evaluation_mode

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class RidgeFit:
    """What least squares did to the translator of one range.

    Attributes:
        replaced (`str`): the range.
        refitted (`list[str]`): the weights that changed, in the order of fitting.
        ridges (`list[float]`): the ridge strength of each.
        error_before (`float`): splice error on held-out calibration sequences before.
        error_after (`float`): and after; never larger.
        tokens (`int`): calibration tokens without padding, the held-out ones included.
        macs (`int`): multiply-accumulate operations of all passes and solutions.
    """

    replaced: str
    refitted: list[str]
    ridges: list[float]
    error_before: float
    error_after: float
    tokens: int
    macs: int


def closed_form(surrogate: PreTrainedModel, target: PreTrainedModel, batches: Iterable[Batch]) -> list[RidgeFit]:
    """Fits the last translator layer of every range by least squares, in place.

    With s the surrogate's hidden state at the splice, t the target's and a the inputs of a projection of the layer,
    the ridge regression of t − s on a is added to the projection. The MLP's goes first, then the attention's, then the
    MLP's again, each on the new state of the layer; behind a norm, its gain follows. The best state on held-out
    sequences stays. Ranges are fitted in order, each on what the surrogate hands it by then.

    In memory are up to `KEPT_BYTES` of hidden states, which all passes share, those of one batch and, for a projection
    with F inputs, up to 4 F² numbers in float64, 6 F² behind a norm.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage.
        target (`PreTrainedModel`): what it was cut from.
        batches (`Iterable[Batch]`): calibration text, gone through `calibration_passes` times for each range; what of
            it and of its hidden states fits into `KEPT_BYTES` is read once.

    Returns:
        `list[RidgeFit]`: one for each range.

    Raises:
        HfChainError: when the family is unknown or cannot hold the fit, when there are fewer than 5 sequences, or when
            hidden states are not finite.
    """
    check_batches(batches, "the calibration text")
    translator_modules(surrogate)
    with evaluation_mode(surrogate, target):
        return [
            _fit(surrogate, target, splice, _schedule(surrogate, splice), batches) for splice in splices(surrogate)
        ]


def refitted_weights(surrogate: PreTrainedModel) -> list[nn.Parameter]:
    """The weights that `closed_form` changes; the surrogate may be on the meta device.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage.

    Returns:
        `list[nn.Parameter]`: each once.
    """
    return _weights(refit for splice in splices(surrogate) for refit in _schedule(surrogate, splice))


def equation_macs(surrogate: PreTrainedModel, tokens: int) -> int:
    """What `closed_form` computes beside forward passes: the normal equations of all fits and their solutions.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage; it may be on the meta device.
        tokens (`int`): tokens of the calibration text, without padding.

    Returns:
        `int`: multiply-accumulate operations.
    """
    macs = 0
    for splice in splices(surrogate):
        for refit in _schedule(surrogate, splice):
            equations = refit.equations()
            equations.tokens = tokens
            macs += equations.macs + equations.solution_macs(len(RIDGES))
    return macs


def _weights(refits: Iterable[Refit]) -> list[nn.Parameter]:
    """Their weights, each once."""
    return list({id(weight): weight for refit in refits for weight in refit.weights}.values())


def _schedule(surrogate: PreTrainedModel, splice: Splice) -> list[Refit]:
    writes = layer_writes(surrogate.config)
    layer = decoder_layers(surrogate)[splice.surrogate_layer]
    mlp, attention = refits_of(layer, writes.mlp), refits_of(layer, writes.attention)
    return [*mlp, *attention, *mlp]


def calibration_passes(config: PreTrainedConfig) -> int:
    """How often `closed_form` goes through the text for each range: once for each fit, and once to measure the last.

    Args:
        config (`PreTrainedConfig`): the surrogate's or the target's configuration.

    Returns:
        `int`: passes over the text.
    """
    writes = layer_writes(config)
    return sum(2 if write.norm else 1 for write in (writes.mlp, writes.attention, writes.mlp)) + 1


@dataclass(frozen=True)
class _State:
    """Weights of a translator between two fits."""

    error: float
    weights: list[torch.Tensor]
    steps: list[tuple[str, float]]


def _fit(
    surrogate: PreTrainedModel,
    target: PreTrainedModel,
    splice: Splice,
    schedule: Sequence[Refit],
    batches: Iterable[Batch],
) -> RidgeFit:
    weights, runs = _weights(schedule), SpliceRuns(surrogate, target, splice, batches)
    errors: list[float] = []
    steps: list[tuple[str, float]] = []
    macs = 0
    # The last pass only measures: what a fit does is never taken from its own prediction.
    for refit in (*schedule, None):
        found = calibrate(runs, refit)
        errors.append(found.error)
        macs += found.macs
        if found.error <= min(errors):
            best = _State(found.error, [weight.detach().clone() for weight in weights], list(steps))
        if refit is not None and found.solution is not None and found.ridge is not None:
            refit.fold(found.solution)
            steps.append((refit.kind, found.ridge))
    for weight, value in zip(weights, best.weights, strict=True):
        weight.detach().copy_(value)
    if not best.steps:
        logger.warning(
            f"closed_form left the translator of layers {splice.replaced} as it was: no fit lowered its splice error,"
            f" {best.error:.3f}, on {found.tokens} tokens; give more calibration text, or use method 'train'"
        )
    return RidgeFit(
        replaced=str(splice.replaced),
        refitted=[kind for kind, _ in best.steps],
        ridges=[ridge for _, ridge in best.steps],
        error_before=errors[0],
        error_after=best.error,
        tokens=found.tokens,
        macs=macs,
    )
