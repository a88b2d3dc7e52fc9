"""Images, with captions or without, as a map-style data set and as a stream."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from copy import copy
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any

from datasets import Dataset, IterableDataset
from PIL import Image
from torch.utils import data

from hf_chain.data.captions import CaptionReader, check_columns, sample_captions, undecoded
from hf_chain.data.quality import FIRST_JUDGEMENT, BadRow, RunningCount, read_row
from hf_chain.data.randomness import sample_random
from hf_chain.data.readers import reader_of
from hf_chain.data.settings import AugmentationSettings, ImageSettings
from hf_chain.data.streams import Epochs, RowStream
from hf_chain.errors import HfChainError, reason
from hf_chain.images import decode_image, image_path


def augment(image: Image.Image, settings: AugmentationSettings, random: Random) -> Image.Image:
    """Crop and mirror an image at random.

    The crop is a square and is not resized here: the processor resizes it once, exactly as it will for users.

    Args:
        image (`PIL.Image.Image`): The image, mode `RGB`.
        settings (`AugmentationSettings`): What may happen to it.
        random (`random.Random`): Generator of this sample.

    Returns:
        `PIL.Image.Image`: The changed image.
    """
    if settings.crop_scale is not None:
        share = random.uniform(*settings.crop_scale)
        side = max(1, round(share**0.5 * min(image.size)))
        left = random.randint(0, image.width - side)
        top = random.randint(0, image.height - side)
        image = image.crop((left, top, left + side, top + side))
    if settings.horizontal_flip and random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


_DRAWS = 100
"""Rows that are drawn in place of a bad one before all are tried in their order."""


class _Images(Epochs):
    """What data sets and streams share: turning a row into a sample of an epoch."""

    _rows: Dataset | IterableDataset

    def __init__(
        self,
        dataset: Dataset | IterableDataset,
        settings: Any,
        seed: int = 0,
        training: bool = True,
        report_file: str | Path | None = None,
    ) -> None:
        check_columns(dataset, settings)
        super().__init__()
        self.dataset = dataset
        self.settings = settings
        self.reader = reader_of(settings, dataset.features)
        self.seed = seed
        self.augmented = training and settings.augmentation.enabled
        self.report_file = report_file
        self._rows = undecoded(dataset, settings)

    @property
    def view(self) -> int:
        """View of this epoch: `epoch mod V`, -1 for a fresh one each epoch, 0 without augmentation."""
        if not self.augmented:
            return 0
        return self.epoch % self.settings.image_views if self.settings.image_views else -1

    def _image(self, row: Mapping[str, Any]) -> Image.Image:
        return decode_image(row[self.settings.image_column], self.settings.max_image_pixels)

    def _sample(self, key: int | str, image_id: int, row: Mapping[str, Any], image: Image.Image) -> dict[str, Any]:
        if self.augmented:
            turn = self.view if self.settings.image_views else self.epoch
            image = augment(image, self.settings.augmentation, sample_random("image", self.seed, turn, key))
        sample = {"image": image, "image_id": image_id, "view": self.view}
        label = self.reader.label(row)
        if label is not None:
            sample["label"] = label
        return sample


class _Captioned(_Images):
    """The captions of either kind."""

    reader: CaptionReader

    @property
    def captions_per_image(self) -> int:
        """Captions K of a sample."""
        return self.settings.captions_per_image

    def all_captions(self, most_rows: int | None = None) -> Iterator[str]:
        """Yield every usable caption of the first `most_rows` rows, or of all, without reading images."""
        rows = self._rows.remove_columns(self.settings.image_column)
        for row in islice(rows, most_rows):
            yield from self.reader.captions(row)[0]

    def _sample(self, key: int | str, image_id: int, row: Mapping[str, Any], image: Image.Image) -> dict[str, Any]:
        captions, _ = self.reader.captions(row)
        if not captions:
            raise ValueError("there is no usable caption")
        random = sample_random("captions", self.seed, self.epoch, key)
        drawn = sample_captions(captions, self.settings.captions_per_image, random)
        return super()._sample(key, image_id, row, image) | {"captions": drawn}


class ImageDataset(_Images, data.Dataset):
    """Images, and their class numbers where the settings name them, by row number.

    A sample depends on the seed, the epoch and its row only. A bad row is counted, and replaced by another that seed,
    epoch and row choose; past `max_bad_share` the run stops.

    Args:
        dataset (`datasets.Dataset`): One split.
        settings (`ImageSettings`): Columns and augmentation.
        seed (`int`, *optional*, defaults to 0): Seed of the augmentation.
        training (`bool`, *optional*, defaults to `True`): Whether images are augmented.
        report_file (`str` or `pathlib.Path`, *optional*): JSON lines file that bad rows are appended to.

    Raises:
        `HfChainError`: Where a column is missing; while rows are read, where too many are bad.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: ImageSettings,
        seed: int = 0,
        training: bool = True,
        report_file: str | Path | None = None,
    ) -> None:
        super().__init__(dataset, settings, seed, training, report_file)
        # A data set without columns would have no rows either.
        others = self._rows.remove_columns(settings.image_column)
        self._others = others if others.column_names else [{}] * len(self._rows)
        self._decoded: dict[int, Image.Image] = {}
        self._bad: dict[int, BadRow] = {}
        name, first = f"the data of {settings.source}", min(FIRST_JUDGEMENT, len(self._rows))
        self.count = RunningCount(settings.max_bad_share, report_file, name, first)

    @property
    def fingerprint(self) -> str:
        """Hash of the rows, equal in every process."""
        return self.dataset._fingerprint

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        sample = self._usable(index)
        if sample is not None:
            self.count.add(None)
            return sample
        # The same row in every process, and in a run that goes on.
        random = sample_random("replacement", self.seed, self.epoch, index)
        rows = len(self)
        for other in chain((random.randrange(rows) for _ in range(_DRAWS)), range(rows)):
            sample = self._usable(other)
            if sample is not None:
                return sample
        raise HfChainError(f"no row of {self.settings.source} can be used, {self._bad[index].problem}; check the data")

    def _usable(self, index: int) -> dict[str, Any] | None:
        """The sample of a row, or `None`, which is counted and said once."""
        if index in self._bad:
            return None
        kept = self._decoded.get(index)
        row = self._rows[index] if kept is None else self._others[index]
        try:
            image = self._image(row) if kept is None else kept
            if self.settings.keep_decoded:
                # A copy holds the pixels only, not the file it came from.
                self._decoded[index] = image = image.copy()
            return self._sample(index, index, row, image)
        except HfChainError:
            raise
        except Exception as error:  # Pillow's decoders raise errors of every kind.
            path = image_path(row.get(self.settings.image_column))
            self._bad[index] = BadRow(index, path, f"it cannot be used, {reason(error)}", usable=False)
        self.count.add(self._bad[index])
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} rows of {self.settings.source})"


