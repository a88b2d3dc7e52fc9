"""The first step's question to every trainable part: did a gradient reach you?"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import nn

from hf_chain.engine import Engine, own_part
from hf_chain.errors import HfChainError
from hf_chain.trainer.parts import Part

NONE, ZERO, SOME = 0, 1, 2
SHOWN = 3
"""Names in an error message."""


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
