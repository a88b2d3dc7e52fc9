"""Where a surrogate comes from: a record in its configuration, which stock classes carry along."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hf_chain.errors import HfChainError, reason
from hf_chain.grafting.ranges import LayerRange

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FIELD = "hf_chain_surrogate"
"""The field of the configuration."""


@dataclass(frozen=True)
class SurrogateLineage:
    """What a surrogate was cut from, and where.

    Args:
        target (`str`): the target's Hub name or folder.
        revision (`str`, *optional*): the target's commit, when it came from the Hub.
        target_layers (`int`): the target's number of layers.
        replaced (`tuple[LayerRange]`): the replaced ranges, in order.
        kept_layers (`tuple[int]`): the target's layers that the surrogate holds, in order.
        translator_layers (`tuple[int]`): the surrogate's layers that stand in for a range.
        translators (`int`): how many of them stand in for each range.
        translator_method (`str`): how the translators were made; `inherit` means they are the target's own layers.
        trained_layers (`tuple[int]`): the target's layers, of those kept, that were trained on the surrogate since.
    """

    target: str
    revision: str | None
    target_layers: int
    replaced: tuple[LayerRange, ...]
    kept_layers: tuple[int, ...]
    translator_layers: tuple[int, ...]
    translators: int
    translator_method: str = "inherit"
    trained_layers: tuple[int, ...] = ()


def is_surrogate(config: PreTrainedConfig) -> bool:
    """Whether the model of a configuration, or its decoder, is a surrogate.

    Args:
        config (`PreTrainedConfig`): a model's configuration.

    Returns:
        `bool`: whether it has a lineage.
    """
    return getattr(config.get_text_config(decoder=True), FIELD, None) is not None


def write_lineage(config: PreTrainedConfig, lineage: SurrogateLineage) -> None:
    """Puts the record into a configuration, as plain JSON values.

    Args:
        config (`PreTrainedConfig`): a surrogate's configuration; changed in place.
        lineage (`SurrogateLineage`): the record.
    """
    record = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(lineage).items()}
    record["replaced"] = [[span.first, span.last] for span in lineage.replaced]
    setattr(config, FIELD, record)


def read_lineage(config: PreTrainedConfig) -> SurrogateLineage:
    """The record of a surrogate.

    Args:
        config (`PreTrainedConfig`): a surrogate's configuration, or that of a model with a surrogate as its decoder.

    Returns:
        `SurrogateLineage`: the record.

    Raises:
        HfChainError: when the model is no surrogate, or the record is damaged.
    """
    record: dict[str, Any] | None = getattr(config.get_text_config(decoder=True), FIELD, None)
    if record is None:
        raise HfChainError(
            f"this {config.model_type} model is no surrogate, its configuration has no {FIELD}: cut one with"
            " build_surrogate"
        )
    try:
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
        }
        values["replaced"] = tuple(LayerRange(first, last) for first, last in record["replaced"])
        return SurrogateLineage(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HfChainError(
            f"{FIELD} in the configuration cannot be read ({reason(error)}): cut the surrogate again"
        ) from error