class ImageTextDataset(_Captioned, ImageDataset):
    """Image–text pairs by row number: an `ImageDataset` whose samples have captions.

    Args:
        dataset (`datasets.Dataset`): One split.
        settings (`DataSettings`): Columns, captions and augmentation.
        seed (`int`, *optional*, defaults to 0): Seed of caption choice and augmentation.
        training (`bool`, *optional*, defaults to `True`): Whether images are augmented.
        report_file (`str` or `pathlib.Path`, *optional*): JSON lines file that bad rows are appended to.

    Raises:
        `HfChainError`: Where a column is missing; while rows are read, where too many are bad.

    Example:
        ```python
        >>> splits = load_splits(DataSettings(), seed=0)
        >>> pairs = ImageTextDataset(splits["train"], DataSettings())
        >>> pairs.set_epoch(3)
        >>> pairs[0]["captions"]
        ```
    """

    def captions(self, index: int) -> list[str]:
        """Return all usable captions of a row, without reading its image."""
        return self.reader.captions(self._others[index])[0]


class ImageStream(_Images, RowStream):
    """Images of a stream, and their class numbers where the settings name them.

    Bad rows are counted, skipped, and stop the run past `max_bad_share`.

    Workers share the files of the stream, and so do processes in [`ChainTrainer`], by lanes: accelerate cuts every
    global batch in slices (with `dispatch_batches=False`), so that two processes see what one would. What is drawn for
    a row depends on the seed, the epoch and the row's own content, whichever worker or process reads it.

    Args:
        dataset (`datasets.IterableDataset`): One split.
        settings (`ImageSettings`): Columns and augmentation.
        seed (`int`, *optional*, defaults to 0): Seed of the augmentation.
        training (`bool`, *optional*, defaults to `True`): Whether images are augmented.
        report_file (`str` or `pathlib.Path`, *optional*): JSON lines file that bad rows are appended to.

    Raises:
        `HfChainError`: Where a column is missing.
    """

    def __init__(
        self,
        dataset: IterableDataset,
        settings: ImageSettings,
        seed: int = 0,
        training: bool = True,
        report_file: str | Path | None = None,
    ) -> None:
        super().__init__(dataset, settings, seed, training, report_file)
        self._passes = 0
        self.count = RunningCount(settings.max_bad_share, report_file)

    def lane(self, index: int, lanes: int, reports: bool = True) -> Any:
        """Return one lane; where it does not report, its bad rows are not appended to `report_file`."""
        part = super().lane(index, lanes, reports)
        if not reports:
            part.report_file = None
        return part

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._passes % self.lanes == 0:
            self.count = RunningCount(self.settings.max_bad_share, self.report_file)
        # A pass that has begun keeps its epoch, also when the next one is chosen meanwhile.
        now = copy(self)
        now._epoch = self._epoch.clone()
        for row in self._rows:
            image, bad = read_row(self.count.report.rows, row, self.reader)
            self.count.add(bad)
            if image is not None:
                key = _content_key(row, self.settings.image_column)
                yield now._sample(key, int(key, 16) >> 1, row, image)
        # The files of a lane are others in each pass: as many passes as lanes stand for the whole stream.
        self._passes += 1
        if self._passes % self.lanes == 0:
            self.count.finish()


class ImageTextStream(_Captioned, ImageStream):
    """Image–text pairs of a stream: an `ImageStream` of `DataSettings`, whose samples have captions."""


def _content_key(row: Mapping[str, Any], image_column: str) -> str:
    value = row[image_column]
    digest = hashlib.blake2b(digest_size=8)
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        digest.update(value["bytes"])
    elif isinstance(value, Image.Image):
        digest.update(value.tobytes())
    else:
        digest.update(str(image_path(value)).encode())
    digest.update(repr([item for name, item in sorted(row.items()) if name != image_column]).encode())
    return digest.hexdigest()
