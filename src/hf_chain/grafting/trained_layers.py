"""Layers of the target that were trained on its surrogate, put back into their places.

Layers are trained where they are cheap and plugged into the whole model, as in Offsite-Tuning (arXiv 2302.04870).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.errors import HfChainError, reason
from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.grafting.lineage import read_lineage

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def carry_layers(surrogate: PreTrainedModel, target: PreTrainedModel) -> None:
    """Puts the layers that were trained on a surrogate into its target, in place; nothing changes where none was.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage, LoRA merged.
        target (`PreTrainedModel`): what it was cut from.

    Raises:
        HfChainError: when the target's layers cannot be written because they are quantised or offloaded.
    """
    lineage = read_lineage(surrogate.config)
    own, places = decoder_layers(surrogate), decoder_layers(target)
    for number in lineage.trained_layers:
        trained = own[lineage.kept_layers.index(number)]
        state = "quantised" if getattr(target.config, "quantization_config", None) is not None else None
        if any(weight.is_meta for weight in places[number].parameters()):
            state = "offloaded"
        if state is not None:
            raise HfChainError(
                f"layer {number} was trained on the surrogate, and is {state} in the target: load the target whole, "
                "in a floating-point type"
            )
        try:
            places[number].load_state_dict(trained.state_dict())
        except RuntimeError as error:
            raise HfChainError(
                f"layer {number} of the target does not take what was trained on the surrogate: merge adapters first "
                f"({reason(error)})"
            ) from error
