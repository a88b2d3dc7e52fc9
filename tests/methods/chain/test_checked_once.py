"""The main process of a run looks at the data, once; the others read what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as PIL

from hf_chain.data import files, quality
from hf_chain.methods.chain import family_data
from hf_chain.methods.chain.family_data import load_family_data
from hf_chain.methods.chain.recipe import Recipe
from support.recipes import tiny_recipe

ROWS, BROKEN = 40, 7


def recipe_of(folder: Path, **data: Any) -> Recipe:
    """A recipe on PNG files beside a table of their paths, of which one cannot be read."""
    random = np.random.default_rng(0)
    for split in ("train", "validation"):
        paths = [folder / f"{split}-{row}.png" for row in range(ROWS)]
        for path in paths:
            PIL.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
        if split == "train":
            paths[BROKEN].write_bytes(b"broken")
        columns = {"image": [str(path) for path in paths], "text": [f"picture {row}" for row in range(ROWS)]}
        table = Dataset.from_dict(columns, features=Features({"image": Image(), "text": Value("string")}))
        table.to_parquet(folder / f"{split}.parquet")
    files = {split: str(folder / f"{split}.parquet") for split in ("train", "validation")}
    data = {"source": "parquet", "data_files": files, "caption_column": "text", "max_bad_share": 0.1} | data
    return tiny_recipe(folder / "runs", members=1, data=data)


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What was decoded and which files were looked at."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    seen: dict[str, list[Any]] = {"decoded": [], "files": []}
    decode, stamp = quality.decode_image, files._stamp
    monkeypatch.setattr(quality, "decode_image", lambda *args: seen["decoded"].append(args) or decode(*args))
    monkeypatch.setattr(files, "_stamp", lambda path: seen["files"].append(path) or stamp(path))
    return seen


def test_others_read_what_the_main_process_found(tmp_path: Path, looks: dict[str, list[Any]]) -> None:
    recipe = recipe_of(tmp_path)
    main = load_family_data(recipe, main_process=True)
    assert len(looks["decoded"]) == 2 * ROWS and sorted(looks["files"]) == sorted(set(looks["files"]))
    assert len(looks["files"]) == 2 * ROWS and len(main.train) == ROWS - 1
    looks["decoded"].clear(), looks["files"].clear()
    other = load_family_data(recipe, main_process=False)
    assert looks == {"decoded": [], "files": []}
    assert [other.train[row]["captions"] for row in range(ROWS - 1)] == [
        main.train[row]["captions"] for row in range(ROWS - 1)
    ]
    again = load_family_data(recipe, main_process=True)
    assert not looks["decoded"] and len(looks["files"]) == 2 * ROWS and len(again.train) == ROWS - 1


def test_a_report_of_rows_that_were_mended_is_not_read(tmp_path: Path, looks: dict[str, list[Any]]) -> None:
    recipe = recipe_of(tmp_path)
    load_family_data(recipe, main_process=True)
    assert (recipe.run_dir / "data" / "train-bad-rows.json").exists()
    (tmp_path / f"train-{BROKEN}.png").write_bytes((tmp_path / "train-0.png").read_bytes())
    for main_process in (True, False):
        assert len(load_family_data(recipe, main_process).train) == ROWS


def test_files_are_looked_at_where_the_check_asks_alone(tmp_path: Path, looks: dict[str, list[Any]]) -> None:
    recipe = recipe_of(tmp_path, check="off", validation_split=None)
    recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"splits": []})})
    for _ in range(2):
        data = load_family_data(recipe, main_process=True)
    assert looks == {"decoded": [], "files": []} and len(data.train) == ROWS
    assert data.train[BROKEN]["image_id"] != BROKEN
    assert (recipe.run_dir / "data" / "train-bad-rows.jsonl").read_text().count("train-7.png") == 1


def test_nobody_waits_for_others_outside_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(family_data, "wait_for_everyone", None)
    assert len(family_data.evaluation_data(recipe_of(tmp_path))["validation"]) == ROWS
