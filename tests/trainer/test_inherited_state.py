"""An optimizer that goes on with a state that has grown: what is inherited goes on, what is new warms up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hf_chain.errors import HfChainError
from hf_chain.trainer.inherited_state import NamedState, NewWeightsWarmup, inherit

LEARNING_RATE = 0.1


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def trained(steps: int = 3) -> tuple[nn.Linear, torch.optim.AdamW]:
    model = layer()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def step(model: nn.Linear, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.arange(8.0).view(2, 4)).square().sum().backward()
    optimizer.step()


def state_of(model: nn.Linear, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, torch.Tensor]]:
    return {
        name: {entry: value.clone() for entry, value in optimizer.state[weight].items()}
        for name, weight in model.named_parameters()
    }


def copy_of(model: nn.Linear, fused: bool = False) -> tuple[nn.Linear, torch.optim.AdamW]:
    other = layer()
    other.load_state_dict(model.state_dict())
    # In another order and in groups, as the Trainer makes them.
    groups = [{"params": [other.bias], "weight_decay": 0.01}, {"params": [other.weight]}]
    return other, torch.optim.AdamW(groups, LEARNING_RATE, fused=fused)


@pytest.mark.parametrize("fused", [False, True])
def test_an_inherited_state_takes_the_steps_that_the_old_one_would(fused: bool) -> None:
    model, optimizer = trained()
    other, heir = copy_of(model, fused)
    inherit(heir, other, state_of(model, optimizer))
    for _ in range(3):
        step(model, optimizer)
        step(other, heir)
    torch.testing.assert_close(other.weight, model.weight)
    torch.testing.assert_close(other.bias, model.bias)
    fresh, optimizer = copy_of(trained()[0])
    step(fresh, optimizer)
    assert not torch.allclose(fresh.weight, other.weight)


def with_new_row() -> tuple[nn.Linear, torch.optim.AdamW, NamedState]:
    """The last row of the weight is new."""
    model, optimizer = trained()
    state = state_of(model, optimizer)
    for entry in ("exp_avg", "exp_avg_sq"):
        state["weight"][entry][2] = 0
    other, heir = copy_of(model)
    inherit(heir, other, state)
    return other, heir, state


def test_new_weights_take_a_share_of_their_steps_while_they_warm_up() -> None:
    plain, optimizer, _ = with_new_row()
    warmed, heir, state = with_new_row()
    shares = iter([0.25, 0.25, 1.0, 1.0])
    NewWeightsWarmup(heir, warmed, state, lambda: next(shares))
    before = warmed.weight.detach().clone()
    step(plain, optimizer)
    step(warmed, heir)
    torch.testing.assert_close(warmed.weight[:2], plain.weight[:2])
    torch.testing.assert_close(warmed.bias, plain.bias)
    torch.testing.assert_close(warmed.weight[2] - before[2], (plain.weight[2] - before[2]) / 4)
    before = warmed.weight.detach().clone()
    step(warmed, heir)
    assert (warmed.weight[2] - before[2]).abs().min() > 0.5 * LEARNING_RATE * 0.1


def test_what_cannot_be_inherited_is_named() -> None:
    model, optimizer = trained()
    state = state_of(model, optimizer)
    with pytest.raises(HfChainError, match="the optimizer is a SGD, which cannot go on with AdamW's state"):
        inherit(torch.optim.SGD(model.parameters(), 0.1), model, state)
    with pytest.raises(HfChainError, match="holds other, no weight of the model"):
        inherit(optimizer, model, {"other": state["weight"]})
