"""Batches of text: what a decoder gets of them, which tokens are real, and which are to be predicted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Batch = dict[str, torch.Tensor]
"""Text: `input_ids` and `attention_mask` `[B, L]`; `labels` `[B, L]` where only some tokens are to be predicted. With
images in between, `inputs_embeds` `[B, L, d]` in place of `input_ids`. Without a mask nothing is padding."""

INPUTS = ("input_ids", "inputs_embeds", "attention_mask", "position_ids")


def check_batches(batches: Iterable[Batch], name: str, passes: int = 2) -> None:
    """Refuses what is no text in batches, before any work; what can be read only once is not read.

    Args:
        batches (`Iterable[Batch]`): what was given.
        name (`str`): the argument.
        passes (`int`): how often it will be gone through.

    Raises:
        HfChainError: naming the argument.
    """
    if isinstance(batches, (str, Mapping)) or not isinstance(batches, Iterable):
        raise HfChainError(f"{name} is a {type(batches).__name__}: give a list of batches, or token_batches(...)")
    if isinstance(batches, Iterator):
        if passes > 1:
            raise HfChainError(f"{name} can be read only once: give a list of batches, or token_batches(...)")
    elif isinstance(batches, Sequence):
        for first in batches[:1]:
            batch_shape(first)


def input_device(model: PreTrainedModel) -> torch.device | None:
    """Where a model takes its inputs; `None` where accelerate moves them, as its first weights are offloaded.

    Args:
        model (`PreTrainedModel`): a language model, on one device or several.

    Returns:
        `torch.device`, *optional*: that of its token embeddings.
    """
    device = model.get_input_embeddings().weight.device
    return None if device.type == "meta" else device


def forward_inputs(model: PreTrainedModel, batch: Batch) -> Batch:
    """What of a batch the model's `forward` takes, where the model begins, with positions free of the padding.

    Args:
        model (`PreTrainedModel`): a language model.
        batch (`Batch`): text, padded on either side.

    Returns:
        `Batch`: arguments of `forward`.

    Raises:
        HfChainError: when it is no batch, or holds ids that the model has no embedding for.
    """
    batch_shape(batch)
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    mask = inputs.get("attention_mask")
    if mask is not None and "position_ids" not in inputs:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    # The number, not the table, which ZeRO-3 leaves empty.
    ids, rows = inputs.get("input_ids"), model.get_input_embeddings().num_embeddings
    # On a GPU the look would wait for all that is under way.
    if ids is not None and ids.device.type == "cpu" and ids.numel() and int(ids.max()) >= rows:
        raise HfChainError(
            f"the text holds token {int(ids.max())}, and {model.name_or_path or type(model).__name__} has {rows}: make"
            " it with the model's own tokenizer"
        )
    device = input_device(model)
    return inputs if device is None else {name: tensor.to(device) for name, tensor in inputs.items()}


def real_tokens(batch: Batch) -> torch.Tensor:
    """Which tokens of a batch are no padding, `[B, L]`.

    Args:
        batch (`Batch`): text.

    Returns:
        `torch.Tensor` of shape `[B, L]`: boolean.
    """
    mask = batch.get("attention_mask")
    return torch.ones(batch_shape(batch), dtype=torch.bool) if mask is None else mask.bool()


def next_tokens(batch: Batch) -> torch.Tensor:
    """The token after each but the last, `[B, L − 1]`, −100 where it is not to be predicted, or from padding.

    Args:
        batch (`Batch`): text.

    Returns:
        `torch.Tensor` of shape `[B, L − 1]`: ids, or −100.
    """
    real = real_tokens(batch)
    labels = batch["labels"] if "labels" in batch else batch["input_ids"]
    real = real.to(labels.device)
    return labels[:, 1:].masked_fill(~(real[:, :-1] & real[:, 1:]), -100)


def batch_shape(batch: Any) -> tuple[int, int]:
    """Rows and padded length of a batch.

    Args:
        batch (`Batch`): text.

    Returns:
        `tuple[int, int]`: B and L.

    Raises:
        HfChainError: when it is none.
    """
    tokens = None
    if isinstance(batch, Mapping):
        tokens = batch.get("input_ids", batch.get("inputs_embeds"))
    if not isinstance(tokens, torch.Tensor) or tokens.dim() < 2:
        raise HfChainError(
            f"a {type(batch).__name__} is no batch of text, which holds tensors input_ids and attention_mask [B, L]:"
            " make batches with token_batches(...)"
        )
    return tokens.shape[0], tokens.shape[1]
