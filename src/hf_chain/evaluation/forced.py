"""Answers read off a single forward over question and reference: exact matches without generating."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm
from transformers.utils import logging

from hf_chain.data.chat import ChatEncoder, read_sample
from hf_chain.errors import HfChainError
from hf_chain.evaluation.generate import (
    Generated,
    answer_macs,
    answer_text,
    image_macs,
    left_padded,
    pixel_inputs,
    stop_tokens,
    unusable,
)
from hf_chain.module_modes import evaluation_mode

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class _Forced:
    ids: list[int]
    response: int
    images: list[Image.Image]


def forced_answers(
    model: Any,
    processor: Any,
    rows: Dataset | Sequence[Mapping[str, Any]],
    *,
    batch_size: int = 32,
    device: torch.device | str | None = None,
    bf16: bool = False,
) -> Generated:
    """Give each row's reference response to the model and see where it would have said something else.

    Where the likeliest token agrees with the reference everywhere, end mark included, greedy generation would have
    written the reference. Elsewhere the text ends with the first token that differs, which is also the one that
    generation would have written: a one-token answer is read as it is, a longer wrong one is cut short.

    Args:
        model (`PreTrainedModel`): A causal language model, or a `GraftedVLMForConditionalGeneration`.
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): The processor saved with the model.
        rows (`datasets.Dataset` or `Sequence[Mapping]`): Chat rows that end with a response.
        batch_size (`int`): Rows in one forward.
        device (`torch.device`, *optional*): Where the model is; default: `model.device`.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.

    Returns:
        `Generated`: Texts, token counts and MACs; its `new_tokens` are those that the texts hold, end marks included.

    Raises:
        HfChainError: when a row cannot be asked or has no response, naming it.
    """
    encoder = ChatEncoder(processor)
    stop = stop_tokens(model, encoder)
    result = Generated()
    for response, logits in forced_logits(
        model, encoder, rows, result, batch_size=batch_size, device=device, bf16=bf16
    ):
        said = _until_wrong(logits.argmax(-1).tolist(), response)
        result.texts.append(answer_text(said, encoder, stop))
        result.new_tokens += len(said)
    return result


def forced_logits(
    model: Any,
    encoder: ChatEncoder,
    rows: Dataset | Sequence[Mapping[str, Any]],
    cost: Generated,
    *,
    batch_size: int = 32,
    device: torch.device | str | None = None,
    bf16: bool = False,
    skip: bool = False,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """One forward over question and reference response for each row, many in a batch.

    Args:
        model (`PreTrainedModel`): A causal language model, or a `GraftedVLMForConditionalGeneration`.
        encoder (`ChatEncoder`): Of its processor.
        rows (`datasets.Dataset` or `Sequence[Mapping]`): Chat rows that end with a response.
        cost (`Generated`): Prompt tokens, images and MACs are added to it.
        batch_size (`int`): Rows in one forward.
        device (`torch.device`, *optional*): Where the model is; default: `model.device`.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.
        skip (`bool`): Leave out rows that cannot be asked or have no whole response, and warn of them.

    Yields:
        `tuple[list[int], torch.Tensor]`: The N tokens of each row's response, end mark included, and the logits that
        predict them, `[N, V]`.

    Raises:
        HfChainError: when a row cannot be asked or has no response, naming it.
    """
    device = torch.device(device if device is not None else model.device)
    with evaluation_mode(model), tqdm(total=len(rows), desc="Answering", leave=False) as progress:
        for start in range(0, len(rows), batch_size):
            numbers = range(start, min(start + batch_size, len(rows)))
            batch = list(_batch(numbers, rows, encoder, skip))
            progress.update(len(numbers))
            if not batch:
                continue
            images = [image for one in batch for image in one.images]
            # The last token predicts nothing.
            inputs = left_padded([one.ids[:-1] for one in batch], encoder, device)
            inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            kept = max(one.response for one in batch)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(
                    **inputs, **pixel_inputs(images, encoder, device), logits_to_keep=kept, use_cache=False
                ).logits
            for one, found in zip(batch, logits[:, -kept:], strict=True):
                cost.prompt_tokens += len(one.ids) - one.response
                yield one.ids[-one.response :], found[-one.response :]
            cost.images += len(images)
            tokens = inputs["input_ids"].shape[1]
            cost.macs += len(batch) * answer_macs(model, tokens, kept) + image_macs(model, len(images))


def _batch(
    numbers: range, rows: Dataset | Sequence[Mapping[str, Any]], encoder: ChatEncoder, skip: bool
) -> Iterator[_Forced]:
    for number in numbers:
        try:
            yield _forced(number, rows[number], encoder)
        except HfChainError as error:
            if not skip:
                raise
            logger.warning(f"{error}; it is left out of the loss")


def _forced(number: int, row: Mapping[str, Any], encoder: ChatEncoder) -> _Forced:
    try:
        sample = read_sample(row)
        if not sample.messages or sample.messages[-1]["role"] != "assistant":
            raise ValueError("there is no response")
        encoded = encoder.encode(sample.messages, sample.images)
        asked = encoder.encode_prompt(sample.messages[:-1], sample.images)
        # Where a prompt ends within a token of the whole, that token is the first that is answered.
        start = len(asked) if encoded.input_ids[: len(asked)] == asked else encoded.answer
        # What the template writes behind the end mark is no part of the answer.
        end = max(position for position, label in enumerate(encoded.labels) if label >= 0) + 1
        if end <= start:
            raise ValueError(f"its response is cut off at max_length {encoder.max_length}")
        return _Forced(encoded.input_ids[:end], end - start, sample.images)
    except Exception as error:  # Pillow's decoders raise errors of every kind.
        raise unusable(number, error) from error


def _until_wrong(said: list[int], expected: list[int]) -> list[int]:
    wrong = next(
        (position for position, pair in enumerate(zip(said, expected, strict=True)) if pair[0] != pair[1]), None
    )
    return said if wrong is None else said[: wrong + 1]
