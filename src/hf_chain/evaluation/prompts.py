"""What stands between chat rows and the model that is asked: prompts as tensors, answers as words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from PIL import Image

from hf_chain.data.chat import ChatEncoder
from hf_chain.errors import HfChainError


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
    reason = " ".join((str(error) or type(error).__name__).split())
    return HfChainError(f"Evaluation data, row {number}: {reason}; remove that row")
