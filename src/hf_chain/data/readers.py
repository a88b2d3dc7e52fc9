"""What reads a row beside its image, as the settings are; and classes of which a row may have several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Features, LargeList, List

from hf_chain.data.captions import CaptionReader, LabelReader, kind_of, may_number_classes
from hf_chain.data.settings import DataSettings, ImageSettings, MultiLabelSettings
from hf_chain.errors import HfChainError, shortened


def reader_of(settings: ImageSettings, features: Features | None = None) -> LabelReader:
    """Return what reads a row beside its image: class number or numbers, and captions, as the settings are."""
    if isinstance(settings, MultiLabelSettings):
        return MultiLabelReader(settings, features)
    return CaptionReader(settings, features) if isinstance(settings, DataSettings) else LabelReader(settings, features)


class MultiLabelReader(LabelReader):
    """Finds the classes of a row, of which there may be several, or none.

    Args:
        settings (`MultiLabelSettings`): Which column to read.
        features (`datasets.Features`, *optional*): Features of the source; a `ClassLabel` in the lists brings names.

    Raises:
        `HfChainError`: Where the column holds no lists of class numbers, or nothing says how many classes there are.
    """

    def __init__(self, settings: MultiLabelSettings, features: Features | None = None) -> None:
        column, found = settings.label_column, (features or {}).get(settings.label_column)
        numbers = getattr(found, "feature", None)
        if found is not None and not (isinstance(found, List | LargeList) and may_number_classes(numbers)):
            raise HfChainError(
                f"label_column {column!r} holds {kind_of(found)}, not a list of class numbers a row; name another"
            )
        super().__init__(settings, None if found is None else Features({column: numbers}))
        if self.names_by_class is None:
            raise HfChainError(
                f"label_column {column!r} holds numbers without names, and any row may have all classes or none: "
                "give class_names"
            )

    def label(self, row: Mapping[str, Any]) -> list[float]:  # type: ignore[override]
        """Return 1 for each class of a row and 0 for each other one.

        Raises:
            `ValueError`: Where the row has no list, or one with what is no class number.
        """
        column, one, values = self.settings.label_column, super().label, row[self.settings.label_column]
        if not isinstance(values, list):
            raise ValueError(f"label {shortened(values)} is no list of class numbers")
        found = {one({column: value}) for value in values}
        return [float(number in found) for number in range(len(self.names_by_class or ()))]
