"""Checks of the training of every member or stage, before the first of them begins: what it will need is tried.

Nothing is started, and nothing is left behind.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from tempfile import gettempdir
from typing import Any

import torch
from accelerate.utils import patch_environment
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.utils import logging

from hf_chain.engine import read_deepspeed
from hf_chain.errors import HfChainError, reason
from hf_chain.runs.environment import process_count

logger = logging.get_logger(__name__)

PROBED = (0.001, 0.25, 0.5, 0.75, 0.999)
"""Shares of the training at which the schedule is asked."""
FOLLOWS_EVALUATIONS = ("reduce_lr_on_plateau", "greedy")
OPTIMIZER_OPTIONS = ("adam_beta1", "adam_beta2", "adam_epsilon", "optim_args")


def check_training_works(config: type[TrainingArguments], training: Mapping[str, Any], where: str, steps: int) -> None:
    """Checks that the trackers of a `training` section are installed, and tries on a dummy what else it needs.

    Args:
        config (`type[TrainingArguments]`): what its fields are fields of.
        training (`Mapping`): the section.
        where (`str`): its place in the recipe.
        steps (`int`): steps of the training, or about so many.

    Raises:
        HfChainError: naming the place and what does not work.
    """
    values = {name: value for name, value in training.items() if name != "logging_dir"}
    try:
        check_trackers(values)
        try_training(config, values, steps, process_count())
    except HfChainError as error:
        raise HfChainError(f"{where}: {error}") from error


def check_trackers(training: Mapping[str, Any]) -> None:
    """Checks that the experiment trackers of a `training` section are installed.

    Raises:
        HfChainError: naming the first that is not.
    """
    wanted = training.get("report_to") or []
    installed = get_available_reporting_integrations()
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name not in ("all", "none", *installed):
            raise HfChainError(
                f"report_to has {name!r}, which is not installed or unknown: install it or use one of "
                f"{', '.join(['none', *installed])}"
            )


def try_training(config: type[TrainingArguments], values: Mapping[str, Any], steps: int, processes: int = 1) -> None:
    """Makes the arguments, the optimizer, the schedule and the loader of a training, and takes a step on a dummy.

    Args:
        config (`type[TrainingArguments]`): the class of the arguments.
        values (`Mapping`): its fields, checked by themselves.
        steps (`int`): steps of the training, or about so many.
        processes (`int`): processes that train.

    Raises:
        HfChainError: naming the fields that do not work here, in words of the library that refuses them.
    """
    cpu = not torch.cuda.is_available()
    if values.get("fp16") and cpu:
        raise HfChainError("fp16 is true, which needs a GPU, and there is none: leave it out, or use bf16")
    schedule = values.get("lr_scheduler_type")
    if getattr(schedule, "value", schedule) in FOLLOWS_EVALUATIONS:
        raise HfChainError(
            f"lr_scheduler_type is {schedule!r}, which follows evaluations, and a model is evaluated after its "
            "training: use linear, cosine or another"
        )
    if (backend := values.get("ddp_backend")) and not torch.distributed.is_backend_available(backend):
        raise HfChainError(f"ddp_backend is {backend!r}, which this torch does not have: leave it out")
    engine = read_deepspeed(values.get("deepspeed"))
    rest = {name: value for name, value in values.items() if name not in ("deepspeed", "fsdp", "fsdp_config")}
    with _named("training"):
        args = _arguments(config, rest, cpu)
    if getattr(args.accelerator_config, "use_configured_state", False):
        raise HfChainError("accelerator_config has use_configured_state, and the runner makes its own: leave it out")
    if engine is not None:
        _check_engine(engine, args, processes)
    with _named("dataloader_* of the training"):
        DataLoader(
            range(8),  # type: ignore[arg-type]
            num_workers=args.dataloader_num_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            persistent_workers=args.dataloader_persistent_workers,
        )
    if args.torch_compile:
        with _named("torch_compile_backend or torch_compile_mode"):
            torch.compile(nn.Linear(2, 2), backend=args.torch_compile_backend, mode=args.torch_compile_mode)
    kwargs: dict[str, Any] = dict(
        getattr(args, "activation_checkpointing_kwargs", None) or args.gradient_checkpointing_kwargs or {}
    )
    for own in ("every_n_layers", "offload"):
        kwargs.pop(own, None)
    if kwargs:
        with _named("gradient_checkpointing_kwargs"):
            kwargs = {"use_reentrant": False} | kwargs
            checkpoint(torch.exp, torch.ones(1, requires_grad=True), **kwargs)
    with torch.random.fork_rng(devices=[]):
        _try_optimizer(args, values, max(1, steps))


def warn_of_no_learning(where: str, rates: Iterable[float], warmup: float | None, steps: int | None) -> None:
    """Warns of a training that will learn nothing, or only while it warms up.

    Args:
        where (`str`): the member or stage.
        rates (`Iterable[float]`): its peak learning rates.
        warmup (`float`, *optional*): its `warmup_steps`.
        steps (`int`, *optional*): steps of the training, where they are known.
    """
    if not any(rates):
        logger.warning(f"{where}: learning_rate is 0, so nothing is learnt")
    if warmup is not None and steps is not None and warmup >= 1 and steps <= warmup:
        logger.warning(
            f"{where}: warmup_steps is {warmup:g} and the training has {steps} steps, so it ends while it warms up"
        )


class _Dry:
    """Arguments whose device is not asked for, which would start the processes' group."""

    distributed_state = None
    device = torch.device("cpu")
    n_gpu = 0
    world_size = 1


