"""AdamW's state grows along: the grown model's next step is its predecessor's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from transformers import PreTrainedModel

from hf_chain.errors import HfChainError
from hf_chain.families import family_of
from hf_chain.growth import grow
from support.families import ROWS, compute_in_float64

RATE = 1e-3


def adamw(model: PreTrainedModel) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, eps=1e-12)


def step(model: PreTrainedModel, optimizer: torch.optim.Optimizer, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """What one step on these tokens adds to each weight."""
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer.zero_grad()
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    return {name: weight.detach() - before[name] for name, weight in model.named_parameters()}


def trained(name: str) -> tuple[PreTrainedModel, torch.optim.AdamW, dict[str, Any]]:
    """A model after a few steps, its optimizer and the optimizer's state."""
    model = ROWS[name].trained_like()
    optimizer = adamw(model)
    for seed in range(5):
        step(model, optimizer, some_tokens(seed))
    return model, optimizer, get_optimizer_state_dict(model, optimizer)


def some_tokens(seed: int) -> torch.Tensor:
    return torch.randint(40, (4, 10), generator=torch.Generator().manual_seed(seed))


def grown_with_state(name: str, what: str, model: PreTrainedModel, state: dict[str, Any]) -> tuple[Any, Any]:
    successor, grown = grow(model, ROWS[name].config(what), optimizer_state=state)
    optimizer = adamw(successor)
    set_optimizer_state_dict(successor, optimizer, grown)
    return successor, optimizer


@pytest.mark.parametrize("what", ["width", "depth", "MLP"])
@pytest.mark.parametrize("name", ["llama", "llama, tied", "qwen3", "olmo2"])
def test_the_next_step_is_the_predecessors_in_its_own_coordinates(
    name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_in_float64(ROWS[name].trained_like(), monkeypatch)
    model, optimizer, state = trained(name)
    successor, larger = grown_with_state(name, what, model, state)
    family, tokens = family_of(model.config), some_tokens(9)
    expected, found = step(model, optimizer, tokens), step(successor, larger, tokens)
    compared = 0
    for weight, update in expected.items():
        slot = family.slot(weight)
        assert slot is not None
        # Blocks of the predecessor stand first in their gaps, and steps of AdamW do not know how weights are scaled.
        if slot.block is None or what != "depth":
            part = found[weight][tuple(slice(size) for size in update.shape)]
            assert (part - update).norm() < 1e-4 * update.norm(), weight
            compared += 1
    assert compared > 1


def test_a_new_block_begins_at_step_zero_and_the_others_go_on() -> None:
    model, _, state = trained("llama")
    _, grown = grow(model, ROWS["llama"].config("depth"), optimizer_state=state)
    steps = {name: int(entries["step"]) for name, entries in grown["state"].items()}
    assert steps["model.layers.0.mlp.up_proj.weight"] == steps["lm_head.weight"] == 5
    assert steps["model.layers.1.mlp.up_proj.weight"] == 0
    assert [len(group["params"]) for group in grown["param_groups"]] == [len(steps)]


def test_groups_keep_their_settings_and_take_in_new_blocks() -> None:
    model, _, _ = trained("llama")
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}])
    step(model, optimizer, some_tokens(0))
    successor, grown = grow(
        model, ROWS["llama"].config("depth"), optimizer_state=get_optimizer_state_dict(model, optimizer)
    )
    sizes = dict(successor.named_parameters())
    for group, dimensions in zip(grown["param_groups"], (2, 1), strict=True):
        assert group["weight_decay"] == (0.1 if dimensions == 2 else 0.0)
        assert {sizes[name].dim() for name in group["params"]} == {dimensions}
    assert sum(len(group["params"]) for group in grown["param_groups"]) == len(sizes)


@pytest.mark.parametrize("name", ROWS)
def test_the_state_of_any_family_fits_its_successor(name: str) -> None:
    row = ROWS[name]
    model = row.trained_like()
    optimizer = adamw(model)
    row.loss(model, torch.Generator().manual_seed(0)).backward()
    optimizer.step()
    state = get_optimizer_state_dict(model, optimizer)
    successor, grown = grow(model, row.config("everything"), optimizer_state=state)
    shapes = {weight: value.shape for weight, value in successor.named_parameters()}
    for weight, entries in grown["state"].items():
        assert entries["exp_avg"].shape == entries["exp_avg_sq"].shape == shapes[weight]
        assert entries["exp_avg_sq"].min() >= 0
        # A mean without a spread would make a step without a bound.
        assert not entries["exp_avg"][entries["exp_avg_sq"] == 0].any()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"state": {"other.weight": {}}, "param_groups": []}, "holds 'other.weight', no weight of the predecessor"),
        (
            {"state": {"lm_head.weight": {"momentum_buffer": torch.zeros(40, 24)}}, "param_groups": []},
            "differs from AdamW's in 'exp_avg'",
        ),
    ],
)
def test_another_state_is_refused(state: dict[str, Any], said: str) -> None:
    with pytest.raises(HfChainError, match=said):
        grow(ROWS["llama"].trained_like(), ROWS["llama"].config("width"), optimizer_state=state)


def test_no_state_grows_where_no_function_does() -> None:
    model, _, state = trained("llama")
    with pytest.raises(HfChainError, match="operator='copy' keeps no function, so no optimizer state"):
        grow(model, ROWS["llama"].config("width"), "copy", optimizer_state=state)
