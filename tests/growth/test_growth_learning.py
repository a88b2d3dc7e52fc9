"""Everything that growth adds can learn."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest
import torch
from transformers import CLIPModel

from hf_chain.families.clip import CLIP
from hf_chain.growth import grow
from support.growth_models import VOCABULARY, tiny_config, trained_like

STEPS = 4
SHAPES = {
    "tiled width and new heads": ({"hidden_size": 32, "num_attention_heads": 4}, {"hidden_size": 48}, 12),
    "padded width": ({"hidden_size": 22}, {"hidden_size": 36, "num_attention_heads": 4}, 12),
    "larger heads": ({"hidden_size": 32}, {"hidden_size": 48, "num_attention_heads": 3}, 12),
    "depth": ({"num_hidden_layers": 5}, {"num_hidden_layers": 3}, 12),
    "MLP": ({"intermediate_size": 40}, {"intermediate_size": 50}, 12),
    "embedding": ({}, {}, 15),
    "embedding and width": ({"hidden_size": 20}, {"hidden_size": 48}, 15),
    "embedding and one width": ({}, {"hidden_size": 48}, 15),
}


@pytest.fixture(params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def trained(request: pytest.FixtureRequest) -> tuple[CLIPModel, dict[str, torch.Tensor]]:
    """A successor after a few steps, and for every weight the sum of its absolute gradients."""
    text, vision, embedding = SHAPES[request.param]
    model = grow(trained_like(tiny_config()), tiny_config(text, vision, embedding)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    gradients = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    for _ in range(STEPS):
        tokens = torch.randint(VOCABULARY - 1, (16, 7), generator=generator)
        tokens[:, -1] = VOCABULARY - 1
        pixels = torch.randn(16, 3, 8, 8, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        model(input_ids=tokens, pixel_values=pixels, return_loss=True).loss.backward()
        for name, weight in model.named_parameters():
            gradients[name] += weight.grad.abs()
        optimizer.step()
    return model, gradients


def units(model: CLIPModel) -> Iterator[tuple[str, int]]:
    """The name and the number of every axis along which growth adds units."""
    for name, _ in model.named_parameters():
        slot = CLIP.slot(name)
        for number, axis in enumerate(slot.weight.axes if slot else ()):
            if axis in ("residual", "query", "key", "value", "context", "mlp", "embedding"):
                yield name, number


def test_every_unit_gets_a_gradient(trained: tuple[CLIPModel, dict[str, torch.Tensor]]) -> None:
    model, gradients = trained
    for name, axis in units(model):
        # Attention does not change when all keys move together, so no model's key bias has a gradient.
        if not name.endswith("k_proj.bias"):
            of_unit = gradients[name].movedim(axis, 0).reshape(gradients[name].shape[axis], -1).sum(1)
            assert of_unit.min() > 1e-6 * of_unit.mean(), name


def test_no_two_units_are_alike(trained: tuple[CLIPModel, dict[str, torch.Tensor]]) -> None:
    model, _ = trained
    weights = dict(model.named_parameters())
    for name, axis in units(model):
        if weights[name].dim() > 1:
            rows = weights[name].detach().movedim(axis, 0).flatten(1)
            assert torch.pdist(rows).min() > 1e-3 * rows.norm(dim=1).mean(), name


def test_no_two_blocks_are_alike(trained: tuple[CLIPModel, dict[str, torch.Tensor]]) -> None:
    model, _ = trained
    for tower in (model.text_model, model.vision_model):
        writes = [block.mlp.fc2.weight.detach() for block in tower.encoder.layers]
        for one, other in combinations(writes, 2):
            assert (one - other).norm() > 0.1 * other.norm()


def test_new_blocks_start_as_identity_behind_their_origin() -> None:
    predecessor = trained_like(tiny_config())
    blocks = grow(predecessor, tiny_config(vision={"num_hidden_layers": 6})).vision_model.encoder.layers
    writes = [bool(block.self_attn.out_proj.weight.any() or block.mlp.fc2.weight.any()) for block in blocks]
    assert writes == [True, False, False, True, False, False]
