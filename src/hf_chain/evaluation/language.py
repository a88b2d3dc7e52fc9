"""Evaluates a language model on held-out rows: how well it predicts each token from those before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_chain.cost.macs import decoder_macs
from hf_chain.data.text_tokenizer import token_bytes
from hf_chain.errors import HfChainError
from hf_chain.evaluation.evaluate import Evaluation, spread
from hf_chain.losses import next_token_losses
from hf_chain.module_modes import evaluation_mode


def evaluate_language(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Any,
    *,
    batch_size: int = 16,
    max_samples: int | None = None,
    device: torch.device | str | None = None,
    bf16: bool = False,
) -> Evaluation:
    """Measures how many nats a token, and bits a byte, a language model is off.

    Bits a byte can be compared between tokenizers: bytes are those of the text that the predicted tokens stand for,
    end-of-text tokens are predicted and stand for none. Runs without gradients and leaves every module in the mode it
    was in.

    Args:
        model (`PreTrainedModel`): A causal language model.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer saved with the model.
        rows (`PackedTextDataset`): Rows of `input_ids` `[L]`, of one length, without padding.
        batch_size (`int`): Rows in one forward.
        max_samples (`int`, *optional*): Evaluate this many rows, spread evenly over the split.
        device (`torch.device`, *optional*): Where the model is; default: `model.device`.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.

    Returns:
        `Evaluation`: `nats_per_token` and `bits_per_byte`, beside what an even guess over the vocabulary reaches.

    Raises:
        HfChainError: when there are no rows, or predictions are not finite.
    """
    if batch_size < 1:
        raise HfChainError(f"batch_size={batch_size} must be 1 or more")
    if not len(rows):
        raise HfChainError("The evaluation data has no rows: choose another split")
    chosen = spread(len(rows), max_samples)
    device = torch.device(device if device is not None else model.device)
    sizes = torch.from_numpy(token_bytes(tokenizer))
    nats, tokens, text_bytes, words = 0.0, 0, 0, 0
    with evaluation_mode(model):
        for start in range(0, len(chosen), batch_size):
            ids = _stacked(rows, chosen[start : start + batch_size])
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(input_ids=ids.to(device), use_cache=False).logits
            nats += float(next_token_losses(logits, ids.to(device)).double().sum())
            tokens += ids[:, 1:].numel()
            text_bytes += int(sizes[ids[:, 1:]].sum())
            words = logits.shape[-1]
    if not math.isfinite(nats):
        raise HfChainError("the model's predictions are not finite: its training has diverged, or its weights are bad")
    even = {"nats_per_token": math.log(words)}
    metrics = {"nats_per_token": nats / tokens}
    if text_bytes:
        bits = tokens / text_bytes / math.log(2)
        metrics["bits_per_byte"] = metrics["nats_per_token"] * bits
        even["bits_per_byte"] = even["nats_per_token"] * bits
    macs = len(chosen) * decoder_macs(model.config, ids.shape[1])
    return Evaluation(metrics, {}, macs, even, dict.fromkeys(metrics, tokens))


def _stacked(rows: Any, numbers: Sequence[int]) -> torch.Tensor:
    return torch.stack([torch.as_tensor(rows[number]["input_ids"]) for number in numbers])
