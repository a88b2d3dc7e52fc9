"""Image classification as a recipe knows it: labelled images, top-1 and top-5 on held-out ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hf_chain.cost import classifier_macs
from hf_chain.data.settings import ImageSettings
from hf_chain.errors import HfChainError
from hf_chain.tasks.paradigm import DataSize
from hf_chain.tasks.stock_images import StockImageParadigm

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from hf_chain.evaluation import Evaluation


class LabelledImageSettings(ImageSettings):
    """Source, columns and augmentation of labelled images."""

    label_column: str = Field("label", description="Column that holds the class number of an image.")


class ClassificationParadigm(StockImageParadigm):
    """Images are told by their class."""

    data_settings = LabelledImageSettings
    primary_metrics = ("top1",)
    hub_task = "image-classification"
    auto_class = "AutoModelForImageClassification"
    what = "an image classifier"
    output = "logits"

    @classmethod
    def families(cls) -> frozenset[str]:
        """Vision models with a class head."""
        return frozenset(("vit", "deit", "dinov2", "dinov2_with_registers", "swin", "swinv2", "convnext"))

    def planned_size(self) -> DataSize:
        """Classes as `model.num_labels` says, or as they are in the data."""
        known = (self.recipe.model.model_extra or {}).get("num_labels")
        classes = known or len(self._names(self.splits(["train"])["train"]))
        return replace(super().planned_size(), classes=classes)

    def checked_config(self, member: Any) -> PreTrainedConfig:
        """With the classes of the data."""
        return self.planned_config(member, self.planned_size())

    def size(self, data: Any) -> DataSize:
        """And the classes."""
        return replace(super().size(data), classes=len(self._names(data.train.dataset)))

    def _names(self, rows: Any) -> list[str]:
        """Names of the classes of a split; where nothing gives them, as transformers calls such."""
        from hf_chain.data.captions import LabelReader

        names = LabelReader(self.recipe.data, rows.features).names_by_class
        if names is not None:
            return [name for name, *_ in names]
        if not hasattr(rows, "unique"):
            raise HfChainError("data.class_names is not set: a stream does not say how many classes it has")
        return [f"LABEL_{number}" for number in range(1 + max(rows.unique(self.recipe.data.label_column)))]

    def decided(self, size: DataSize, data: Any = None) -> dict[str, Any]:
        """The classes, with their names once the data are there."""
        if data is None:
            return {"num_labels": size.classes}
        names = dict(enumerate(self._names(data.train.dataset)))
        return {"id2label": names, "label2id": {name: number for number, name in names.items()}}

    def forward_macs(self, config: Any) -> int:
        """Encoder and head."""
        return sum(classifier_macs(config))

    def example(self, config: Any) -> dict[str, Any]:
        """One image and its class."""
        import torch

        size = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
        pixels = torch.zeros(1, config.num_channels, size, size, device="meta")
        return {"pixel_values": pixels, "labels": torch.zeros(1, dtype=torch.long, device="meta")}

    def evaluate(self, model: Any, processor: Any, rows: Any, trained: bool = True, **options: Any) -> Evaluation:
        """Top-1 and top-5."""
        from hf_chain.evaluation import evaluate_classifier

        return evaluate_classifier(model, processor, rows, label_column=self.recipe.data.label_column, **options)
