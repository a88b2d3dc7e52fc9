"""What a trainer is given beside its data: used as `transformers.Trainer` does, or refused before work begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from transformers import TrainingArguments

from hf_chain.errors import HfChainError


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
