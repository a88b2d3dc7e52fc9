"""Trained parameters are float32 while they are trained, whatever the model is kept in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from hf_chain.errors import HfChainError
from hf_chain.trainer.parts import Part


@contextmanager
def trained_in_float32(parts: Iterable[Part], autocast: bool) -> Iterator[None]:
    """Widens what is trained, and narrows it again at the end; frozen parts stay as they are.

    A usual step is smaller than the distance between two neighbouring numbers in bfloat16, and would be rounded away.

    Args:
        parts (`Iterable[Part]`): what is trained.
        autocast (`bool`): whether the forward pass casts what does not fit.

    Raises:
        HfChainError: when there is something to widen and nothing that casts.
    """
    narrow = {
        name: (parameter, parameter.dtype)
        for part in parts
        for name, parameter in part.parameters.items()
        if parameter.dtype in (torch.bfloat16, torch.float16)
    }
    if narrow and not autocast:
        name, (_, dtype) = next(iter(narrow.items()))
        raise HfChainError(
            f"{name} is {str(dtype).removeprefix('torch.')}, in which small steps are rounded away: set bf16 to train "
            "it in float32 under autocast, or load the model in float32"
        )
    for parameter, _ in narrow.values():
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter, dtype in narrow.values():
            parameter.data = parameter.data.to(dtype)
