"""The evaluation of ViT-MAEs: the stock loss under masks by row."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset, Features, Image
from PIL import Image as Pillow
from transformers import ViTImageProcessorPil, ViTMAEForPreTraining

from hf_chain.cost import masked_image_macs
from hf_chain.errors import HfChainError
from hf_chain.evaluation import evaluate_reconstruction
from hf_chain.models.chain_mae import mask_noise
from support.classifiers import masked_model


@pytest.fixture
def processor() -> ViTImageProcessorPil:
    side = masked_model().config.image_size
    return ViTImageProcessorPil(size={"height": side, "width": side})


def pictures(count: int = 5) -> Dataset:
    images = [Pillow.effect_noise((20, 18), 10 + 20 * number).convert("RGB") for number in range(count)]
    return Dataset.from_dict({"image": images}, features=Features({"image": Image()}))


def test_it_is_the_mean_of_each_images_loss_under_its_own_mask(processor: ViTImageProcessorPil) -> None:
    model, rows = masked_model(), pictures()
    patches = (model.config.image_size // model.config.patch_size) ** 2
    expected = [
        model(**processor(images=[image], return_tensors="pt"), noise=mask_noise([row], patches)).loss.item()
        for row, image in enumerate(rows["image"])
    ]
    found = evaluate_reconstruction(model, processor, rows, batch_size=2)
    assert found.metrics == {"reconstruction": pytest.approx(sum(expected) / 5, rel=1e-5)}
    assert found.macs == 5 * sum(masked_image_macs(model.config)) and found.trials == {"reconstruction": 5}
    some = evaluate_reconstruction(model, processor, rows, max_samples=2).metrics["reconstruction"]
    assert some == pytest.approx((expected[0] + expected[2]) / 2, rel=1e-5)


def test_what_cannot_be_evaluated_is_refused(processor: ViTImageProcessorPil) -> None:
    with pytest.raises(HfChainError, match="the model is a ViTMAEModel: give a ViTMAEForPreTraining"):
        evaluate_reconstruction(masked_model().vit, processor, pictures())
    model: ViTMAEForPreTraining = masked_model()
    torch.nn.init.constant_(model.decoder.decoder_pred.weight, torch.nan)
    with pytest.raises(HfChainError, match="^The loss is not finite"):
        evaluate_reconstruction(model, processor, pictures())
