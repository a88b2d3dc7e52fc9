"""Teacher features on disk: computed once, read as often as a member trains.

Rows are stored once for each augmented view; captions are not augmented, and stored once. A cache is keyed by data
set, teacher and view, so that a change of any of them starts another one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_chain.cost import dual_encoder_macs
from hf_chain.distillation.filling import PAUSE, ROWS, AlreadyWholeError, Filling
from hf_chain.distillation.pair_filling import CAPTION_IDS, TEXTS, PairFilling
from hf_chain.distillation.teacher import LiveTeacher, Teacher, TeacherFeatures, weights_hash
from hf_chain.errors import HfChainError
from hf_chain.files import first_difference, write_json, write_manifest

logger = logging.get_logger(__name__)

META = "meta.json"


class TeacherCache:
    """Features of a teacher read from disk, memory-mapped.

    Args:
        folder (`Path`): a whole cache.
        handed (`Callable`, *optional*): makes features of what is stored of a batch; by default that is the feature.
        handing_macs (`int`): MACs of a row that this takes.
    """

    def __init__(
        self,
        folder: Path,
        handed: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] | None = None,
        handing_macs: int = 0,
    ) -> None:
        self._meta = json.loads((folder / META).read_text(encoding="utf-8"))
        self.macs: int = self._meta["macs"]
        self.handing_macs = handing_macs
        self._handed = handed or (lambda stored: (stored,))
        self._rows = np.load(folder / ROWS, mmap_mode="r")

    def features(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Looks up `row_ids` or `image_ids` `[B]`, and `views` `[B]` where there are several."""
        return self._handed(self._stored(batch))

    def _stored(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        numbers = batch["row_ids" if "row_ids" in batch else "image_ids"]
        rows = numbers.cpu().numpy()
        views = batch["views"].cpu().numpy() if "views" in batch else np.zeros_like(rows)
        return torch.from_numpy(self._rows[views, rows]).to(numbers.device)


class PairCache(TeacherCache):
    """The same of a dual encoder, with the embedding of every caption beside those of images.

    Args:
        folder (`Path`): a whole cache.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.embedding_size: int = self._meta["embedding_size"]
        self._texts = np.load(folder / TEXTS, mmap_mode="r")
        self._caption_ids = np.load(folder / CAPTION_IDS, mmap_mode="r")

    def features(self, batch: dict[str, torch.Tensor]) -> TeacherFeatures:
        """Looks up `image_ids` and `views` `[B]`, and `caption_ids` `[B, K]`.

        Raises:
            HfChainError: for a caption that was not there when the cache was made.
        """
        wanted = batch["caption_ids"].cpu().numpy()
        captions = np.searchsorted(self._caption_ids, wanted).clip(max=len(self._caption_ids) - 1)
        if (self._caption_ids[captions] != wanted).any():
            raise HfChainError("A caption is not in the cache of teacher features: remove the cache to make it anew")
        image = self._stored(batch)
        return TeacherFeatures(image, torch.from_numpy(self._texts[captions]).to(image.device))


def cached_teacher(
    teacher: PreTrainedModel | LiveTeacher,
    dataset: Any,
    collator: Any,
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
        teacher (`PreTrainedModel` or `LiveTeacher`): the predecessor, alone where it is a dual encoder.
        dataset (`Dataset`): the training data; not augmented, or with `image_views` reproducible views.
        collator (`Callable`): makes the batches.
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
    live = teacher if isinstance(teacher, LiveTeacher) else Teacher(teacher)
    if not live.reads:
        raise HfChainError(
            f"the features of a {type(live.model).__name__} change from step to step, so they cannot be cached: set "
            "cache_teacher_features to false"
        )
    views, pairs = _view_count(dataset), isinstance(live, Teacher)
    cache = folder / _key(live.model, dataset, views, bf16)
    if check:
        remove_damaged(folder)
    if not cache.is_dir():
        if rank == 0:
            for other in folder.glob(".*"):
                if not other.name.startswith(f".{cache.name}."):
                    shutil.rmtree(other)
        live.model.to(device)
        kind = PairFilling if pairs else Filling
        _fill(kind(live, dataset, collator, cache, views, batch_size, workers, rank, processes), bf16)
    live.model.to(device)
    return PairCache(cache) if pairs else TeacherCache(cache, live.handed, live.handing_macs(dataset))


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
    if not getattr(dataset, "augmented", False):
        return 1
    if not dataset.settings.image_views:
        raise HfChainError(
            "data.augmentation draws a new view each epoch, which cannot be cached: set data.image_views to 1 or more"
        )
    return max(1, dataset.settings.image_views)


def _key(teacher: Any, dataset: Any, views: int, bf16: bool) -> str:
    augmented = getattr(dataset, "augmented", False)
    view = dataset.settings.augmentation.model_dump_json() if augmented else ""
    parts = (
        dataset.fingerprint,
        weights_hash(teacher),
        views,
        view,
        getattr(dataset, "seed", 0),
        teacher.config.to_json_string(),
        bf16,
        "rows",
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _fill(filling: Filling, bf16: bool) -> None:
    """Takes part in filling a cache, until it is whole."""
    dataset, teacher = filling.dataset, filling.teacher
    epoch = getattr(dataset, "epoch", 0)
    autocast = torch.autocast(teacher.model.device.type, torch.bfloat16, enabled=bf16)
    try:
        with suppress(AlreadyWholeError), autocast, torch.no_grad():
            filling.run()
    finally:
        dataset.set_epoch(epoch)
    if filling.rank == 0:
        rows = len(dataset)
        meta = {"rows": rows, "macs": filling.views * rows * teacher.storing_macs(dataset)}
        if isinstance(filling, PairFilling):
            tokens = getattr(filling.collator, "max_length", None)
            texts = dual_encoder_macs(teacher.model.config, tokens).text * filling.captions
            meta |= {"embedding_size": teacher.embedding_size, "captions": filling.captions}
            meta["macs"] += texts
        write_json(filling.folder / META, meta)
        write_manifest(filling.folder)
        filling.finish()
    while not filling.cache.is_dir():
        time.sleep(PAUSE)
