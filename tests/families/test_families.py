"""What every family promises: growth that keeps the function, in everything that can grow."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import VisionTextDualEncoderConfig

from hf_chain.errors import HfChainError
from hf_chain.families import family_of
from hf_chain.growth import grow, growth_error
from support.exactness import PAGE, page_with_table
from support.families import ROWS, compute_in_float64

EXACT = 1e-9


@pytest.mark.parametrize(("name", "what"), [(name, what) for name, row in ROWS.items() for what in row.grown])
def test_growth_keeps_the_function(name: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ROWS[name]
    predecessor = row.trained_like()
    successor = grow(predecessor, row.config(what))
    assert type(successor) is type(predecessor)
    compute_in_float64(predecessor, monkeypatch)
    error = max(growth_error(predecessor, successor).values())
    assert error < row.errors.get(what, EXACT)


@pytest.mark.parametrize("name", ROWS)
def test_every_weight_is_known(name: str) -> None:
    model = ROWS[name].trained_like()
    family = family_of(model.config)
    for weight, _ in model.named_parameters():
        assert len(list(family.slots(weight))) <= 1, weight
        family.slot(weight)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("operator", ["copy", "stack", "interpolate"])
def test_other_operators_give_a_model_of_the_wished_shape(name: str, operator: str) -> None:
    row = ROWS[name]
    what = "everything" if "everything" in row.grown else next(iter(row.grown))
    successor = grow(row.trained_like(), row.config(what), operator)
    assert all(weight.isfinite().all() for weight in successor.parameters())
    assert {name: weight.shape for name, weight in successor.named_parameters()} == row.shapes(what)


@pytest.mark.parametrize("name", ROWS)
def test_a_grown_model_is_saved_and_loaded_by_its_stock_class(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    predecessor = row.trained_like(torch.float32)
    successor = grow(predecessor, row.config("everything"))
    successor.save_pretrained(tmp_path)
    loaded = type(successor).from_pretrained(tmp_path)
    assert set(growth_error(successor, loaded).values()) == {0}
    # A few units in the last place of float32, times the depth.
    assert max(growth_error(predecessor, loaded).values()) < max(1e-5, row.errors.get("everything", 0))


GROWING = ("residual", "query", "key", "value", "context", "mlp", "embedding", "head")


@pytest.mark.parametrize("name", ROWS)
def test_all_that_is_added_can_learn(name: str) -> None:
    """Every channel and every unit has a gradient within a few steps, and no two are alike."""
    row = ROWS[name]
    model = grow(row.trained_like(), row.config("everything")).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    gradients = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        optimizer.zero_grad()
        row.loss(model, generator).backward()
        for weight_name, weight in model.named_parameters():
            if weight.grad is not None:
                gradients[weight_name] += weight.grad.abs()
        optimizer.step()
    family = family_of(model.config)
    for weight_name, weight in model.named_parameters():
        slot = family.slot(weight_name)
        axes = slot.weight.axes if slot and weight.requires_grad and not row.is_idle(weight_name) else ()
        for number, axis in enumerate(axes):
            if any(part in GROWING for part in axis.replace("/", "|").split("|")):
                of_unit = (
                    gradients[weight_name].movedim(number, 0).flatten(1).sum(1)
                    if weight.dim() > 1
                    else gradients[weight_name]
                )
                assert of_unit.min() > 1e-9 * of_unit.mean(), (weight_name, axis)
                if weight.dim() > 1 and slot.weight.role != "bias":
                    rows = weight.detach().movedim(number, 0).flatten(1)
                    assert torch.pdist(rows).min() > 1e-7 * rows.norm(dim=1).mean(), (weight_name, axis)


@pytest.mark.parametrize(
    ("part", "model_type", "said"),
    [
        (
            "text_config",
            "t5",
            "text_config.model_type 't5' has no description .* use one of clip_text_model, bert,",
        ),
        (
            "vision_config",
            "llama",
            "vision_config.model_type 'llama' has no pooled output .* use one of clip_v",
        ),
    ],
)
def test_a_dual_encoder_of_an_unknown_tower_is_refused(part: str, model_type: str, said: str) -> None:
    known = {"vision_config": {"model_type": "vit"}, "text_config": {"model_type": "bert"}}
    config = VisionTextDualEncoderConfig(**known | {part: {"model_type": model_type}})
    with pytest.raises(HfChainError, match=said):
        family_of(config)


def test_the_page_says_what_the_tests_hold() -> None:
    """`python tests/support/exactness.py` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page_with_table()
