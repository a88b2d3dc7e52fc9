"""Trainable parts: which parameters of a model are trained, how fast, and whether a gradient reaches them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_chain.arguments.trainer_arguments import check_optimizers
from hf_chain.engine import Engine, own_part
from hf_chain.errors import HfChainError
from hf_chain.trainer.part_aliases import alias_parameters, known_aliases

Parts = Mapping[str, float | None] | Iterable[str]
"""Part names to learning rates, `None` for the default; or just the names."""

NONE, ZERO, SOME = 0, 1, 2
SHOWN = 3
"""Names in an error message."""


@dataclass(frozen=True)
class Part:
    """A part of a model that is trained.

    Attributes:
        name (`str`): the alias or pattern it was named by.
        learning_rate (`float`): its peak learning rate.
        parameters (`dict[str, nn.Parameter]`): its parameters by their names in the model.
        has_rate (`bool`): whether the rate is its own.
    """

    name: str
    learning_rate: float
    parameters: dict[str, nn.Parameter]
    has_rate: bool = False


def resolve_parts(model: PreTrainedModel, parts: Parts, learning_rate: float) -> tuple[Part, ...]:
    """Finds the parameters that parts stand for.

    A part is an alias (see `part_aliases.ALIASES`), the name of a module or a parameter, or a pattern over parameter
    names such as `*.layers.3.mlp.*`.

    Args:
        model (`PreTrainedModel`): a vision-language model or a plain decoder.
        parts (`dict[str, float]` or `list[str]`): the parts, with the learning rates of those that have their own.
        learning_rate (`float`): the rate of the others.

    Returns:
        `tuple[Part, ...]`: the parts, in order. A parameter that several of them claim belongs to the first.

    Raises:
        HfChainError: when a part stands for nothing in this model, or two claim a parameter at different rates.
    """
    rates = dict(parts) if isinstance(parts, Mapping) else dict.fromkeys(parts)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    owner: dict[str, Part] = {}
    resolved = []
    for name, rate in rates.items():
        part = Part(name, learning_rate if rate is None else rate, {}, has_rate=rate is not None)
        for parameter in _parameters_of(model, name):
            key = names[id(parameter)]
            first = owner.setdefault(key, part)
            if first is part:
                part.parameters[key] = parameter
            elif first.learning_rate != part.learning_rate:
                raise HfChainError(
                    f"parts {first.name} (learning rate {first.learning_rate:g}) and {part.name} "
                    f"({part.learning_rate:g}) both train {key}: give them the same rate, or name parts that do not "
                    "overlap"
                )
        resolved.append(part)
    return tuple(part for part in resolved if part.parameters)


def check_parts(parts: Parts) -> None:
    """Refuses parts that fit no model.

    Raises:
        HfChainError: when there is none, or a learning rate is not a positive number.
    """
    rates = dict(parts) if isinstance(parts, Mapping) else dict.fromkeys(parts)
    if not rates:
        raise HfChainError(
            "parts is empty, so nothing would be trained: name parts, such as {adapter: 1e-4, encoder.last:8: 5e-5}"
        )
    for name, rate in rates.items():
        if rate is not None and not 0 < rate < math.inf:
            raise HfChainError(f"the learning rate of part {name} is {rate}; it must be above 0")


def freeze_all_but(model: nn.Module, parts: Iterable[Part]) -> None:
    """Lets the parts' parameters, and no others, take gradients."""
    trained = {id(parameter) for part in parts for parameter in part.parameters.values()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)


def _parameters_of(model: PreTrainedModel, name: str) -> list[nn.Parameter]:
    found = list(alias_parameters(model, name) or ())
    if not found:
        found = [parameter for key, parameter in model.named_parameters() if _matches(key, name)]
    if found:
        return found
    if name == "translator":
        remedy = "make the surrogate with hf_chain.build_surrogate, which records where its translator is"
    else:
        remedy = "or name a module, or a pattern such as *.layers.0.mlp.*"
    raise HfChainError(
        f"part {name} stands for nothing in {type(model).__name__}: it has {', '.join(known_aliases(model))}; {remedy}"
    )


def _matches(key: str, pattern: str) -> bool:
    return key == pattern or key.startswith(f"{pattern}.") or fnmatchcase(key, pattern)


