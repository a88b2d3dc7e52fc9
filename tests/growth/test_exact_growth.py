"""Right after exact growth the embeddings are the predecessor's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils import logging

from hf_chain.growth import embedding_error, grow
from hf_chain.growth.pad import PaddedBehindNorm
from support.growth_models import TEXT, VISION, tiny_config, trained_like

EXACT = 1e-9
few = settings(max_examples=15, deadline=None, derandomize=True)


def sizes(old: dict[str, int], widths: st.SearchStrategy[int]) -> st.SearchStrategy[dict[str, int]]:
    """Successor sizes of one tower: a width, and any heads, depth and MLP that are not smaller."""

    def with_heads(width: int) -> st.SearchStrategy[dict[str, int]]:
        head = old["hidden_size"] // old["num_attention_heads"]
        heads = [n for n in range(old["num_attention_heads"], width // head + 1) if width % n == 0]
        return st.fixed_dictionaries(
            {
                "hidden_size": st.just(width),
                "num_attention_heads": st.sampled_from(heads),
                "num_hidden_layers": st.integers(old["num_hidden_layers"], 7),
                "intermediate_size": st.integers(old["intermediate_size"], 50),
            }
        )

    return widths.flatmap(with_heads)


any_text_width = st.integers(TEXT["hidden_size"] // 2, 24).map(lambda half: 2 * half)
dividing_image_width = st.sampled_from([24, 48, 72])
other_image_width = st.sampled_from([27, 30, 33, 36, 40, 45, 60, 63])


@few
@given(
    text=sizes(TEXT, any_text_width),
    vision=sizes(VISION, dividing_image_width),
    embedding=st.integers(12, 20),
    seed=st.integers(0, 2**31),
)
def test_exact_growth_keeps_the_embeddings(
    text: dict[str, int], vision: dict[str, int], embedding: int, seed: int
) -> None:
    predecessor = trained_like(tiny_config(), seed)
    successor = grow(predecessor, tiny_config(text, vision, embedding), seed=seed)
    errors = embedding_error(predecessor, successor, seed)
    assert max(errors.values()) < EXACT


@pytest.mark.parametrize("part", ["text", "vision"])
@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 48},
        {"hidden_size": 48, "num_attention_heads": 3},
        {"hidden_size": 48, "num_attention_heads": 6},
        {"num_hidden_layers": 3},
        {"num_hidden_layers": 7},
        {"intermediate_size": 41},
        {},
    ],
)
def test_one_tower_grows_alone(part: str, change: dict[str, Any]) -> None:
    predecessor = trained_like(tiny_config())
    successor = grow(predecessor, tiny_config(**{part: change}))
    errors = embedding_error(predecessor, successor)
    grown, kept = (errors["text"], errors["image"]) if part == "text" else (errors["image"], errors["text"])
    assert grown < EXACT
    assert kept == 0


def test_equal_sizes_give_an_equal_model() -> None:
    predecessor = trained_like(tiny_config())
    successor = grow(predecessor, tiny_config())
    for name, weight in predecessor.state_dict().items():
        assert torch.equal(weight, successor.state_dict()[name]), name


def test_a_wider_tower_gives_new_embedding_coordinates_the_value_zero() -> None:
    predecessor = trained_like(tiny_config())
    successor = grow(predecessor, tiny_config({"hidden_size": 20}, {"hidden_size": 48}, embedding=17))
    pixels = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    new = successor.get_image_features(pixel_values=pixels).pooler_output[:, 12:]
    assert new.abs().max() < 1e-12
    assert successor.visual_projection.weight[12:].abs().mean() > 1e-2
    assert successor.text_projection.weight[12:].abs().mean() > 1e-2


def test_a_grown_model_grows_again() -> None:
    first = trained_like(tiny_config())
    second = grow(first, tiny_config({"hidden_size": 20}, {"hidden_size": 48, "num_attention_heads": 6}))
    third = grow(second, tiny_config({"hidden_size": 30}, {"hidden_size": 96, "num_attention_heads": 12}))
    assert max(embedding_error(first, third).values()) < EXACT


@few
@given(vision=sizes(VISION, other_image_width), seed=st.integers(0, 2**31))
def test_other_image_widths_stay_close(vision: dict[str, int], seed: int) -> None:
    predecessor = trained_like(tiny_config(), seed)
    errors = embedding_error(predecessor, grow(predecessor, tiny_config(vision=vision), seed=seed))
    assert errors["image"] < 1e-3
    assert errors["text"] == 0


def test_other_image_widths_beat_a_constant_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    predecessor, config = trained_like(tiny_config()), tiny_config(vision={"hidden_size": 36})
    error = embedding_error(predecessor, grow(predecessor, config))["image"]

    def no_gain(self: PaddedBehindNorm, weight: torch.Tensor) -> torch.Tensor:
        return torch.cat([weight, weight.new_zeros(self.extra)]) * self.epsilon_scale**0.5

    monkeypatch.setattr(PaddedBehindNorm, "first_gain", no_gain)
    assert error < 0.02 * embedding_error(predecessor, grow(predecessor, config))["image"]


def test_other_image_widths_report_their_error_and_the_exact_ones(caplog: pytest.LogCaptureFixture) -> None:
    logging.enable_propagation()
    try:
        grow(trained_like(tiny_config()), tiny_config(vision={"hidden_size": 36}))
    finally:
        logging.disable_propagation()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "relative error of" in caplog.text
    assert "hidden_size=48" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_successor_has_the_dtype_of_its_predecessor(dtype: torch.dtype) -> None:
    predecessor = trained_like(tiny_config(), dtype=dtype)
    successor = grow(predecessor, tiny_config({"hidden_size": 20}, {"hidden_size": 48}))
    assert {weight.dtype for weight in successor.parameters()} == {dtype}
    assert max(embedding_error(predecessor, successor).values()) < 20 * torch.finfo(dtype).eps
