"""What the run runs on: processes, devices, versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from hf_chain.errors import HfChainError

PACKAGES = ("hf-chain", "torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "deepspeed")

WAIT_SECONDS = 3 * 60 * 60
"""How long a process waits for another: the main one evaluates, builds a surrogate or fills a cache alone."""


def is_main_process() -> bool:
    """Whether this process writes the ledger, the members and the report."""
    return int(os.environ.get("RANK", "0")) == 0


def check_launch() -> None:
    """Refuses a launch that asked for several processes and started one, and settles DeepSpeed's device.

    Raises:
        HfChainError: naming a launch that works.
    """
    if not torch.cuda.is_available():
        # Otherwise DeepSpeed says on the standard output that it looked for a GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ and "RANK" not in os.environ:
        raise HfChainError(
            "accelerate launch was asked for several processes but started one (`--cpu --num_processes N` does that): "
            "use `accelerate launch --multi_gpu --num_processes N` or `torchrun --nproc_per_node N`, on CPUs too"
        )


def join_processes(training: Mapping[str, Any]) -> None:
    """Makes the process group of a run, before anything else does: nobody can change its timeout afterwards.

    Args:
        training (`Mapping`): the recipe's, with `ddp_timeout` and `ddp_backend` where it sets them.
    """
    if is_distributed():
        from accelerate import PartialState

        timeout = timedelta(seconds=training.get("ddp_timeout", WAIT_SECONDS))
        PartialState(cpu=not torch.cuda.is_available(), backend=training.get("ddp_backend"), timeout=timeout)


def check_engine(world_size: int, gpus: int, uses_deepspeed: bool, uses_fsdp: bool) -> None:
    """Refuses an engine other than the one the launch asked for.

    Args:
        world_size (`int`): processes the Trainer works with.
        gpus (`int`): GPUs of this process.
        uses_deepspeed (`bool`): whether the Trainer runs DeepSpeed.
        uses_fsdp (`bool`): whether the Trainer runs FSDP.
    """
    launched = process_count()
    if world_size != launched:
        raise HfChainError(
            f"{launched} processes were launched but each would train alone: check the launcher and use_cpu"
        )
    if gpus > 1:
        # The Trainer would wrap the model in `torch.nn.DataParallel`, whose batches are not those of the recipe.
        raise HfChainError(
            f"one process was launched on {gpus} GPUs: use `accelerate launch --multi_gpu --num_processes {gpus}`, or "
            "set CUDA_VISIBLE_DEVICES to one of them"
        )
    for name, used in (("DEEPSPEED", uses_deepspeed), ("FSDP", uses_fsdp)):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() in ("true", "1") and not used:
            raise HfChainError(
                f"The launch asked for {name} but the Trainer would run without it: check the accelerate configuration"
            )


def describe_environment() -> dict[str, Any]:
    """Versions of the libraries and a description of the hardware."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{_processor()}, {os.cpu_count()} cores"
    return {
        "versions": {"python": platform.python_version(), **versions},
        "hardware": device,
        "processes": process_count(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def process_count() -> int:
    """Processes that were launched."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_distributed() -> bool:
    """Whether several processes share the run."""
    return process_count() > 1


def wait_for_everyone() -> None:
    """Waits until every process has come here; does nothing where there is one."""
    if is_distributed():
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()
