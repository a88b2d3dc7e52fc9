"""What a trainer is given beside its data: used as `transformers.Trainer` does, or refused before work begins."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from glob import glob
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainingArguments

from hf_chain.errors import HfChainError

logger = logging.getLogger(__name__)


CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")
CHECKPOINTING_OPTIONS = tuple(f"{name}_kwargs" for name in CHECKPOINTING)
"""The first name is that of transformers since 5.23, the second that of those before, which the others still take."""


def take_new_names(config: TrainingArguments) -> None:
    """Moves what is said of `gradient_checkpointing`, which all supported releases know and the newest warn of.

    Args:
        config (`TrainingArguments`): changed, before its own `__post_init__`.
    """
    for new, old in (CHECKPOINTING, CHECKPOINTING_OPTIONS):
        if hasattr(config, new) and hasattr(config, old) and getattr(config, new) is None:
            setattr(config, new, getattr(config, old))
            setattr(config, old, None)


def checkpoints_activations(model: nn.Module) -> bool:
    """Whether a model checkpoints activations already, as after `gradient_checkpointing_enable`."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def check_checkpointing(model: nn.Module) -> None:
    """Refuses a model that checkpoints in the reentrant way, which gives layers behind frozen ones no gradient.

    Raises:
        HfChainError: saying how to do it otherwise.
    """
    for module in model.modules():
        options = getattr(getattr(module, "_gradient_checkpointing_func", None), "keywords", {})
        if getattr(module, "gradient_checkpointing", False) and options.get("use_reentrant"):
            raise HfChainError(
                "the model checkpoints with use_reentrant, which gives layers behind frozen ones no gradient: call"
                ' gradient_checkpointing_enable({"use_reentrant": False})'
            )


AUTO = "auto"
_CPU_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
_CPUINFO = Path("/proc/cpuinfo")
_GPUS = ("/dev/nvidia*", "/dev/kfd", "/dev/dxg", "/dev/dri/renderD*", "/dev/nvhost*", "/dev/nvmap")
"""Devices of GPUs under Linux, one of which is there where torch finds a GPU."""


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


def check_arguments(
    trainer: type, model: Any, args: Any, config: type[TrainingArguments], given: Mapping[str, Any]
) -> None:
    """Refuses what a trainer cannot do without, or would pass over.

    Args:
        trainer (`type`): the trainer, for its name.
        model (`nn.Module`): what it is to train.
        args (`TrainingArguments`): its arguments.
        config (`type[TrainingArguments]`): the class that they are to have.
        given (`Mapping`): further arguments of `Trainer.__init__`.

    Raises:
        HfChainError: naming the first that does not fit.
    """
    name = trainer.__name__
    if model is None or args is None or given.get("model_init") is not None:
        raise HfChainError(f"{name} takes model and args, and no model_init: make the model and give it")
    if not isinstance(model, nn.Module):
        raise HfChainError(f"the model to train is a {type(model).__name__}: load it first, and give the model")
    if not isinstance(args, config):
        raise HfChainError(f"args of {name} is a {type(args).__name__}: give a {config.__name__}")
    if given.get("compute_loss_func") is not None:
        raise HfChainError(f"compute_loss_func is given and would do nothing: {name} has its own; leave it out")
    if given.get("compute_metrics") is not None and args.prediction_loss_only:
        raise HfChainError(
            "compute_metrics is given and would not be called: prediction_loss_only is true, leave it out"
        )
    _, options = given.get("optimizer_cls_and_kwargs") or (None, {})
    if "weight_decay" in options:
        raise HfChainError("optimizer_cls_and_kwargs has weight_decay, which args override: set weight_decay there")


def check_optimizers(
    optimizers: Any, model: nn.Module, needed: Mapping[str, nn.Parameter] | None = None, remedy: str = "add it"
) -> None:
    """Refuses an optimizer that would not train the model, and a scheduler that would not lead it.

    Args:
        optimizers (`tuple`): an optimizer and a scheduler, or `None` for either, as `Trainer` takes them.
        model (`nn.Module`): the model that is trained.
        needed (`Mapping[str, nn.Parameter]`, *optional*): parameters that have to be in the optimizer, by name.
        remedy (`str`): what to do where one of them is not.

    Raises:
        HfChainError: naming what is wrong.
    """
    optimizer, scheduler = optimizers or (None, None)
    if scheduler is not None and getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise HfChainError(
            "the scheduler in optimizers is of another optimizer than the one beside it: give both, or a schedule by"
            " lr_scheduler_type"
        )
    if optimizer is None:
        return
    held = {id(parameter): parameter for group in optimizer.param_groups for parameter in group["params"]}
    strange = _without(held, model.parameters())
    if strange:
        raise HfChainError(
            f"the optimizer in optimizers holds {len(strange)} tensors that are not of the model: make it of the"
            " parameters of the model that is given"
        )
    for name, parameter in (needed or {}).items():
        if id(parameter) not in held:
            raise HfChainError(f"the optimizer in optimizers lacks {name}, which is to be trained: {remedy}")
    if not any(parameter.requires_grad for parameter in held.values()):
        raise HfChainError("the optimizer in optimizers holds frozen parameters only: nothing would be trained")


def _without(held: Mapping[int, nn.Parameter], known: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    own = {id(parameter) for parameter in known}
    return [parameter for key, parameter in held.items() if key not in own]
