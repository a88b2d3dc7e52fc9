"""Teacher features on disk: computed once, read as often as a member trains.

Captions are not augmented, so their features are exact; images are stored once for each augmented view. A cache is
keyed by data set, teacher and view, so that a change of any of them starts another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import CLIPModel

from hf_chain.cost import clip_macs
from hf_chain.distillation.teacher import Teacher, TeacherFeatures, weights_hash
from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from hf_chain.data import ImageTextCollator, ImageTextDataset, ImageTextStream

IMAGES, TEXTS, CAPTION_IDS, META = "images.npy", "texts.npy", "caption_ids.npy", "meta.json"


class TeacherCache:
    """Teacher features read from disk, memory-mapped.

    Args:
        folder (`Path`): a whole cache.
    """

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        self.embedding_size: int = meta["embedding_size"]
        self.macs: int = meta["macs"]
        self._images = np.load(folder / IMAGES, mmap_mode="r")
        self._texts = np.load(folder / TEXTS, mmap_mode="r")
        self._caption_ids = np.load(folder / CAPTION_IDS)

    def features(self, batch: dict[str, torch.Tensor]) -> TeacherFeatures:
        """Looks up `image_ids` and `views` `[B]`, and `caption_ids` `[B, K]`.

        Raises:
            HfChainError: for a caption that was not there when the cache was made.
        """
        device = batch["pixel_values"].device
        rows, views = batch["image_ids"].cpu().numpy(), batch["views"].cpu().numpy()
        wanted = batch["caption_ids"].cpu().numpy()
        places = np.searchsorted(self._caption_ids, wanted).clip(max=len(self._caption_ids) - 1)
        if (self._caption_ids[places] != wanted).any():
            raise HfChainError("A caption is not in the cache of teacher features: remove the cache to make it anew")
        image = torch.from_numpy(self._images[views, rows])
        return TeacherFeatures(image.to(device), torch.from_numpy(self._texts[places]).to(device))


def cached_teacher(
    teacher: CLIPModel,
    dataset: ImageTextDataset | ImageTextStream,
    collator: ImageTextCollator,
    folder: Path,
    batch_size: int,
    device: torch.device | str = "cpu",
    bf16: bool = False,
) -> TeacherCache:
    """The teacher's features of `dataset`, computed first if they are not on disk.

    With several processes let the main one come first (`TrainingArguments.main_process_first`).

    Args:
        teacher (`CLIPModel`): the predecessor.
        dataset (`ImageTextDataset`): the training pairs; not augmented, or with `image_views` reproducible views.
        collator (`ImageTextCollator`): makes the batches.
        folder (`Path`): where caches are kept, each under its key.
        batch_size (`int`): samples in a forward.
        device (`torch.device`): where the teacher runs.
        bf16 (`bool`): whether the teacher runs under bfloat16 autocast, as it would live.

    Raises:
        HfChainError: for streams and for augmentation without a fixed number of views.
    """
    views = _view_count(dataset)
    place = folder / _key(teacher, dataset, views, bf16)
    if not (place / META).exists():
        _write(Teacher(teacher.to(device)), dataset, collator, place, views, batch_size, bf16)
    return TeacherCache(place)


def _view_count(dataset: Any) -> int:
    if not hasattr(dataset, "fingerprint"):
        raise HfChainError("Teacher features of a stream cannot be cached: set cache_teacher_features to false")
    if dataset.augmented and not dataset.settings.image_views:
        raise HfChainError(
            "data.augmentation draws a new view each epoch, which cannot be cached: set data.image_views to 1 or more"
        )
    return max(1, dataset.settings.image_views) if dataset.augmented else 1


def _key(teacher: CLIPModel, dataset: Any, views: int, bf16: bool) -> str:
    view = dataset.settings.augmentation.model_dump_json() if dataset.augmented else ""
    parts = (
        dataset.fingerprint,
        weights_hash(teacher),
        views,
        view,
        dataset.seed,
        teacher.config.to_json_string(),
        bf16,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _write(
    teacher: Teacher,
    dataset: Any,
    collator: ImageTextCollator,
    place: Path,
    views: int,
    batch_size: int,
    bf16: bool,
) -> None:
    staging = place.with_name(f".{place.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    epoch = dataset.epoch
    device = teacher.model.device
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            _write_images(teacher, dataset, collator, staging, views, batch_size)
            captions = _write_texts(teacher, dataset, collator, staging, batch_size)
        macs = clip_macs(teacher.model.config)
        total = views * len(dataset) * macs.image + captions * macs.text
        meta = {"embedding_size": teacher.embedding_size, "macs": total, "images": len(dataset), "captions": captions}
        (staging / META).write_text(json.dumps(meta), encoding="utf-8")
        os.replace(staging, place)
    finally:
        dataset.set_epoch(epoch)
        shutil.rmtree(staging, ignore_errors=True)


def _write_images(teacher: Teacher, dataset: Any, collator: Any, folder: Path, views: int, batch_size: int) -> None:
    shape = (views, len(dataset), teacher.embedding_size)
    store = np.lib.format.open_memmap(folder / IMAGES, mode="w+", dtype=np.float32, shape=shape)
    with tqdm(total=views * len(dataset), desc="Caching teacher image features", unit="image") as progress:
        for view in range(views):
            dataset.set_epoch(view)
            for start in range(0, len(dataset), batch_size):
                rows = range(start, min(start + batch_size, len(dataset)))
                batch = collator([dataset[row] for row in rows])
                features = teacher.image_features(batch["pixel_values"].to(teacher.model.device))
                store[view, rows.start : rows.stop] = features.cpu().numpy()
                progress.update(len(rows))
    store.flush()


def _write_texts(teacher: Teacher, dataset: Any, collator: Any, folder: Path, batch_size: int) -> int:
    """Stores every different caption once, in order of its id, and returns how many there are."""
    ids, features = [], []
    captions = iter(tqdm(dict.fromkeys(dataset.all_captions()), desc="Caching teacher text features", unit="caption"))
    while chunk := list(islice(captions, batch_size)):
        texts = collator.tokenize(chunk)
        batch = {name: texts[name].unsqueeze(1).to(teacher.model.device) for name in ("input_ids", "attention_mask")}
        features.append(teacher.text_features(batch).squeeze(1).cpu().numpy())
        ids.append(texts["caption_ids"].numpy())
    # Captions that are cut to the same tokens have one id.
    unique, first = np.unique(np.concatenate(ids), return_index=True)
    np.save(folder / CAPTION_IDS, unique)
    np.save(folder / TEXTS, np.concatenate(features)[first])
    return sum(map(len, ids))
