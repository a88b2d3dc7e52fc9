"""How long the conversations of a recipe are, measured on some of them without reading an image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datasets import Dataset, IterableDataset

from hf_chain.data.chat.encoder import ChatEncoder
from hf_chain.data.chat.rows import IMAGE_PLACEHOLDER, without_images
from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from hf_chain.methods.graft.recipe import GraftStageSettings

SAMPLED = 256
"""Conversations that are measured."""


@dataclass(frozen=True)
class Lengths:
    """Attributes:
    rows (`int`): conversations there are.
    tokens (`list[int]`): lengths of those measured, image positions included.
    images (`list[int]`): their images.
    answers (`list[int]`): tokens of their last responses.
    """

    rows: int
    tokens: list[int]
    images: list[int]
    answers: list[int]

    def batches(self, size: int, by_length: bool = False) -> Iterator[tuple[int, int, int]]:
        """Rows, padded length and images of batches, in order or of similar lengths."""
        pairs = list(zip(self.tokens, self.images, strict=True))
        if by_length:
            pairs.sort()
        for start in range(0, len(pairs), size):
            part = pairs[start : start + size]
            yield len(part), max(tokens for tokens, _ in part), sum(images for _, images in part)

    def packs(self, size: int, pack_tokens: int) -> Iterator[tuple[int, int, int]]:
        """Likewise of packs, taken for full, `size` of them in a batch."""
        packs = math.ceil(sum(self.tokens) / pack_tokens)
        images = math.ceil(sum(self.images) / packs)
        for start in range(0, packs, size):
            count = min(size, packs - start)
            yield count, pack_tokens, count * images


def shared_rows(rows: int, share: float) -> int:
    """Rows of a share of the data; one at least, where there are any."""
    return min(rows, max(1, round(share * rows)))


def stream_start(stages: Sequence[GraftStageSettings], stage: GraftStageSettings, length: int) -> int:
    """The row of a stream that a stage begins at: where the stages before it stopped, or 0 when too few are left.

    Args:
        stages (`Sequence[GraftStageSettings]`): the stages, this one among them.
        stage (`GraftStageSettings`): the stage.
        length (`int`): rows of an epoch.
    """
    before = stages[: stages.index(stage)]
    read = sum(math.ceil(one.epochs * length) for one in before if one.parts and one.data == stage.data) % length
    return read if read + math.ceil(stage.epochs * length) <= length else 0


def rows_of_steps(steps: int, rows: int, batch: int) -> int:
    """Rows that a training has taken: the last step of an epoch has what is left.

    Args:
        steps (`int`): optimiser steps.
        rows (`int`): rows of an epoch.
        batch (`int`): rows of a step.
    """
    epochs, rest = divmod(steps, math.ceil(rows / batch))
    return epochs * rows + rest * batch


def measure_lengths(
    rows: Dataset | IterableDataset,
    tokenizer: Any,
    *,
    name: str,
    image_positions: int,
    max_length: int | None = None,
    count: int | None = None,
) -> Lengths:
    """Measures conversations that are spread evenly over the data, or the first ones of a stream.

    Args:
        rows (`Dataset` or `IterableDataset`): chat rows.
        tokenizer (`PreTrainedTokenizerBase`): the target's.
        name (`str`): what the data are called in an error.
        image_positions (`int`): positions of an image.
        max_length (`int`, *optional*): tokens from which on a conversation is cut.
        count (`int`, *optional*): rows of a stream, which does not know them.

    Raises:
        HfChainError: when no row can be used, the tokenizer has no chat template, or a stream has no length.
    """
    if isinstance(rows, IterableDataset):
        if count is None:
            raise HfChainError(f"{name} is a stream, whose length nobody knows: set its max_train_samples")
        total, part = count, rows.select_columns(["messages"]).take(SAMPLED)
    else:
        total = len(rows)
        step = max(1, math.ceil(total / SAMPLED))
        part = rows.select_columns(["messages"]).select(range(0, total, step))
    encoder = ChatEncoder(tokenizer, max_length=max_length)
    lengths = Lengths(total, [], [], [])
    for row in part:
        images = sum(message["content"].count(IMAGE_PLACEHOLDER) for message in row["messages"])
        words = without_images(row["messages"])
        try:
            tokens = len(encoder.encode(words).input_ids) + images * image_positions
        except ValueError:
            continue
        lengths.tokens.append(min(tokens, encoder.max_length or tokens))
        lengths.images.append(images)
        lengths.answers.append(len(encoder.tokenizer(words[-1]["content"], add_special_tokens=False)["input_ids"]) + 1)
    if not lengths.tokens:
        raise HfChainError(f"{name} has no conversation that can be used among {total}: see docs/chat_data.md")
    return lengths