def _arguments(config: type[TrainingArguments], values: dict[str, Any], cpu: bool) -> Any:
    dry = type(f"Dry{config.__name__}", (_Dry, config), {})
    own = {"output_dir": gettempdir(), "use_cpu": cpu, "report_to": "none"}
    # The launcher's engine is made when the training begins.
    launched = {name: "false" for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP") if name in os.environ}
    with patch_environment(**launched), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dry(**values | own)


def _try_optimizer(args: Any, values: Mapping[str, Any], steps: int) -> None:
    model = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("q_proj", "k_proj", "v_proj", "fc1", "fc2")})
    trainer = Trainer.__new__(Trainer)
    trainer.model, trainer.args, trainer.optimizer, trainer.lr_scheduler = model, args, None, None
    trainer.optimizer_cls_and_kwargs = None
    with _named(f"optim {getattr(args.optim, 'value', args.optim)!r}"):
        optimizer = trainer.create_optimizer()
        _, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
    for name in OPTIMIZER_OPTIONS:
        given = getattr(args, name)
        if values.get(name) is None or given == getattr(TrainingArguments, name, None):
            continue
        changed = copy(args)
        setattr(changed, name, None if isinstance(given, str) else given / 2)
        _, others = Trainer.get_optimizer_cls_and_kwargs(changed, model)
        if repr(options) == repr(others):
            raise HfChainError(
                f"{name} is {given!r} and would do nothing with optim {args.optim.value!r}: leave it out"
            )
    with _named(f"lr_scheduler_type {args.lr_scheduler_type.value!r}"):
        schedule = trainer.create_scheduler(steps, optimizer)
        for factor in getattr(schedule, "lr_lambdas", ()):
            for share in PROBED:
                rate = factor(int(share * steps))
                if not (isinstance(rate, int | float) and math.isfinite(rate)):
                    raise ValueError(f"it gives a rate of {rate} at step {int(share * steps)} of {steps}")
    with _named(f"optim {args.optim.value!r}"):
        sum(layer(torch.ones(1, 4)).sum() for layer in model.values()).backward()
        optimizer.step()
        schedule.step()


def _check_engine(engine: dict[str, Any], args: Any, processes: int) -> None:
    """What of the configuration contradicts the arguments, as the Trainer would find it once the model is there."""
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    launched = copy(args)
    launched.world_size = processes
    with _named("the DeepSpeed configuration"):
        config = HfTrainerDeepSpeedConfig(engine)
        config.trainer_config_process(launched)
        if config.mismatches:
            raise ValueError(f"it contradicts training: {'; '.join(config.mismatches)}")


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Turns whatever a library raises into one line that names what it is about."""
    try:
        yield
    except HfChainError:
        raise
    except Exception as error:
        raise HfChainError(f"{what} does not work here: {reason(error, 300)}") from error
