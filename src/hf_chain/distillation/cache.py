"""Teacher features on disk: computed once, read as often as a member trains.

Captions are not augmented, so their features are exact; images are stored once for each augmented view. A cache is
keyed by data set, teacher and view, so that a change of any of them starts another one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import CLIPModel
from transformers.utils import logging

from hf_chain.cost import clip_macs
from hf_chain.distillation.filling import CAPTION_IDS, IMAGES, PAUSE, TEXTS, AlreadyWholeError, Filling
from hf_chain.distillation.teacher import Teacher, TeacherFeatures, weights_hash
from hf_chain.errors import HfChainError
from hf_chain.files import first_difference, write_json, write_manifest

if TYPE_CHECKING:
    from hf_chain.data import ImageTextCollator, ImageTextDataset, ImageTextStream

logger = logging.get_logger(__name__)

META = "meta.json"


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
        self._caption_ids = np.load(folder / CAPTION_IDS, mmap_mode="r")

    def features(self, batch: dict[str, torch.Tensor]) -> TeacherFeatures:
        """Looks up `image_ids` and `views` `[B]`, and `caption_ids` `[B, K]`.

        Raises:
            HfChainError: for a caption that was not there when the cache was made.
        """
        device = batch["pixel_values"].device
        rows, views = batch["image_ids"].cpu().numpy(), batch["views"].cpu().numpy()
        wanted = batch["caption_ids"].cpu().numpy()
        captions = np.searchsorted(self._caption_ids, wanted).clip(max=len(self._caption_ids) - 1)
        if (self._caption_ids[captions] != wanted).any():
            raise HfChainError("A caption is not in the cache of teacher features: remove the cache to make it anew")
        image = torch.from_numpy(self._images[views, rows])
        return TeacherFeatures(image.to(device), torch.from_numpy(self._texts[captions]).to(device))


def cached_teacher(
    teacher: CLIPModel,
    dataset: ImageTextDataset | ImageTextStream,
    collator: ImageTextCollator,
    folder: Path,
    batch_size: int,
    device: torch.device | str = "cpu",
    bf16: bool = False,
    check: bool = True,
    workers: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> TeacherCache:
    """The teacher's features of `dataset`, computed first if they are not on disk.

    Several processes share the work, through files alone: none waits for another in a collective operation, which has
    a timeout. What a killed run has computed is not computed again.

    Args:
        teacher (`CLIPModel`): the predecessor.
        dataset (`ImageTextDataset`): the training pairs; not augmented, or with `image_views` reproducible views.
        collator (`ImageTextCollator`): makes the batches.
        folder (`Path`): where caches are kept, each under its key.
        batch_size (`int`): samples in a forward.
        device (`torch.device`): where the teacher runs.
        bf16 (`bool`): whether the teacher runs under bfloat16 autocast, as it would live.
        check (`bool`): whether a cache that is there is compared with its manifest, and made again where it differs;
            of several processes the first does that before any of them calls this.
        workers (`int`): further processes that read and tokenize for this one.
        rank (`int`): of this process.
        processes (`int`): that call this at once, all of which see `folder`.

    Raises:
        HfChainError: for streams and for augmentation without a fixed number of views.
    """
    views = _view_count(dataset)
    cache = folder / _key(teacher, dataset, views, bf16)
    if check:
        remove_damaged(folder)
    if not cache.is_dir():
        if rank == 0:
            for other in folder.glob(".*"):
                if not other.name.startswith(f".{cache.name}."):
                    shutil.rmtree(other)
        live = Teacher(teacher.to(device))
        _fill(Filling(live, dataset, collator, cache, views, batch_size, workers, rank, processes), bf16)
    return TeacherCache(cache)


def remove_damaged(folder: Path) -> None:
    """Removes caches that are not as their manifests say; a member that needs one makes it again.

    Args:
        folder (`Path`): where caches are kept; need not be there.
    """
    for cache in sorted(folder.glob("[!.]*")):
        if difference := first_difference(cache):
            logger.warning(f"{cache} is damaged ({difference}): removed, to be computed again where it is needed")
            shutil.rmtree(cache)


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
        "sorted captions",
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _fill(filling: Filling, bf16: bool) -> None:
    """Takes part in filling a cache, until it is whole."""
    dataset, teacher = filling.dataset, filling.teacher
    epoch, autocast = dataset.epoch, torch.autocast(teacher.model.device.type, torch.bfloat16, enabled=bf16)
    try:
        with suppress(AlreadyWholeError), autocast:
            filling.run()
    finally:
        dataset.set_epoch(epoch)
    if filling.rank == 0:
        macs, images, captions = clip_macs(teacher.model.config), len(dataset), filling.captions
        total = filling.views * images * macs.image + captions * macs.text
        meta = {"embedding_size": teacher.embedding_size, "macs": total, "images": images, "captions": captions}
        write_json(filling.folder / META, meta)
        write_manifest(filling.folder)
        filling.finish()
    while not filling.cache.is_dir():
        time.sleep(PAUSE)
