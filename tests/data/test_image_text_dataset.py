"""Samples depend on seed, epoch and row only; batches have the promised tensors."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from hf_chain.data import DataSettings, ImageTextCollator, ImageTextDataset, build_processor, train_tokenizer
from hf_chain.data.collator import caption_id

AUGMENTED = {"augmentation": {"crop_scale": (0.3, 0.9), "horizontal_flip": True}}


@pytest.fixture(scope="module")
def collator(scenes):
    captions = (caption for captions in scenes["train"]["captions"] for caption in captions)
    return ImageTextCollator(build_processor(train_tokenizer(captions, 800, max_length=32), 32))


def content(sample):
    return sample["image"].tobytes(), sample["captions"], sample["image_id"], sample["view"], sample["label"]


def test_a_sample_depends_on_seed_epoch_and_row_only(scenes):
    settings = DataSettings(captions_per_image=2, **AUGMENTED)
    first, second = (ImageTextDataset(scenes["train"], settings, seed=3) for _ in range(2))
    first.set_epoch(2)
    forward = [content(first[row]) for row in range(20)]
    torch.manual_seed(9)
    second.set_epoch(2)
    assert [content(second[row]) for row in reversed(range(20))] == forward[::-1]
    second.set_epoch(1)
    assert [content(second[row]) for row in range(20)] != forward
    other = ImageTextDataset(scenes["train"], settings, seed=4)
    other.set_epoch(2)
    assert [content(other[row]) for row in range(20)] != forward


def test_every_caption_is_shown_sooner_or_later(scenes):
    pairs = ImageTextDataset(scenes["train"], DataSettings(captions_per_image=2), seed=0)
    shown = set()
    for epoch in range(60):
        pairs.set_epoch(epoch)
        drawn = pairs[5]["captions"]
        assert len(set(drawn)) == 2
        shown.update(drawn)
    assert shown == set(pairs.captions(5))


def test_captions_repeat_only_after_all_were_drawn(scenes):
    pairs = ImageTextDataset(scenes["train"], DataSettings(captions_per_image=12))
    available = pairs.captions(0)
    drawn = pairs[0]["captions"]
    assert len(drawn) == 12 and set(drawn[: len(available)]) == set(available)


def test_views_repeat_the_images_and_not_the_captions(scenes):
    pairs = ImageTextDataset(scenes["train"], DataSettings(image_views=2, **AUGMENTED))
    by_epoch = []
    for epoch in range(4):
        pairs.set_epoch(epoch)
        by_epoch.append([pairs[row] for row in range(10)])
    images = [[sample["image"].tobytes() for sample in samples] for samples in by_epoch]
    captions = [[sample["captions"] for sample in samples] for samples in by_epoch]
    assert [samples[0]["view"] for samples in by_epoch] == [0, 1, 0, 1]
    assert images[0] == images[2] != images[1] == images[3]
    assert captions[0] != captions[2]


@pytest.mark.parametrize(
    ("options", "training", "view"), [({}, True, 0), (AUGMENTED, True, -1), (AUGMENTED, False, 0)]
)
def test_view_says_whether_features_can_be_cached(scenes, options, training, view):
    sample = ImageTextDataset(scenes["train"], DataSettings(**options), training=training)[0]
    assert sample["view"] == view
    assert (sample["image"].size == (64, 64)) == (view == 0)


def test_crops_reach_every_corner_and_flips_happen(scenes):
    settings = DataSettings(augmentation={"crop_scale": (0.25, 0.25), "horizontal_flip": True})
    pairs = ImageTextDataset(scenes["train"], settings)
    whole = scenes["train"][0]["image"]
    halves = {whole.crop((x, y, x + 32, y + 32)).tobytes() for x in range(33) for y in range(33)}
    plain = 0
    for epoch in range(40):
        pairs.set_epoch(epoch)
        image = pairs[0]["image"]
        assert image.size == (32, 32)
        plain += image.tobytes() in halves
    assert 5 < plain < 35


def batches_of(pairs, collator, workers, epochs=(0, 1)):
    loader = DataLoader(pairs, batch_size=8, collate_fn=collator, num_workers=workers, persistent_workers=workers > 0)
    for epoch in epochs:
        pairs.set_epoch(epoch)
        yield from loader


def test_workers_do_not_change_the_batches(scenes, collator):
    settings = DataSettings(captions_per_image=2, **AUGMENTED)
    pairs = ImageTextDataset(scenes["train"].select(range(24)), settings)
    alone = list(batches_of(pairs, collator, 0))
    assert len(alone) == 6 and not torch.equal(alone[0]["caption_ids"], alone[3]["caption_ids"])
    for one, two in zip(alone, batches_of(pairs, collator, 2), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_batch_has_the_promised_shapes_and_types(scenes, collator):
    pairs = ImageTextDataset(scenes["train"], DataSettings(captions_per_image=3))
    batch = collator([pairs[row] for row in (4, 0, 7)])
    tokens = batch["input_ids"]
    assert batch["pixel_values"].shape == (3, 3, 32, 32) and batch["pixel_values"].dtype == torch.float32
    assert tokens.shape[:2] == (3, 3) and tokens.shape == batch["attention_mask"].shape
    assert {batch[name].dtype for name in batch if name != "pixel_values"} == {torch.int64}
    assert batch["image_ids"].tolist() == [4, 0, 7] and batch["views"].tolist() == [0, 0, 0]
    lengths = batch["attention_mask"].sum(-1)
    assert tokens.shape[-1] == 32 and lengths.max() < 32
    last = tokens.gather(-1, lengths[..., None] - 1)
    assert (last == collator.tokenizer.eos_token_id).all() and (tokens.argmax(-1) == lengths - 1).all()


def test_a_long_caption_is_cut_and_still_ends(scenes, collator):
    sample = {**ImageTextDataset(scenes["train"], DataSettings())[0], "captions": ["a red circle " * 40]}
    tokens = collator([sample])["input_ids"]
    assert tokens.shape == (1, 1, 32) and tokens[0, 0, -1] == collator.tokenizer.eos_token_id


def test_equal_captions_have_equal_ids(scenes, collator):
    sample = ImageTextDataset(scenes["train"], DataSettings())[0]
    texts = ["a red star", "A  red star", "a red stars", "a blue star in a long sentence"]
    ids = collator([{**sample, "captions": [text]} for text in texts])["caption_ids"].flatten().tolist()
    assert ids[0] == ids[1] and len(set(ids)) == 3
    # Written down, because teacher caches on disk outlive a process.
    assert caption_id([1, 2, 3]) == caption_id((1, 2, 3)) == 1853286989701629226
