"""What the run runs on: processes, devices, disk, versions."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hf_chain.cost.table import human
from hf_chain.errors import HfChainError

PACKAGES = ("hf-chain", "torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "deepspeed")

WAIT_SECONDS = 3 * 60 * 60
"""How long a process waits for another: the main one evaluates, builds a surrogate or fills a cache alone."""


def is_main_process() -> bool:
    """Whether this process writes the ledger, the members and the report."""
    return int(os.environ.get("RANK", "0")) == 0


def check_launch() -> None:
    """Refuses a launch that asked for several processes and started one, or for FSDP, and settles DeepSpeed's device.

    Raises:
        HfChainError: naming a launch that works.
    """
    if _asked_for("FSDP"):
        raise HfChainError(
            "The launch asked for FSDP, which nothing here trains with: use `accelerate launch --multi_gpu`, or "
            "DeepSpeed where a model does not fit on one device"
        )
    import torch

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
        import torch
        from accelerate import PartialState

        timeout = timedelta(seconds=training.get("ddp_timeout", WAIT_SECONDS))
        PartialState(cpu=not torch.cuda.is_available(), backend=training.get("ddp_backend"), timeout=timeout)


def check_engine(world_size: int, gpus: int, uses_deepspeed: bool) -> None:
    """Refuses an engine other than the one the launch asked for.

    Args:
        world_size (`int`): processes the Trainer works with.
        gpus (`int`): GPUs of this process.
        uses_deepspeed (`bool`): whether the Trainer runs DeepSpeed.
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
    if _asked_for("DEEPSPEED") and not uses_deepspeed:
        raise HfChainError(
            "The launch asked for DEEPSPEED but the Trainer would run without it: check the accelerate configuration"
        )


def check_disk(run_dir: Path, needed: int) -> None:
    """Checks that a run folder can be written and has room for `needed` bytes; leaves no trace.

    Raises:
        HfChainError: naming the folder.
    """
    existing = next(parent for parent in (run_dir, *run_dir.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise HfChainError(
            f"{run_dir} cannot be written ({error.strerror}: {existing}): choose another output_dir"
        ) from error
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise HfChainError(
            f"{run_dir} needs about {human(needed)}B and the disk has {human(free)}B free: free some or choose "
            "another output_dir"
        )


def _asked_for(engine: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() in ("true", "1")


def describe_environment() -> dict[str, Any]:
    """Versions of the libraries and a description of the hardware."""
    import torch

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
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()