def optimizer_groups(parts: Iterable[Part], decayed: Collection[str], weight_decay: float) -> list[dict[str, Any]]:
    """Groups the parts' parameters by learning rate and weight decay.

    Args:
        parts (`Iterable[Part]`): what is trained.
        decayed (`Collection[str]`): names of parameters with weight decay.
        weight_decay (`float`): their weight decay.

    Returns:
        `list[dict]`: groups for a torch optimizer, none empty, each with the name of its `part`.
    """
    groups = []
    for part in parts:
        for decays in (True, False):
            chosen = [value for name, value in part.parameters.items() if (name in decayed) == decays]
            if chosen:
                decay = weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": part.learning_rate, "weight_decay": decay, "part": part.name})
    return groups


def check_part_optimizers(given: Mapping[str, Any], model: nn.Module, parts: Sequence[Part]) -> None:
    """Refuses optimizers of the user's own that would not train the parts, or not at their rates.

    Args:
        given (`Mapping`): arguments of `Trainer.__init__`.
        model (`nn.Module`): the model.
        parts (`Sequence[Part]`): what is trained.

    Raises:
        HfChainError: naming what is wrong.
    """
    optimizers = given.get("optimizers")
    trained = {name: value for part in parts for name, value in part.parameters.items()}
    check_optimizers(optimizers, model, trained, "make it of what parts name, LoRA attached before (attach_lora)")
    if optimizers and optimizers[0] is not None and (part := next((part for part in parts if part.has_rate), None)):
        raise HfChainError(
            f"part {part.name} has a learning rate ({part.learning_rate:g}) and the optimizer in optimizers its own:"
            " give parts as a list of names, or leave the optimizer out"
        )
    _, options = given.get("optimizer_cls_and_kwargs") or (None, {})
    if "lr" in options:
        raise HfChainError("optimizer_cls_and_kwargs has lr, which that of the parts overrides: leave it out")


class GradientCheck:
    """Fails when a trainable parameter gets no gradient, or all of a part's gradients are zero.

    Single parameters may have a zero gradient: LoRA's second matrix starts at zero, and so stops the first one's.

    Args:
        parts (`Sequence[Part]`): what is trained.
        need_images (`Collection[nn.Parameter]`): parameters that only a step with images can teach.
        engine (`Engine`): joins what the processes saw.
        frees_gradients (`bool`): whether the engine takes gradients away before the step ends, as DeepSpeed does.
    """

    def __init__(
        self, parts: Sequence[Part], need_images: Collection[nn.Parameter], engine: Engine, frees_gradients: bool
    ) -> None:
        self._parts, self._engine = parts, engine
        self._parameters = {name: value for part in parts for name, value in part.parameters.items()}
        self._need_images = {id(parameter) for parameter in need_images}
        self._pending = set(self._parameters)
        self._seen = dict.fromkeys(self._parameters, NONE)
        self._images = False
        self._hooks = []
        if frees_gradients:
            for name, parameter in self._parameters.items():
                self._hooks.append(parameter.register_hook(lambda gradient, name=name: self._note(name, gradient)))

    @property
    def pending(self) -> set[str]:
        """Names of the trainable parameters that were not asked yet, for want of a step with images."""
        return self._pending

    def see_batch(self, has_images: bool) -> None:
        """Notes a micro-batch of this process."""
        self._images |= has_images

    def ask(self) -> None:
        """To be called once the gradients of an optimiser step are there, in every process.

        Raises:
            HfChainError: naming the parameters, or the part, that got no gradient.
        """
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                self._note(name, parameter.grad)
        images, *states = self._engine.max([int(self._images), *self._seen.values()])
        seen = dict(zip(self._seen, states, strict=True))
        asked = {name for name in self._pending if images or id(self._parameters[name]) not in self._need_images}
        self._require_gradients(seen, asked)
        self._pending -= asked
        self._seen, self._images = dict.fromkeys(self._parameters, NONE), False
        if not self._pending:
            for hook in self._hooks:
                hook.remove()

    def _note(self, name: str, gradient: torch.Tensor) -> None:
        state = SOME if bool(own_part(gradient).any()) else ZERO
        self._seen[name] = max(self._seen[name], state)

    def _require_gradients(self, seen: dict[str, int], asked: set[str]) -> None:
        for part in self._parts:
            names = [name for name in part.parameters if name in asked]
            missing = [name for name in names if seen[name] == NONE]
            if missing:
                raise HfChainError(
                    f"part {part.name} got no gradient for {_listed(missing)}: the model does not use it in its "
                    "prediction; leave it out of parts"
                )
            if names and all(seen[name] == ZERO for name in names):
                raise HfChainError(
                    f"part {part.name} got a gradient of zero for {_listed(names)}: nothing that the loss sees "
                    "depends on it, so it would not be trained; check labels and masks, or leave it out of parts"
                )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
