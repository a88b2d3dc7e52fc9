"""A data set in a folder, a model that was trained on something else, and suites of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import DatasetDict
from transformers import ViTImageProcessorPil

from support.classifiers import classifier
from support.shades import pictures


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """Folder of a data set with a training split and a test split."""
    DatasetDict(train=pictures(30), test=pictures(15)).save_to_disk(tmp_path / "shades")
    return tmp_path / "shades"


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """Folder of a classifier with its image processor."""
    model = classifier()
    model.save_pretrained(tmp_path / "vit")
    side = model.config.image_size
    ViTImageProcessorPil(size={"height": side, "width": side}).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


@pytest.fixture
def suite_of(tmp_path: Path) -> Callable[..., Path]:
    """Writes a suite of data sets: `suite_of({"name": …}, batch_size=8)`."""

    def write(*sets: dict[str, Any], **fields: Any) -> Path:
        path = tmp_path / "suite.yaml"
        path.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "out"), "datasets": list(sets)} | fields))
        return path

    return write
