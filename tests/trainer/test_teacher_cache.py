"""Cached teacher features are the live ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hf_chain.data import (
    DataSettings,
    ImageTextCollator,
    ImageTextDataset,
    build_processor,
    load_splits,
    train_tokenizer,
)
from hf_chain.distillation.cache import cached_teacher
from hf_chain.errors import HfChainError
from hf_chain.trainer import ChainConfig, ChainTrainer
from support.pairs import tiny_clip

SCENES = {"train": 32, "validation": 4, "test": 4, "compositional": 4, "image_size": 16}


def pairs(**settings) -> tuple[ImageTextDataset, ImageTextCollator]:
    data = DataSettings(source="scenes", scenes=SCENES, captions_per_image=2, **settings)
    dataset = ImageTextDataset(load_splits(data)["train"], data)
    tokenizer = train_tokenizer(dataset.all_captions(), 600)
    return dataset, ImageTextCollator(build_processor(tokenizer, 16), 24)


def model_for(collator: ImageTextCollator, seed: int):
    model = tiny_clip(seed=seed)
    config = model.config
    config.text_config.vocab_size = len(collator.tokenizer)
    config.text_config.max_position_embeddings = 24
    config.text_config.eos_token_id = config.text_config.pad_token_id = collator.tokenizer.eos_token_id
    torch.manual_seed(seed)
    return type(model)(config)


def train(folder: Path, dataset, collator, teacher, model) -> list[float]:
    args = ChainConfig(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        num_train_epochs=3,
        logging_steps=1,
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        seed=0,
    )
    trainer = ChainTrainer(model, args, teacher, train_dataset=dataset, data_collator=collator)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("views", [0, 2])
def test_a_cached_run_has_the_losses_of_a_live_one(tmp_path: Path, views: int) -> None:
    augmented = {"augmentation": {"crop_scale": (0.5, 1.0)}, "image_views": views} if views else {}
    dataset, collator = pairs(**augmented)
    live = train(tmp_path, dataset, collator, model_for(collator, 1), model_for(collator, 0))
    cache = cached_teacher(model_for(collator, 1), dataset, collator, tmp_path / "cache", batch_size=8)
    cached = train(tmp_path, dataset, collator, cache, model_for(collator, 0))
    assert cached == pytest.approx(live, rel=1e-5)
    assert cache.macs > 0


def test_a_cache_is_read_again_and_another_teacher_or_view_gets_its_own(tmp_path: Path) -> None:
    dataset, collator = pairs()
    folder = tmp_path / "cache"
    for seed in (1, 1, 2):
        cached_teacher(model_for(collator, seed), dataset, collator, folder, batch_size=8)
    assert len(list(folder.iterdir())) == 2
    augmented, _ = pairs(augmentation={"crop_scale": (0.5, 1.0)}, image_views=1)
    cached_teacher(model_for(collator, 1), augmented, collator, folder, batch_size=8)
    assert len(list(folder.iterdir())) == 3


def test_fresh_views_cannot_be_cached(tmp_path: Path) -> None:
    dataset, collator = pairs(augmentation={"crop_scale": (0.5, 1.0)})
    with pytest.raises(HfChainError, match="set data.image_views to 1 or more"):
        cached_teacher(model_for(collator, 1), dataset, collator, tmp_path, batch_size=8)


def test_an_interrupted_cache_leaves_nothing_behind(tmp_path: Path) -> None:
    dataset, collator = pairs()

    def broken(captions):
        raise RuntimeError("interrupted")

    collator.tokenize, whole = broken, collator.tokenize
    with pytest.raises(RuntimeError, match="interrupted"):
        cached_teacher(model_for(collator, 1), dataset, collator, tmp_path / "cache", batch_size=8)
    assert list((tmp_path / "cache").iterdir()) == []
    collator.tokenize = whole
    cached_teacher(model_for(collator, 1), dataset, collator, tmp_path / "cache", batch_size=8)


def test_a_caption_the_cache_does_not_know_is_an_error(tmp_path: Path) -> None:
    dataset, collator = pairs()
    cache = cached_teacher(model_for(collator, 1), dataset, collator, tmp_path / "cache", batch_size=8)
    batch = collator([dataset[row] for row in range(4)])
    batch["caption_ids"][0, 0] += 1
    with pytest.raises(HfChainError, match="A caption is not in the cache"):
        cache.features(batch)
