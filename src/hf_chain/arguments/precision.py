"""Whether a training computes in bfloat16."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from glob import glob
from pathlib import Path
from typing import Any

from hf_chain.errors import HfChainError

AUTO = "auto"
_CPU_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
_CPUINFO = Path("/proc/cpuinfo")
_GPUS = ("/dev/nvidia*", "/dev/kfd", "/dev/dxg", "/dev/dri/renderD*", "/dev/nvhost*", "/dev/nvmap")
"""Devices of GPUs under Linux, one of which is there where torch finds a GPU."""

logger = logging.getLogger(__name__)


def native_bfloat16(use_cpu: bool = False) -> bool:
    """Whether the device that trains has instructions for bfloat16.

    Where it has none, bfloat16 is imitated: on a CPU that is several times slower than float32.

    Args:
        use_cpu (`bool`): whether the CPU trains although there is a GPU.
    """
    if "torch" not in sys.modules and (known := _without_torch(use_cpu)) is not None:
        return known
    import torch

    if not use_cpu and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Releases of torch before it could tell are taken to have none, which is never slow.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in _CPU_INSTRUCTIONS)


def _without_torch(use_cpu: bool) -> bool | None:
    """What Linux says of a machine whose CPU trains, for plans that start no torch; `None` where it may be a GPU."""
    if not _CPUINFO.is_file() or (not use_cpu and any(glob(pattern) for pattern in _GPUS)):
        return None
    lines = (line.partition(":") for line in _CPUINFO.read_text(encoding="utf-8").splitlines())
    words = {word for name, _, value in lines if name.strip() in ("flags", "Features") for word in value.split()}
    return any(name in words for name in _CPU_INSTRUCTIONS)


def uses_bfloat16(bf16: bool | str, use_cpu: bool = False) -> bool:
    """What `bf16` comes to on this machine.

    Args:
        bf16 (`bool` or `str`): as in a configuration; `"auto"` is `native_bfloat16`.
        use_cpu (`bool`): whether the CPU trains although there is a GPU.
    """
    return native_bfloat16(use_cpu) if bf16 == AUTO else bool(bf16)


def settle_bfloat16(bf16: bool | str, use_cpu: bool) -> bool:
    """`uses_bfloat16` for a training that is about to start, with a warning where it will be slow.

    Raises:
        HfChainError: when `bf16` is something else.
    """
    check_bfloat16(bf16)
    if bf16 is True and use_cpu and not native_bfloat16(use_cpu):
        logger.warning(
            "bf16=True on a CPU without bfloat16 instructions, which is several times slower than float32: "
            "bf16=auto takes bfloat16 only where the device has it"
        )
    return uses_bfloat16(bf16, use_cpu)


def check_bfloat16(bf16: bool | str) -> None:
    """Refuses what neither switches bfloat16 on or off nor leaves it to the machine.

    Raises:
        HfChainError: naming the value.
    """
    if isinstance(bf16, str) and bf16 != AUTO:
        raise HfChainError(f"bf16 is {bf16!r}; give true, false or {AUTO}")
