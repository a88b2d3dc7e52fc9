"""Images without captions: with class numbers, without any other column, and as a stream."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Pillow
from transformers import ViTImageProcessorPil

from hf_chain.data import (
    DataSettings,
    ImageCollator,
    ImageDataset,
    ImageSettings,
    ImageStream,
    MultiLabelSettings,
    check_quality,
)
from hf_chain.data.dataset import ImageTextDataset
from hf_chain.errors import HfChainError

SETTINGS = {"source": "pictures", "label_column": "label", "max_bad_share": 0.5}


def pictures(count: int = 8, broken: int = 3) -> Dataset:
    """Pictures of two classes, of which one cannot be read."""
    rows = [{"image": Pillow.new("RGB", (20 + row, 16), (30 * row, 0, 0)), "label": row % 2} for row in range(count)]
    rows[broken]["image"] = {"bytes": b"no image", "path": None}
    return Dataset.from_list(rows, features=Features({"image": Image(), "label": ClassLabel(names=["even", "odd"])}))


def collate(samples: list[dict]) -> dict[str, torch.Tensor]:
    return ImageCollator(ViTImageProcessorPil(size={"height": 8, "width": 8}))(samples)


def test_a_batch_has_class_numbers_and_a_bad_row_is_replaced() -> None:
    images = ImageDataset(pictures(), ImageSettings(**SETTINGS, keep_decoded=True))
    batch = collate([images[row] for row in range(8)])
    assert batch.keys() == {"pixel_values", "image_ids", "views", "labels"}
    assert batch["pixel_values"].shape == (8, 3, 8, 8)
    assert batch["image_ids"][3] != 3 and torch.equal(batch["labels"], batch["image_ids"] % 2)
    assert images[0]["image"].tobytes() == ImageDataset(pictures(), images.settings)[0]["image"].tobytes()


def test_lists_of_class_numbers_become_a_number_for_each_class() -> None:
    def listed(feature: Any, last: int = 2, **settings: Any) -> ImageDataset:
        values = [[2, 0], [], [0, last], [1], None, [2, 2], [1], []]
        rows = pictures(broken=7).remove_columns("label").add_column("labels", values, feature=feature)
        return ImageDataset(rows, MultiLabelSettings(source="pictures", max_bad_share=0.5, **settings))

    names = ["cat", "dog", "owl"]
    numbered = listed(List(Value("int64")), 3, class_names=names)
    for images in (numbered, listed(List(ClassLabel(names=names)))):
        labels = collate([images[row] for row in (0, 1, 3, 5)])["labels"]
        assert labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1]] and labels.dtype == torch.float32
    # The third row has a fourth class, the fifth no list, and the last one no image.
    assert list(check_quality(numbered.dataset, numbered.settings)) == [0, 1, 3, 5, 6]
    with pytest.raises(HfChainError, match="label_column 'labels' holds numbers without names, .*: give class_names"):
        listed(List(Value("int64")))
    with pytest.raises(HfChainError, match="label_column 'label' holds int64, not a list of class numbers"):
        ImageDataset(pictures(), MultiLabelSettings(source="pictures", label_column="label"))


def test_images_alone_need_no_other_column() -> None:
    settings = ImageSettings(source="pictures", max_bad_share=0.5, keep_decoded=True)
    images = ImageDataset(pictures().remove_columns("label"), settings)
    for _ in range(2):
        batch = collate([images[row] for row in range(8)])
        assert batch.keys() == {"pixel_values", "image_ids", "views"} and batch["image_ids"][0] == 0


def test_views_are_those_of_the_same_images_with_captions() -> None:
    more = SETTINGS | {"augmentation": {"crop_scale": (0.3, 0.9), "horizontal_flip": True}}
    images, pairs = ImageDataset(pictures(), ImageSettings(**more)), ImageTextDataset(pictures(), DataSettings(**more))
    for epoch in range(2):
        images.set_epoch(epoch)
        pairs.set_epoch(epoch)
        assert images[5]["image"].tobytes() == pairs[5]["image"].tobytes()


def test_a_stream_tells_its_images_apart() -> None:
    rows = pictures().to_iterable_dataset(num_shards=2)
    samples = list(ImageStream(rows, ImageSettings(**SETTINGS)))
    assert [sample["label"] for sample in samples] == [0, 1, 0, 0, 1, 0, 1]
    assert len({sample["image_id"] for sample in samples}) == 7


def test_rows_are_checked_without_captions() -> None:
    assert list(check_quality(pictures(), ImageSettings(**SETTINGS))) == [0, 1, 2, 4, 5, 6, 7]
    wrong = pictures().cast_column("label", Value("int64")).map(lambda row: {"label": row["label"] - 1})
    with pytest.raises(HfChainError, match="label -1 is no class number"):
        check_quality(
            wrong,
            ImageSettings(
                **SETTINGS,
            ),
        )


def test_a_column_of_names_is_refused_with_what_to_do() -> None:
    named = pictures().cast_column("label", Value("string"))
    with pytest.raises(HfChainError, match="class_encode_column$"):
        ImageDataset(named, ImageSettings(**SETTINGS))
    with pytest.raises(HfChainError, match="class_names_column$"):
        ImageTextDataset(named, DataSettings(**SETTINGS))


def test_captions_are_not_asked_for() -> None:
    assert ImageSettings(source="somewhere").label_column is None
    assert ImageSettings().label_column == "label"
    with pytest.raises(ValueError, match="caption_column"):
        ImageSettings(source="somewhere", caption_column="text")
    with pytest.raises(ValueError, match="one of them must give captions"):
        DataSettings(source="somewhere")
