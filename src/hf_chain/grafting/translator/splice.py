"""Where a surrogate joins its target again: one splice for each replaced range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.ranges import LayerRange

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
