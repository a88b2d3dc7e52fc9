"""Small files of every format, made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from hf_chain.data import DataSettings, load_splits

SCENES = {"train": 400, "validation": 60, "test": 60, "compositional": 60}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep the caches of `datasets` and of the quality scan out of the user's home."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets_cache")


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Splits of a few hundred scenes, rendered once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets_cache")
        return load_splits(DataSettings(scenes=SCENES))


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    """Eight readable PNG files, each of one colour."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(8)]
    for number, path in enumerate(paths):
        Image.new("RGB", (20 + number, 16), (30 * number, 255 - 30 * number, 90)).save(path)
    return paths
