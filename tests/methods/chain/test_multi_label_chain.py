"""A chain of multi-label classifiers: what holds for classifiers holds for it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List
from datasets import Image as ImageFeature
from PIL import Image, ImageDraw
from transformers import pipeline

from hf_chain.errors import HfChainError
from hf_chain.methods.chain.planning import check_growth, memory_plan
from hf_chain.methods.chain.recipe import ChainRecipe, recipe_class
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import read_family
from hf_chain.runs.recipe_file import validated

COLOURS = ["red", "lime", "blue", "white"]


def write_rows(folder: Path) -> None:
    """Images of up to four patches of other colours, with a list of those colours."""
    random = Random(0)
    features = Features({"image": ImageFeature(), "colours": List(ClassLabel(names=COLOURS))})
    for split, count in {"train": 128, "validation": 32}.items():
        rows: dict[str, Any] = {"image": [], "colours": []}
        for _ in range(count):
            image, shown = Image.new("RGB", (32, 32)), [c for c in range(4) if random.random() < 0.4]
            for place, colour in zip(random.sample(range(4), len(shown)), shown, strict=True):
                corner = (16 * (place % 2), 16 * (place // 2))
                ImageDraw.Draw(image).rectangle((*corner, corner[0] + 15, corner[1] + 15), COLOURS[colour])
            rows["image"].append(image)
            rows["colours"].append(shown)
        Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")


def recipe(folder: Path, **data: Any) -> ChainRecipe:
    values: dict[str, Any] = {
        "name": "tiny",
        "task": "multi_label",
        "family": "vit",
        "output_dir": str(folder / "runs"),
        "data": {"source": str(folder), "label_column": "colours"} | data,
        "model": {"head_size": 8, "image_size": 32, "patch_size": 8},
        "members": [
            {"name": "tiny", "hidden_size": 16, "num_hidden_layers": 1, "epochs": 3},
            {"name": "small", "hidden_size": 32, "num_hidden_layers": 2, "epochs": 4},
        ],
        "training": {"per_device_train_batch_size": 16, "learning_rate": 1e-2, "disable_tqdm": True},
    }
    return validated(recipe_class(values), values, "recipe")


def test_members_are_grown_trained_and_evaluated_as_planned(tmp_path: Path) -> None:
    write_rows(tmp_path)
    wanted = recipe(tmp_path)
    check_growth(wanted)
    assert [line.split()[1] for line in memory_plan(wanted).splitlines()[2:]] == ["tiny", "small"]
    family = read_family(run(wanted))
    small, folder = family.member("small"), family.run_dir / family.member("small").folder
    assert small.growth_error["logits"] < 1e-5
    for row, member in zip(family.plan["members"], family.members, strict=True):
        assert (member.samples, member.training_macs["student"]) == (row["samples"], row["student_macs"])
        assert (member.training_macs["teacher"], member.parameters) == (row["teacher_macs"], row["parameters"])
        assert member.evaluation_macs == row["evaluation_macs"]
    found = small.metrics_after["validation"]
    assert found.keys() == {"mean_average_precision"} and found["mean_average_precision"] > 0.6
    assert "is a multi-label image classifier" in (folder / "README.md").read_text()
    # Pipelines read from the configuration that classes do not exclude each other.
    told = pipeline("image-classification", str(folder))(Image.new("RGB", (32, 32), "blue"))
    assert {one["label"] for one in told} == set(COLOURS) and sum(one["score"] for one in told) != pytest.approx(1)


def test_a_column_of_single_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="label_column 'label' holds .*, not a list of class numbers a row"):
        run(recipe(tmp_path, source="scenes", label_column="label"))
