"""Zero-shot classification gives the accuracies one counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from hf_chain.evaluation import class_embeddings, class_labels, class_prompts, zero_shot_metrics


def test_accuracies_equal_those_counted_by_hand():
    classes = torch.eye(6)
    scores = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    images = torch.tensor([scores, scores, scores, scores[::-1]])
    labels = torch.tensor([0, 4, 5, 5])  # first, among the first five, last of six, first
    metrics, per_class = zero_shot_metrics(images, classes, labels, ["a", "b", "c", "d", "e", "f"])
    assert metrics == {"zero_shot_top1": 0.5, "zero_shot_top5": 0.75}
    assert per_class == {"a": 1.0, "e": 0.0, "f": 0.5}


def test_top5_with_fewer_than_five_classes_is_one():
    metrics, _ = zero_shot_metrics(torch.eye(3), torch.eye(3), torch.tensor([1, 1, 0]), ["a", "b", "c"])
    assert metrics["zero_shot_top1"] == pytest.approx(1 / 3)
    assert metrics["zero_shot_top5"] == 1.0


def test_class_embedding_is_the_renormalised_mean_over_templates_and_names():
    prompts = class_prompts([["cat", "felis"], "dog"], ["a {}.", "one {}."])
    assert prompts == [["a cat.", "one cat.", "a felis.", "one felis."], ["a dog.", "one dog."]]
    generator = torch.Generator().manual_seed(0)
    cat, dog = torch.randn(4, 8, generator=generator), 7 * torch.randn(2, 8, generator=generator)
    by_hand = torch.stack(
        [
            sum(cat[i] / cat[i].norm() for i in range(4)) / 4,
            sum(dog[i] / dog[i].norm() for i in range(2)) / 2,
        ]
    )
    torch.testing.assert_close(class_embeddings([cat, dog]), normalize(by_hand, dim=-1))


def test_classes_with_the_same_name_keep_labels_apart():
    assert class_labels(["crane", ["cat", "felis"], "crane"]) == ["crane [0]", "cat, felis", "crane [2]"]
