"""Paradigms of stock vision models: images without captions, one image processor for the family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from hf_chain.evaluation.settings import SplitSettings
from hf_chain.tasks.image_data import ImageData
from hf_chain.tasks.paradigm import DataSize
from hf_chain.tasks.stock import StockParadigm


class StockImageParadigm(ImageData, StockParadigm):
    """What classifiers and masked autoencoders have in common."""

    evaluation_settings = SplitSettings
    card = "image_card.md.jinja"
    what: ClassVar[str]
    """What a member is, for its card."""
    output: ClassVar[str]
    """What its card shows of the model's outputs."""

    def planned_size(self) -> DataSize:
        """By settings and splits."""
        samples, evaluated = self.planned_images()
        return DataSize(samples, splits={name: (images, 0) for name, images in evaluated.items()})

    def size(self, data: Any) -> DataSize:
        """Images of every split."""
        most = self.recipe.evaluation.max_samples
        splits = {name: (min(len(rows), most or len(rows)), 0) for name, rows in data.evaluation.items()}
        return DataSize(data.samples_per_epoch, splits=splits)

    def train_set(self, rows: Any, processor: Any, report_file: Path | None = None) -> Any:
        """`ImageDataset`, or `ImageStream`."""
        from hf_chain.data import ImageDataset, ImageStream

        kind: Any = ImageStream if self.recipe.data.streaming else ImageDataset
        return kind(rows, self.recipe.data, seed=self.recipe.seed, report_file=report_file)

    def collator(self, processor: Any) -> Any:
        """Makes batches with the image processor itself."""
        from hf_chain.data import ImageCollator

        return ImageCollator(processor)

    def new_processor(self, rows: Any) -> Any:
        """The predecessor's, or one that resizes to the family's images and normalises as ViT does."""
        from transformers import ViTImageProcessorPil

        if self.recipe.published is not None:
            return self.load_processor(self.recipe.published)
        size = self.checked_config(self.recipe.members[0]).image_size
        height, width = (size, size) if isinstance(size, int) else size
        return ViTImageProcessorPil(size={"height": height, "width": width})

    def load_processor(self, folder: str | Path) -> Any:
        """An image processor."""
        from transformers import AutoImageProcessor

        return AutoImageProcessor.from_pretrained(folder, backend="pil")

    def evaluation_options(self, evaluation: Mapping[str, Any]) -> dict[str, Any]:
        """Columns and batches."""
        data, wanted = self.recipe.data, self.recipe.evaluation
        return {
            "image_column": data.image_column,
            "batch_size": wanted.batch_size,
            "max_samples": wanted.max_samples,
            "max_image_pixels": data.max_image_pixels,
        }

    @classmethod
    def card_values(cls, config: Any, data: Mapping[str, Any]) -> dict[str, Any]:
        """What it is, and how it is loaded."""
        rendered = data.get("source") == "scenes"
        return {"auto_class": cls.auto_class, "what": cls.what, "output": cls.output, "rendered": rendered}
