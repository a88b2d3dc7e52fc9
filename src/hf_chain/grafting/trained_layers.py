"""Layers of the target that are trained on its surrogate: which may be, and how they come back into their places.

Layers are trained where they are cheap and plugged into the whole model, as in Offsite-Tuning (arXiv 2302.04870).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from hf_chain.errors import HfChainError, reason
from hf_chain.grafting.anatomy import decoder_layers, layer_prefix
from hf_chain.grafting.lineage import is_surrogate, read_lineage, write_lineage

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def carried_layers(decoder: PreTrainedModel, weights: Iterable[str]) -> set[int]:
    """The target's layers that weights of its surrogate are in, translators apart; none of other models.

    Args:
        decoder (`PreTrainedModel`): a language model.
        weights (`Iterable[str]`): names of weights or modules in it that are trained.

    Raises:
        HfChainError: when one of a surrogate's is in no layer, and would be lost.
    """
    if not is_surrogate(decoder.config):
        return set()
    lineage, layers = read_lineage(decoder.config), set()
    for name in weights:
        match = re.match(rf"{re.escape(layer_prefix(decoder.config))}(\d+)\.", name)
        if match is None:
            raise HfChainError(
                f"{name} of the surrogate would be trained, and a graft leaves it behind: train lora, or layers by "
                "name, such as language_model.*.layers.0.*"
            )
        layers.add(int(match[1]))
    return {lineage.kept_layers[layer] for layer in layers.difference(lineage.translator_layers)}


def note_trained_layers(decoder: PreTrainedModel, weights: Iterable[str]) -> None:
    """Writes into a surrogate's lineage which layers are trained on it; other models stay as they are.

    Args:
        decoder (`PreTrainedModel`): a language model.
        weights (`Iterable[str]`): names of its weights or modules that training changes.

    Raises:
        HfChainError: as `carried_layers`.
    """
    if carried := carried_layers(decoder, weights):
        lineage = read_lineage(decoder.config)
        layers = tuple(sorted(carried.union(lineage.trained_layers)))
        write_lineage(decoder.config, replace(lineage, trained_layers=layers))


def trained_weights(decoder: PreTrainedModel) -> list[str]:
    """Names of the parameters of a language model that are not frozen, LoRA's among them."""
    return [name for name, parameter in decoder.named_parameters() if parameter.requires_grad]


def translators_pattern(decoder: PreTrainedModel) -> str | None:
    """A regular expression for the modules of a surrogate's translators; `None` for other models."""
    if not is_surrogate(decoder.config):
        return None
    numbers = "|".join(map(str, read_lineage(decoder.config).translator_layers))
    return rf"{re.escape(layer_prefix(decoder.config))}({numbers})\..*"


def carry_layers(surrogate: PreTrainedModel, target: PreTrainedModel) -> None:
    """Puts the layers that were trained on a surrogate into its target, in place; nothing changes where none was.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage, LoRA merged.
        target (`PreTrainedModel`): what it was cut from.

    Raises:
        HfChainError: when the target's layers cannot be written because they are quantised or offloaded.
    """
    lineage = read_lineage(surrogate.config)
    own, layers = decoder_layers(surrogate), decoder_layers(target)
    for number in lineage.trained_layers:
        trained = own[lineage.kept_layers.index(number)]
        state = "quantised" if getattr(target.config, "quantization_config", None) is not None else None
        if any(weight.is_meta for weight in layers[number].parameters()):
            state = "offloaded"
        if state is not None:
            raise HfChainError(
                f"layer {number} was trained on the surrogate, and is {state} in the target: load the target whole, "
                "in a floating-point type"
            )
        try:
            layers[number].load_state_dict(trained.state_dict())
        except RuntimeError as error:
            raise HfChainError(
                f"layer {number} of the target does not take what was trained on the surrogate: merge adapters first "
                f"({reason(error)})"
            ) from error
