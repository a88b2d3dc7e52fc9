"""What paradigms of images share: splits, bad rows, and the sets and streams that a training reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_chain.errors import HfChainError
from hf_chain.tasks.paradigm import Paradigm


class ImageData(Paradigm):
    """The data of a paradigm whose rows hold an image each, as `ImageSettings` say or those with captions."""

    def splits(self, only: list[str] | None = None) -> dict[str, Any]:
        """Rows as `load_splits` gives them."""
        from hf_chain.data import load_splits

        return load_splits(self.recipe.data, self.recipe.seed, only=only)

    def split_sizes(self) -> dict[str, int]:
        """Images of each split, as far as they are known without reading a stream."""
        data = self.recipe.data
        if data.source == "scenes":
            return data.scenes.sizes()
        if data.streaming:
            if data.samples_per_epoch is None:
                raise HfChainError(
                    "data.streaming is true without data.samples_per_epoch: say how many images an epoch has"
                )
            return {}
        if data.samples_per_epoch is not None:
            return {"train": data.samples_per_epoch}
        return {name: len(rows) for name, rows in self.splits().items()}

    def planned_images(self) -> tuple[int, dict[str, int]]:
        """Training images an epoch, and those of each split that are evaluated, by settings and splits."""
        sizes, data, most = self.split_sizes(), self.recipe.data, self.recipe.evaluation.max_samples
        samples = data.samples_per_epoch or min(sizes["train"], data.max_train_samples or sizes["train"])
        evaluated = {name: sizes.get(name, 0) for name in self.recipe.evaluated_splits}
        return samples, {name: min(images, most or images) for name, images in evaluated.items()}

    def fingerprint(self, rows: Any, split: str) -> Mapping[str, Any]:
        """Of images, and what is read beside them."""
        from hf_chain.data.fingerprint import fingerprint_pairs

        return fingerprint_pairs(rows, self.recipe.data, split)

    def usable(self, rows: Any, name: str, report_file: Path | None = None) -> Any:
        """Rows that can be read; of a stream those that are evaluated."""
        from hf_chain.data import check_quality

        # Evaluations replace no rows.
        data = self.recipe.data if name == "train" else self.recipe.data.model_copy(update={"check": "all"})
        rows = self._in_memory(rows)
        return _selected(rows, check_quality(rows, data, name=name, report_file=report_file))

    def usable_again(self, rows: Any, report_file: Path) -> Any:
        """The same, by the report of another process."""
        from hf_chain.data.quality import QualityReport

        rows = self._in_memory(rows)
        return _selected(rows, QualityReport.read(report_file).good_indices) if report_file.exists() else rows

    def _in_memory(self, rows: Any) -> Any:
        from datasets import Dataset

        from hf_chain.data import rows_in_memory

        if isinstance(rows, Dataset):
            return rows
        return rows_in_memory(rows, self.recipe.data, self.recipe.evaluation.max_samples)


def _selected(rows: Any, numbers: Any) -> Any:
    return rows if len(numbers) == len(rows) else rows.select(numbers)
