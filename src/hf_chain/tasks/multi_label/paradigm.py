"""Multi-label classification as a recipe knows it: lists of classes, mean average precision on held-out images."""

from __future__ import annotations

from typing import Any

from hf_chain.data.settings import MultiLabelSettings
from hf_chain.tasks.classification.paradigm import ClassificationParadigm
from hf_chain.tasks.classification.values import SEVERAL
from hf_chain.tasks.paradigm import DataSize


class MultiLabelParadigm(ClassificationParadigm):
    """Images are told by several classes each, or none."""

    data_settings = MultiLabelSettings
    primary_metrics = ("mean_average_precision",)
    what = "a multi-label image classifier"

    def decided(self, size: DataSize, data: Any = None) -> dict[str, Any]:
        """And that classes do not exclude each other."""
        return super().decided(size, data) | {"problem_type": SEVERAL}

    def example(self, config: Any) -> dict[str, Any]:
        """One image and what it is of each class."""
        found = super().example(config)
        return found | {"labels": found["pixel_values"].new_zeros(1, config.num_labels)}
