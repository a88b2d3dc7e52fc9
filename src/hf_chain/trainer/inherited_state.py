"""An optimizer that goes on with the state that was grown along with the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, Optimizer

from hf_chain.errors import HfChainError
from hf_chain.growth.optimizer_state import MOMENTS

NamedState = Mapping[str, Mapping[str, torch.Tensor]]
"""Name of a weight -> AdamW's `exp_avg`, `exp_avg_sq` and `step` of it."""


def inherit(optimizer: Optimizer, model: nn.Module, state: NamedState) -> None:
    """Gives an optimizer a state before its first step; weights that `state` does not name begin with none.

    Args:
        optimizer (`Optimizer`): an Adam or AdamW of torch.
        model (`nn.Module`): whose weights it holds.
        state (`NamedState`): by the names of the model's weights, of their shapes.

    Raises:
        HfChainError: for another optimizer, and for a weight that the model does not have.
    """
    if not isinstance(optimizer, Adam):
        raise HfChainError(
            f"the optimizer is a {type(optimizer).__name__}, which cannot go on with AdamW's state: use optim "
            "adamw_torch, or set optimizer_state to false"
        )
    named = dict(model.named_parameters())
    if unknown := sorted(state.keys() - named.keys()):
        raise HfChainError(f"the optimizer's state holds {unknown[0]}, no weight of the model: give the grown state")
    numbers = {
        id(weight): n for n, weight in enumerate(w for group in optimizer.param_groups for w in group["params"])
    }
    held = {numbers[id(named[name])]: dict(entries) for name, entries in state.items() if id(named[name]) in numbers}
    # Torch's own loading puts each entry on the right device.
    optimizer.load_state_dict({**optimizer.state_dict(), "state": held})


class NewWeightsWarmup:
    """Scales the steps of what growth has added, from 0 up to 1, while what is inherited goes on at the full rate.

    New are the entries without a second moment. Source: SPARKLING (arXiv 2602.02472), which resets the warm-up of new
    channels alone.

    Args:
        optimizer (`Optimizer`): the optimizer.
        model (`nn.Module`): whose weights it holds.
        state (`NamedState`): what `inherit` was given.
        share (`Callable`): the factor at the present step; from 1 on nothing is done.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module, state: NamedState, share: Callable[[], float]) -> None:
        named, (_, second) = dict(model.named_parameters()), MOMENTS
        new = {name: entries[second] == 0 for name, entries in state.items()}
        self.new = [(named[name], mask.to(named[name].device)) for name, mask in new.items() if mask.any()]
        self.share, self.before = share, list[torch.Tensor]()
        optimizer.register_step_pre_hook(self._keep)
        optimizer.register_step_post_hook(self._scale)

    def _keep(self, *_: Any) -> None:
        self.before = [weight.detach().clone() for weight, _ in self.new] if self.share() < 1 else []

    @torch.no_grad()
    def _scale(self, *_: Any) -> None:
        share = self.share()
        # Nothing was kept once all is warm.
        for (weight, new), before in zip(self.new, self.before, strict=False):
            weight.copy_(torch.where(new, torch.lerp(before, weight, share), weight))
        self.before = []
