"""Cached teacher features are the live ones."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

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
from hf_chain.distillation import Teacher, filling, pair_filling
from hf_chain.distillation.cache import PairCache, cached_teacher
from hf_chain.errors import HfChainError
from hf_chain.files import first_difference
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


def fill_part(rank: int, processes: int, folder: Path, block: int, stop_after: int | None) -> None:
    """What a process of several does; with `stop_after`, it is killed after so many forwards."""
    torch.set_num_threads(1)
    filling.BLOCK = block
    dataset, collator = pairs()
    teacher, forwards = model_for(collator, 1), 0

    def count(*_: Any) -> None:
        nonlocal forwards
        forwards += 1
        if stop_after is not None and forwards > stop_after:
            os.kill(os.getpid(), signal.SIGKILL)

    for tower in (teacher.vision_model, teacher.text_model):
        tower.register_forward_hook(count)
    parts = {"check": False, "rank": rank, "processes": processes}
    cached_teacher(teacher, dataset, collator, folder / "cache", batch_size=4, **parts)
    (folder / f"forwards-{rank}").write_text(str(forwards))


def fill(folder: Path, processes: int, block: int, stop_after: int | None = None) -> list[int | None]:
    """Exit codes of processes that fill a cache together."""
    context = multiprocessing.get_context("fork")
    arguments = [(rank, processes, folder, block, stop_after) for rank in range(processes)]
    started = [context.Process(target=fill_part, args=values) for values in arguments]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return [process.exitcode for process in started]


def check_live(folder: Path) -> None:
    """Holds that the only cache in a folder is whole and has what the teacher says now."""
    (place,) = folder.iterdir()
    assert first_difference(place) is None
    dataset, collator = pairs()
    batch = collator([dataset[row] for row in range(len(dataset))])
    cached, live = PairCache(place).features(batch), Teacher(model_for(collator, 1)).features(batch)
    torch.testing.assert_close(cached.image, live.image)
    torch.testing.assert_close(cached.text, live.text)


@pytest.mark.parametrize(("processes", "block"), [(1, 5), (2, 5), (3, 1_024)])
def test_processes_share_the_work_and_the_features_are_live_ones(tmp_path: Path, processes: int, block: int) -> None:
    assert fill(tmp_path, processes, block) == [0] * processes
    check_live(tmp_path / "cache")
    forwards = [int((tmp_path / f"forwards-{rank}").read_text()) for rank in range(processes)]
    assert (min(forwards) > 0) == (block == 5)


@pytest.mark.parametrize("stop_after", [0, 9, 25])
def test_a_killed_cache_goes_on_where_it_was(tmp_path: Path, stop_after: int) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    assert fill(killed, 1, 5, stop_after) == [-signal.SIGKILL]
    assert all(path.name.startswith(".") for path in (killed / "cache").iterdir())
    (notes,) = (killed / "cache").glob(".*.notes")
    with (notes / "texts-0.log").open("ab") as file:
        file.write(b"\n00000000000")  # A note that a kill has cut short.
    assert fill(killed, 1, 5) == fill(whole, 1, 5) == [0]
    rest, all_of_them = (int((folder / "forwards-0").read_text()) for folder in (killed, whole))
    # At most the forwards of one block are done again.
    assert all_of_them - stop_after <= rest <= all_of_them - stop_after + 3
    (place,), (reference,) = (killed / "cache").iterdir(), (whole / "cache").iterdir()
    for name in ("rows.npy", "texts.npy", "caption_ids.npy"):
        assert (place / name).read_bytes() == (reference / name).read_bytes()


def test_notes_without_what_they_tell_of_count_for_nothing(tmp_path: Path) -> None:
    fill(tmp_path, 1, 5, stop_after=25)
    shutil.rmtree(next((tmp_path / "cache").glob(".*.partial")))
    assert fill(tmp_path, 1, 5) == [0]
    check_live(tmp_path / "cache")


def test_ids_that_are_sorted_in_parts_and_workers_that_read_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    augmented = {"augmentation": {"crop_scale": (0.5, 1.0)}, "image_views": 2}
    dataset, collator = pairs(**augmented)
    for name, most, workers in (("whole", 1 << 22, 0), ("parts", 3, 2)):
        monkeypatch.setattr(pair_filling, "SORTED_AT_ONCE", most)
        cached_teacher(model_for(collator, 1), dataset, collator, tmp_path / name, 8, workers=workers)
    (whole,), (parts,) = (tmp_path / "whole").iterdir(), (tmp_path / "parts").iterdir()
    for name in ("rows.npy", "texts.npy", "caption_ids.npy"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


def test_a_caption_the_cache_does_not_know_is_an_error(tmp_path: Path) -> None:
    dataset, collator = pairs()
    cache = cached_teacher(model_for(collator, 1), dataset, collator, tmp_path / "cache", batch_size=8)
    batch = collator([dataset[row] for row in range(4)])
    batch["caption_ids"][0, 0] += 1
    with pytest.raises(HfChainError, match="A caption is not in the cache"):
        cache.features(batch)
