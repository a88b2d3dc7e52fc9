"""What has to fit before a member is trained: batch, rows and teacher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from transformers import CLIPConfig

MIN_GLOBAL_BATCH = 2
"""A contrastive loss tells each image from the others."""


def check_global_batch(where: str, batch: int) -> None:
    """Refuses a global batch of one image, in which a contrastive loss has nothing to tell it from.

    Args:
        where (`str`): the member, or nothing.
        batch (`int`): images of all processes in a step.

    Raises:
        HfChainError: naming the batch.
    """
    if batch < MIN_GLOBAL_BATCH:
        raise HfChainError(
            f"{where}the global batch is {batch} image, which has no other to be told from: set "
            f"per_device_train_batch_size to {MIN_GLOBAL_BATCH} or more"
        )


def check_rows(dataset: Any, batch: int) -> None:
    """Refuses a data set that does not fill one global batch, of which a whole one is asked.

    Args:
        dataset (`Dataset`, *optional*): the training data; streams are not counted.
        batch (`int`): rows of all processes in a batch.

    Raises:
        HfChainError: naming both numbers.
    """
    if hasattr(dataset, "__len__") and len(dataset) < batch:
        raise HfChainError(
            f"train_dataset has {len(dataset)} rows and a batch over all processes {batch}, so there is no step to "
            "take: lower per_device_train_batch_size, or set dataloader_drop_last=False"
        )


def require_columns(batch: Mapping[str, Any], names: Iterable[str], collator: str) -> None:
    """Refuses a batch without what a trainer reads.

    Args:
        batch (`Mapping`): what the data collator has made.
        names (`Iterable[str]`): what it must hold.
        collator (`str`): the collator that makes such batches.

    Raises:
        HfChainError: naming the first that is not there, and what is.
    """
    for name in names:
        if name not in batch:
            raise HfChainError(
                f"the batch has no {name}, only {', '.join(batch) or 'nothing'}: give data_collator={collator}"
            )


def check_teacher(teacher: CLIPConfig, student: CLIPConfig) -> None:
    """Refuses a teacher that cannot read what its student reads.

    Args:
        teacher (`CLIPConfig`): of the frozen predecessor.
        student (`CLIPConfig`): of the member.

    Raises:
        HfChainError: naming what differs and both values.
    """
    from hf_chain.data.tokenizer import LEGACY_END

    for tower, field in (("text_config", "vocab_size"), ("text_config", "max_position_embeddings")):
        has, needs = (getattr(getattr(config, tower), field) for config in (teacher, student))
        if has < needs:
            raise HfChainError(
                f"the teacher has {field}={has} and the model {needs}, so it cannot read all that the model reads: "
                "give a teacher that was trained with the same tokenizer and context"
            )
    for tower, field in (("vision_config", "image_size"), ("vision_config", "num_channels")):
        has, needs = (getattr(getattr(config, tower), field) for config in (teacher, student))
        if has != needs:
            raise HfChainError(f"the teacher has {field}={has} and the model {needs}: both see the same images")
    has, needs = teacher.text_config.eos_token_id, student.text_config.eos_token_id
    if has != needs and LEGACY_END not in (has, needs):
        raise HfChainError(
            f"the teacher has eos_token_id={has} and the model {needs}, so one of them reads captions at a wrong "
            "token: give a teacher that was trained with the same tokenizer"
        )
