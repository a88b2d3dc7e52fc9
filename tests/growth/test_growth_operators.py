"""What every operator promises, and what the ones that are not exact copy where."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPModel

from hf_chain.growth import OPERATORS, embedding_error, grow
from support.growth_models import tiny_config, trained_like

LARGER = tiny_config(
    {"hidden_size": 20, "num_hidden_layers": 3, "intermediate_size": 40},
    {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 5, "intermediate_size": 64},
    embedding=16,
)
QUERY = "vision_model.encoder.layers.{}.self_attn.q_proj.weight"


@pytest.mark.parametrize("operator", OPERATORS)
class TestEveryOperator:
    def test_gives_a_stock_model_of_the_wished_shape(self, operator: str) -> None:
        successor = grow(trained_like(tiny_config()), LARGER, operator)
        assert type(successor) is CLIPModel
        assert successor.logit_scale.dim() == 0
        shapes = {name: weight.shape for name, weight in CLIPModel(LARGER).named_parameters()}
        assert {name: weight.shape for name, weight in successor.named_parameters()} == shapes

    def test_is_decided_by_the_seed(self, operator: str) -> None:
        predecessor = trained_like(tiny_config())
        first, again, other = (grow(predecessor, LARGER, operator, seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)

    def test_changes_nothing_but_the_successor(self, operator: str) -> None:
        predecessor = trained_like(tiny_config())
        before = {name: weight.clone() for name, weight in predecessor.state_dict().items()}
        old_config, new_config = predecessor.config.to_dict(), LARGER.to_dict()
        random_state = torch.get_rng_state()
        successor = grow(predecessor, LARGER, operator)
        with torch.no_grad():
            for weight in successor.parameters():
                weight.add_(1)
        assert all(torch.equal(weight, before[name]) for name, weight in predecessor.state_dict().items())
        assert (predecessor.config.to_dict(), LARGER.to_dict()) == (old_config, new_config)
        assert torch.equal(torch.get_rng_state(), random_state)
        assert not successor.training

    def test_gives_a_model_that_is_saved_and_loaded(self, operator: str, tmp_path: Path) -> None:
        successor = grow(trained_like(tiny_config()), LARGER, operator)
        successor.save_pretrained(tmp_path)
        loaded = CLIPModel.from_pretrained(tmp_path)
        assert embedding_error(successor, loaded) == {"image": 0, "text": 0}
        assert loaded.config.vision_config.layer_norm_eps == successor.config.vision_config.layer_norm_eps


def test_copy_keeps_every_weight_as_the_leading_block() -> None:
    predecessor = trained_like(tiny_config())
    old, new = predecessor.state_dict(), grow(predecessor, LARGER, "copy").state_dict()
    origins = {"text_model": [0, 0, 1], "vision_model": [0, 0, 0, 1, 1]}
    for name, weight in new.items():
        tower = name.partition(".")[0]
        before, layers, after = name.partition(".layers.")
        if layers:
            block, _, rest = after.partition(".")
            name = f"{before}.layers.{origins[tower][int(block)]}.{rest}"
        assert torch.equal(weight[tuple(slice(size) for size in old[name].shape)], old[name]), name


def test_copy_leaves_the_rest_as_the_control_has_it() -> None:
    predecessor = trained_like(tiny_config())
    copied, control = (grow(predecessor, LARGER, name).state_dict() for name in ("copy", "random"))
    assert torch.equal(copied["visual_projection.weight"][12:], control["visual_projection.weight"][12:])
    assert torch.equal(copied["visual_projection.weight"][:, 24:], control["visual_projection.weight"][:, 24:])


def test_copy_fused_misplaces_keys_and_loses_values() -> None:
    predecessor = trained_like(tiny_config())
    config = tiny_config(vision={"hidden_size": 48})
    old = predecessor.vision_model.encoder.layers[0].self_attn
    new = grow(predecessor, config, "copy_fused").vision_model.encoder.layers[0].self_attn
    control = grow(predecessor, config, "random").vision_model.encoder.layers[0].self_attn
    assert torch.equal(new.q_proj.weight[:24, :24], old.q_proj.weight)
    assert torch.equal(new.q_proj.weight[24:, :24], old.k_proj.weight)
    assert torch.equal(new.k_proj.weight[:24, :24], old.v_proj.weight)
    assert torch.equal(new.k_proj.weight[24:], control.k_proj.weight[24:])
    assert torch.equal(new.v_proj.weight, control.v_proj.weight)
    assert torch.equal(new.q_proj.bias[24:], old.k_proj.bias)
    assert torch.equal(new.out_proj.weight[:24, :24], old.out_proj.weight)


@pytest.mark.parametrize(
    ("operator", "origins"), [("stack", [0, 1, 0, 1, 0]), ("interpolate", [0, 0, 0, 1, 1]), ("copy", [0, 0, 0, 1, 1])]
)
def test_blocks_come_from_the_right_place(operator: str, origins: list[int]) -> None:
    predecessor = trained_like(tiny_config())
    new = grow(predecessor, tiny_config(vision={"num_hidden_layers": 5}), operator).state_dict()
    for block, origin in enumerate(origins):
        assert torch.equal(new[QUERY.format(block)], predecessor.state_dict()[QUERY.format(origin)])


@pytest.mark.parametrize("operator", ["stack", "interpolate"])
def test_stack_and_interpolate_are_exact_in_width(operator: str) -> None:
    predecessor = trained_like(tiny_config())
    successor = grow(predecessor, tiny_config({"hidden_size": 20}, {"hidden_size": 48}), operator)
    assert max(embedding_error(predecessor, successor).values()) < 1e-9


def test_random_inherits_nothing() -> None:
    predecessor = trained_like(tiny_config())
    assert embedding_error(predecessor, grow(predecessor, tiny_config(), "random"))["image"] > 0.5


def test_legacy_models_that_pool_at_the_largest_token_grow_exactly() -> None:
    legacy = {"eos_token_id": 2}
    predecessor = trained_like(tiny_config(legacy))
    successor = grow(predecessor, tiny_config(legacy | {"hidden_size": 20}))
    assert embedding_error(predecessor, successor)["text"] < 1e-9
    assert successor.config.text_config.eos_token_id == 2
