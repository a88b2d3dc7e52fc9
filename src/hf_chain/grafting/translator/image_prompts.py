"""Conversations about images as a decoder gets them, to fit a translator on once an adapter makes embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hf_chain.errors import HfChainError
from hf_chain.grafting.batches import Batch
from hf_chain.models.grafted_vlm.generation_grafted_vlm import IMAGE_INPUTS
from hf_chain.module_modes import evaluation_mode

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_chain.data.chat.collator import ChatCollator
    from hf_chain.models.grafted_vlm import GraftedVLMForConditionalGeneration


@dataclass
class ImagePrompts:
    """Batches `{"inputs_embeds": [B, L, d], "attention_mask": [B, L], "labels": [B, L]}`, embedded anew in every pass.

    A surrogate has the embeddings of its target, so both read the same ones. Labels are −100 outside of responses.

    Args:
        model (`GraftedVLMForConditionalGeneration`): Its image half embeds the images, its decoder's table the words.
        rows (`Dataset` or `Sequence[Mapping]`): Checked chat rows.
        collator (`ChatCollator`): Pads them; one that packs does not fit.
        batch_size (`int`, *optional*, defaults to 16): Conversations in a batch.

    Attributes:
        images_embedded (`int`): Images that went through the image half so far.

    Example:
        ```python
        >>> prompts = ImagePrompts(vlm, rows, ChatCollator(processor))
        >>> fit_translator(vlm.language_model, target, prompts, "closed_form")
        ```

    Raises:
        HfChainError: when the image half is offloaded, where nothing fetches its weights, when the collator packs, or
            when there is no conversation in a batch.
    """

    model: GraftedVLMForConditionalGeneration
    rows: Dataset | Sequence[Mapping[str, Any]]
    collator: ChatCollator
    batch_size: int = 16
    images_embedded: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise HfChainError(f"batch_size={self.batch_size}: give at least one conversation a batch")
        if getattr(self.collator, "packing", False):
            raise HfChainError("a collator that packs does not fit image prompts: make one without packing")
        if self.model.image_start.is_meta:
            raise HfChainError("the image half is offloaded: put it on a device, such as by a device_map of your own")

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        """One batch, embedded now."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        numbers = range(index * self.batch_size, min((index + 1) * self.batch_size, len(self.rows)))
        rows = [self.rows[number] for number in numbers]
        self.images_embedded += sum(len(row["images"]) for row in rows)
        batch = self.collator(rows)
        shown = {name: batch[name].to(self.model.device) for name in ("input_ids", *IMAGE_INPUTS) if name in batch}
        with evaluation_mode(self.model):
            embeds = self.model.embed_prompt(**shown)
        return {"inputs_embeds": embeds, "attention_mask": batch["attention_mask"], "labels": batch["labels"]}

    def __iter__(self) -> Iterator[Batch]:
        return (self[index] for index in range(len(self)))
