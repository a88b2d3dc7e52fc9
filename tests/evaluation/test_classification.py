"""The evaluation of image classifiers: right on a hand-made case, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List
from PIL import Image as Pillow
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from hf_chain.cost import classifier_macs
from hf_chain.errors import HfChainError
from hf_chain.evaluation import evaluate_classifier

NAMES = [f"shade {number}" for number in range(6)]
PROCESSOR = ViTImageProcessorPil(size={"height": 8, "width": 8}, do_normalize=False)


class ByShade(ViTForImageClassification):
    """Takes an image for the class of its shade, and a white one for none of the first five."""

    def forward(self, pixel_values: torch.Tensor, **_: object) -> SimpleNamespace:
        assert not self.training and not torch.is_grad_enabled()
        shade = (pixel_values.mean((1, 2, 3)) * 10).round()
        return SimpleNamespace(logits=-(torch.arange(6) - shade[:, None]).abs())


@pytest.fixture
def model() -> ByShade:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return ByShade(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=6))


def pictures(shades: list[int], labels: list[int]) -> Dataset:
    images = [Pillow.new("RGB", (9, 8), (round(25.5 * shade),) * 3) for shade in shades]
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES)})
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


def test_accuracies_are_those_of_a_hand_made_case(model: ByShade) -> None:
    model.train()
    # Of shade 1 the farthest class is 5, of shade 3 it is 0.
    found = evaluate_classifier(model, PROCESSOR, pictures([0, 1, 1, 3, 4], [0, 1, 5, 0, 5]), batch_size=2)
    assert found.metrics == {"top1": pytest.approx(2 / 5), "top5": pytest.approx(3 / 5)}
    assert found.per_class == {"shade 0": 0.5, "shade 1": 1.0, "shade 5": 0.0}
    assert found.chance == {"top1": pytest.approx(1 / 6), "top5": pytest.approx(5 / 6)}
    assert found.trials == {"top1": 5, "top5": 5} and model.training
    assert found.macs == 5 * sum(classifier_macs(model.config))
    assert (
        evaluate_classifier(model, PROCESSOR, pictures([0, 5, 5, 5], [0, 1, 2, 5]), max_samples=2).metrics["top1"]
        == 0.5
    )


def listed(shades: list[int], labels: list[Any]) -> Dataset:
    rows = pictures(shades, [0] * len(shades))
    features = Features({"image": Image(), "labels": List(ClassLabel(names=NAMES))})
    return Dataset.from_dict({"image": rows["image"][:], "labels": labels}, features=features)


def test_average_precisions_are_those_of_a_hand_made_case(model: ByShade) -> None:
    model.config.problem_type = "multi_label_classification"
    # For class 0 the order of the images is 0, then 1 and 1 at once, then 3; for class 3 it is 3, 1 and 1, 0.
    rows = listed([0, 1, 1, 3], [[0], [], [3, 0], [0, 3]])
    found = evaluate_classifier(model, PROCESSOR, rows, label_column="labels", batch_size=2)
    expected = {"shade 0": (1 + 2 / 3 + 3 / 4) / 3, "shade 3": (1 + 2 / 3) / 2}
    assert found.per_class == pytest.approx(expected)
    assert found.metrics == {"mean_average_precision": pytest.approx(sum(expected.values()) / 2)}
    assert found.chance == {"mean_average_precision": pytest.approx(5 / 8)} and not found.trials
    for words, labels in {"row 1: label None is no list": [[0], None], "no row .* has a class": [[], []]}.items():
        with pytest.raises(HfChainError, match=words):
            evaluate_classifier(model, PROCESSOR, listed([0, 1], labels), label_column="labels")


def test_what_cannot_be_evaluated_is_refused_in_a_line(model: ByShade) -> None:
    def refused(words: str, rows: Dataset, **options: object) -> None:
        with pytest.raises(HfChainError, match=words) as error:
            evaluate_classifier(model, PROCESSOR, rows, **options)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)

    good = pictures([0, 1], [0, 1])
    refused("no column 'class'", good, label_column="class")
    refused("batch_size is 0", good, batch_size=0)
    refused("have 2 classes and the model 6", good.cast_column("label", ClassLabel(names=NAMES[:2])))
    broken = Dataset.from_list([{"image": {"bytes": b"no", "path": None}, "label": 0}], features=good.features)
    refused("row 0: image cannot be read", broken)
    refused("row 1: label 7 is out of range", Dataset.from_dict({"image": good["image"][:], "label": [0, 7]}))
