"""The linear probe: right where classes can be told, at chance where they cannot, and any family's tower."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from hf_chain.errors import HfChainError
from hf_chain.evaluation import evaluate_linear_probe, fit_linear_probe
from hf_chain.evaluation.image_features import image_tower
from hf_chain.growth.measure import random_inputs
from support.classifiers import classifier
from support.families import ROWS
from support.shades import NAMES, pictures

TOWERS = ("clip", "siglip", "clip_vision_model", "siglip_vision_model", "vit", "deit", "vit_mae", "dinov2", "swin")
TOWERS += ("swinv2", "convnext")


def model_of(kind: str) -> PreTrainedModel:
    """A tiny random model of a family."""
    return getattr(transformers, ROWS[kind].model)(ROWS[kind].config()).eval()


def blobs(rows: int, classes: int = 5, width: int = 16, apart: float = 8.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of classes that lie apart, each in one direction, on scales that differ, and one that says nothing."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(rows) % classes
    features = torch.randn(rows, width, generator=generator)
    features[torch.arange(rows), labels] += apart
    return features * torch.logspace(-3, 3, width) + torch.ones(width).index_fill(0, torch.tensor([9]), 100.0), labels


def test_classes_that_lie_apart_are_told_and_shuffled_labels_are_not() -> None:
    features, labels = blobs(400)
    probe = fit_linear_probe(features[:300], labels[:300], 5)
    assert (probe.scores(features[300:]).argmax(1) == labels[300:]).float().mean() > 0.99
    shuffled = labels[torch.randperm(400, generator=torch.Generator().manual_seed(2))]
    lost = fit_linear_probe(features[:300], shuffled[:300], 5)
    assert (lost.scores(features[300:]).argmax(1) == shuffled[300:]).float().mean() == pytest.approx(0.2, abs=0.13)
    assert probe.held_out == 1 and lost.held_out == pytest.approx(0.2, abs=0.13)


def test_the_probe_is_the_minimum_of_its_loss_and_the_same_by_seed() -> None:
    features, labels = blobs(200, apart=2.0)
    features = features / torch.logspace(-3, 3, 16)
    probe = fit_linear_probe(features, labels, 5, seed=3)
    again = fit_linear_probe(features, labels, 5, seed=3)
    assert torch.equal(probe.weight, again.weight) and probe.l2 == again.l2
    deviation = features.std(0, correction=0)
    weight = (probe.weight * deviation).requires_grad_()
    scores = ((features - features.mean(0)) / deviation) @ weight.T + probe.scores(features.mean(0))
    loss = cross_entropy(scores, labels) + probe.l2 / 2 * weight.square().sum()
    (gradient,) = torch.autograd.grad(loss, weight)
    assert gradient.abs().max() < 1e-4


def test_too_few_rows_to_choose_by_are_refused() -> None:
    with pytest.raises(HfChainError, match="the training split has 4 rows: give 5 or more"):
        fit_linear_probe(torch.randn(4, 3), torch.arange(4) % 3, 3)


@pytest.mark.parametrize("kind", TOWERS)
def test_every_family_has_a_tower_whose_features_are_those_of_its_own_head(kind: str) -> None:
    model = model_of(kind)
    pixels = random_inputs(model, torch.Generator().manual_seed(0), 3)["pixel_values"].float()
    tower = image_tower(model)
    with torch.no_grad():
        features = tower.pooled(pixel_values=pixels)
        assert features.shape[0] == 3 and features.ndim == 2 and tower.macs > 0
        if kind in ("clip", "siglip"):
            expected = model.vision_model(pixel_values=pixels).pooler_output
            assert torch.equal(features, expected)
        if kind in ("vit", "deit", "swin", "swinv2", "convnext"):
            head = classifier(kind).eval()
            logits = head(pixel_values=pixels).logits
            assert torch.allclose(head.classifier(image_tower(head).pooled(pixel_values=pixels)), logits, atol=1e-5)
    # Of a ViT-MAE all patches are seen, and none is hidden by chance.
    assert torch.allclose(features, tower.pooled(pixel_values=pixels), atol=1e-5)


def test_models_without_a_vision_tower_are_refused() -> None:
    for kind in ("llama", "clip_text_model"):
        with pytest.raises(HfChainError, match="has no vision tower: give a CLIP or a ViT"):
            image_tower(model_of(kind))
    with pytest.raises(HfChainError, match="a Linear, which has no vision tower"):
        image_tower(torch.nn.Linear(2, 2))


def test_a_probe_of_pictures_counts_what_it_embeds() -> None:
    names, shades = NAMES, pictures(45).rename_columns({"picture": "image", "shade": "label"})
    train, validation = shades.select(range(30)), shades.select(range(30, 45))
    model = classifier().train()
    side = model.config.image_size
    processor = transformers.ViTImageProcessorPil(size={"height": side, "width": side})

    def probed(**options: object):
        given = {"class_names": names, "batch_size": 16} | options
        return evaluate_linear_probe(model, processor, train, validation, **given)  # type: ignore

    found = probed()
    assert found.metrics.keys() == {"linear_probe_top1", "linear_probe_top5"} == found.chance.keys()
    assert found.metrics == {"linear_probe_top1": 1.0, "linear_probe_top5": 1.0}
    assert found.macs == 45 * image_tower(model).macs and found.trials["linear_probe_top1"] == 15
    assert probed().metrics == found.metrics and model.training
    assert probed(max_train_samples=20, max_samples=10).macs == 30 * image_tower(model).macs
    with pytest.raises(HfChainError, match="no column 'kind'"):
        probed(label_column="kind")
    with pytest.raises(HfChainError, match="label 2 is out of range for 2 class names"):
        probed(class_names=names[:2])
