"""Trained parameters are float32 while they are trained, whatever the model is kept in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.utils import logging

logger = logging.get_logger(__name__)

HALF = (torch.bfloat16, torch.float16)


def widen(tensors: Iterable[torch.Tensor]) -> None:
    """Turns tensors in half precision into float32, in place."""
    for tensor in tensors:
        if tensor.dtype in HALF:
            tensor.data = tensor.data.float()


@contextmanager
def trained_in_float32(
    model: nn.Module, trained: Collection[torch.Tensor], autocast: torch.dtype | None
) -> Iterator[None]:
    """Widens what is trained, and narrows it again at the end.

    A usual step is smaller than the distance between two neighbouring numbers in bfloat16, and would be rounded away.
    Frozen weights stay as they are where they are of the type that the forward pass casts to; otherwise they are
    widened as well, as layers of two types do not compute together.

    Args:
        model (`nn.Module`): the model; its parameters may be on several devices.
        trained (`Collection[torch.Tensor]`): those of its parameters that are trained.
        autocast (`torch.dtype`, *optional*): what the forward pass casts to; `None` where it does not.
    """
    own = {id(tensor) for tensor in trained}
    tensors = [*model.parameters(), *model.buffers()]
    half = [(tensor, tensor.dtype) for tensor in tensors if tensor.dtype in HALF]
    narrow = [(tensor, dtype) for tensor, dtype in half if id(tensor) in own or dtype != autocast]
    if frozen := {str(dtype).removeprefix("torch.") for tensor, dtype in narrow if id(tensor) not in own}:
        logger.warning(
            f"frozen weights in {' and '.join(sorted(frozen))} are float32 as long as this trains, which takes twice"
            " their memory: with bf16 those in bfloat16 stay as they are"
        )
    widen(tensor for tensor, _ in narrow)
    try:
        yield
    finally:
        for tensor, dtype in narrow:
            tensor.data = tensor.data.to(dtype)
