"""How good a translator is on held-out text, against the target and against layer dropping alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_chain.grafting.batches import Batch
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.translator.perplexity import perplexity
from hf_chain.grafting.translator.splice_error import dropping_error, splice_error
from hf_chain.grafting.translator_table import loss_recovered

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_chain.grafting.ranges import LayerRange


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
    return Reference(
        target_perplexity=perplexity(target, held_out),
        dropping_perplexity=perplexity(target, held_out, dropped=ranges),
        dropping_splice_error=dropping_error(target, ranges, held_out),
    )


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
        held_out (`Iterable[Batch]`): text that can be gone through more than once.
        reference (`Reference`, *optional*): measured on the same text before.

    Returns:
        `TranslatorQuality`: the surrogate's numbers beside the reference.

    Raises:
        HfChainError: as `perplexity` and `splice_error`.
    """
    return TranslatorQuality(
        splice_error=splice_error(surrogate, target, held_out),
        perplexity=perplexity(surrogate, held_out),
        reference=reference or measure_reference(target, read_lineage(surrogate.config).replaced, held_out),
    )
