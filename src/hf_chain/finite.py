"""Whether weights are finite: in files, in a model, and in this process's part of a sharded one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from hf_chain.engine import own_part
from hf_chain.errors import HfChainError


def first_not_finite(folder: Path) -> str | None:
    """The first weight with NaN or infinity in the safetensors files of a folder and of the folders in it.

    One tensor at a time is in memory.

    Args:
        folder (`Path`): a model, a checkpoint or an adapter.

    Returns:
        `str`, *optional*: the tensor's name; `None` where all are finite.

    Raises:
        SafetensorError: when a file is damaged.
    """
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if not is_finite(file.get_tensor(name)):
                    return name
    return None


def first_not_finite_of(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The name of the first of these tensors with NaN or infinity; of sharded ones this process's part counts."""
    return next((name for name, tensor in tensors if not is_finite(own_part(tensor))), None)


def require_finite(model: nn.Module, name: str) -> None:
    """Refuses a model with weights that are not finite.

    Args:
        model (`nn.Module`): the model; weights that are offloaded to disk are not looked at.
        name (`str`): what the user calls it.

    Raises:
        HfChainError: naming the weight.
    """
    weight = first_not_finite_of(model.state_dict(keep_vars=True).items())
    if weight is not None:
        raise HfChainError(
            f"{weight} of {name} holds NaN or infinity: its training diverged or its file is damaged, give a model "
            "with finite weights"
        )


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity; integers and tensors without data have neither."""
    if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if not tensor.numel():
        return True
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.element_size() == 1:
        # Torch computes little in eight bits.
        tensor = tensor.float()
    # NaN is the least and the greatest wherever there is one. A sum in float32 would copy what is in half precision.
    least, greatest = torch.aminmax(tensor)
    return math.isfinite(least) and math.isfinite(greatest)
