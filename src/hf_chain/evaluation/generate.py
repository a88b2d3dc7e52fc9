"""Answers of a language model or vision-language model to chat rows: batched, greedy, cached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm
from transformers import GenerationConfig

from hf_chain.cost.macs import decoder_macs, encoder_macs
from hf_chain.cost.steps import adapter_macs
from hf_chain.data.chat import ChatEncoder, read_sample
from hf_chain.errors import HfChainError, reason
from hf_chain.module_modes import evaluation_mode


def left_padded(prompts: Sequence[list[int]], encoder: ChatEncoder, device: torch.device) -> dict[str, torch.Tensor]:
    """Lay prompts into `input_ids` and `attention_mask` `[B, L]`, padded on the left."""
    width, pad = max(map(len, prompts)), pad_token(encoder)
    ids = [[pad] * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def pixel_inputs(images: list[Image.Image], encoder: ChatEncoder, device: torch.device) -> dict[str, torch.Tensor]:
    """Return what the image processor makes of the images; nothing where there are none."""
    return dict(encoder.processor.image_processor(images=images, return_tensors="pt").to(device)) if images else {}


def pad_token(encoder: ChatEncoder) -> int:
    """Return the id that fills up prompts; masked, so that any will do."""
    tokenizer = encoder.tokenizer
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def stop_tokens(model: Any, encoder: ChatEncoder) -> list[int]:
    """Return the ids at which an answer ends: the model's, the tokenizer's and the template's own."""
    known = model.generation_config.eos_token_id
    found = list(known) if isinstance(known, list) else [known]
    found.append(encoder.tokenizer.eos_token_id)
    ending = encoder.tokenizer(encoder.template.end_of_turn, add_special_tokens=False)["input_ids"]
    # Only a mark of its own ends a response; a line break may stand in its middle.
    found += [token for token in ending[:1] if token in encoder.tokenizer.added_tokens_decoder]
    return sorted({token for token in found if token is not None})


def answer_text(answer: Sequence[int], encoder: ChatEncoder, stop: Sequence[int]) -> str:
    """Return the words of an answer, up to the first of the tokens that end it; they need not be special ones."""
    words = list(takewhile(lambda token: token not in stop, answer))
    return encoder.tokenizer.decode(words, skip_special_tokens=True).strip()


def unusable(number: int, error: Exception) -> HfChainError:
    """Return the error for a row that cannot be asked."""
    return HfChainError(f"Evaluation data, row {number}: {reason(error)}; remove that row")


def answer_macs(model: Any, tokens: int, predicted: int) -> int:
    """Count the forward of a sequence of which the head reads the last `predicted` positions only."""
    head = decoder_macs(model.config, 1) - decoder_macs(model.config, 1, head=False)
    return decoder_macs(model.config, tokens, head=False) + predicted * head


def image_macs(model: Any, images: int) -> int:
    """Count the vision tower and the adapter on a number of images."""
    if not images:
        return 0
    return images * (encoder_macs(model.config) + adapter_macs(model.config))


# Batches whose prompts are sorted by length together, so that little is padded and few images are held.
_BATCHES_SORTED = 16
_KEPT = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")


@dataclass
class Generated:
    """What was generated and what it cost.

    Args:
        texts (`list[str]`): The answer to each row, in the order of the rows, without special tokens.
        prompt_tokens (`int`): Tokens of all prompts, image positions included, padding not.
        new_tokens (`int`): Tokens generated, end marks included.
        images (`int`): Images that were looked at.
        macs (`int`): Multiply-accumulate operations of all forwards, padding included.
    """

    texts: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    new_tokens: int = 0
    images: int = 0
    macs: int = 0


@dataclass(frozen=True)
class _Prompt:
    row: int
    ids: list[int]
    images: list[Image.Image]


def generate_answers(
    model: Any,
    processor: Any,
    rows: Dataset | Sequence[Mapping[str, Any]],
    *,
    batch_size: int = 32,
    max_new_tokens: int = 32,
    device: torch.device | str | None = None,
    bf16: bool = False,
) -> Generated:
    """Let a model answer the last question of every row.

    Greedy, with a key-value cache; prompts are padded on the left. Generation stops at the model's own end tokens, at
    the tokenizer's, and at what its chat template writes behind a response. Of the model's generation configuration
    only tokens that are never generated count: not a repetition penalty, for example.

    Args:
        model (`PreTrainedModel`): A causal language model, or a `GraftedVLMForConditionalGeneration`.
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): The processor saved with the model.
        rows (`datasets.Dataset` or `Sequence[Mapping]`): Chat rows; a last response is left out of the prompt.
        batch_size (`int`): Rows in one forward.
        max_new_tokens (`int`): Most tokens of an answer.
        device (`torch.device`, *optional*): Where the model is; default: `model.device`.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.

    Returns:
        `Generated`: Texts, token counts and MACs.

    Raises:
        HfChainError: when a row cannot be asked, naming it.
    """
    encoder = ChatEncoder(processor)
    device = torch.device(device if device is not None else model.device)
    stop = stop_tokens(model, encoder)
    options = {
        "max_new_tokens": max_new_tokens,
        "do_sample": False,
        "num_beams": 1,
        "use_cache": True,
        "eos_token_id": stop,
        "pad_token_id": pad_token(encoder),
    }
    result = Generated(texts=[""] * len(rows))
    bar = tqdm(total=len(rows), desc="Answering", leave=False)
    with evaluation_mode(model), _plain_generation(model), bar as progress:
        for batch in _batches(rows, encoder, batch_size):
            inputs = left_padded([prompt.ids for prompt in batch], encoder, device)
            images = [image for prompt in batch for image in prompt.images]
            inputs |= pixel_inputs(images, encoder, device)
            width = inputs["input_ids"].shape[1]
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                output = model.generate(**inputs, **options)
            answers = output[:, width:].tolist()
            for prompt, answer in zip(batch, answers, strict=True):
                result.texts[prompt.row] = answer_text(answer, encoder, stop)
                result.prompt_tokens += len(prompt.ids)
                result.new_tokens += _length(answer, stop)
            result.images += len(images)
            steps = len(answers[0])
            result.macs += len(batch) * answer_macs(model, width + steps, steps) + image_macs(model, len(images))
            progress.update(len(batch))
    return result


@contextmanager
def _plain_generation(model: Any) -> Iterator[None]:
    """Within the block the model has none of its own settings for generation but the tokens it must not say.

    They cannot be set aside by arguments: what an argument leaves open is filled in from them.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig(**{name: getattr(own, name) for name in _KEPT})
    try:
        yield
    finally:
        model.generation_config = own


def _batches(
    rows: Dataset | Sequence[Mapping[str, Any]], encoder: ChatEncoder, batch_size: int
) -> Iterator[list[_Prompt]]:
    window = batch_size * _BATCHES_SORTED
    for start in range(0, len(rows), window):
        numbers = range(start, min(start + window, len(rows)))
        prompts = sorted((_prompt(number, rows[number], encoder) for number in numbers), key=lambda p: -len(p.ids))
        for first in range(0, len(prompts), batch_size):
            yield prompts[first : first + batch_size]


def _prompt(number: int, row: Mapping[str, Any], encoder: ChatEncoder) -> _Prompt:
    try:
        sample = read_sample(row)
        answered = sample.messages[-1:] and sample.messages[-1]["role"] == "assistant"
        messages = sample.messages[:-1] if answered else sample.messages
        if not messages:
            raise ValueError("there is no question")
        return _Prompt(number, encoder.encode_prompt(messages, sample.images), sample.images)
    except Exception as error:  # Pillow's decoders raise errors of every kind.
        raise unusable(number, error) from error


def _length(answer: Sequence[int], stop: Sequence[int]) -> int:
    return next((position + 1 for position, token in enumerate(answer) if token in stop), len(answer))
