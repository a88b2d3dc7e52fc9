"""A shape that growth cannot reach is refused in one line that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from hf_chain.errors import HfChainError
from hf_chain.growth import embedding_error, grow, nearest_exact_config
from support.growth_models import TEXT, VISION, tiny_config, trained_like


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("text", {"vocab_size": 41}, "text_config.vocab_size=41"),
        ("text", {"max_position_embeddings": 9}, "text_config.max_position_embeddings=9"),
        ("text", {"eos_token_id": 5}, "text_config.eos_token_id=5"),
        ("text", {"hidden_act": "gelu"}, "text_config.hidden_act='gelu'"),
        ("vision", {"hidden_act": "gelu"}, "vision_config.hidden_act='gelu'"),
        ("vision", {"image_size": 16}, "vision_config.image_size=16"),
        ("vision", {"patch_size": 2}, "vision_config.patch_size=2"),
        ("vision", {"num_channels": 1}, "vision_config.num_channels=1"),
        ("text", {"hidden_size": 8}, "text_config.hidden_size=8"),
        ("vision", {"hidden_size": 12}, "vision_config.hidden_size=12"),
        ("vision", {"num_hidden_layers": 1}, "vision_config.num_hidden_layers=1"),
        ("vision", {"intermediate_size": 16}, "vision_config.intermediate_size=16"),
        ("vision", {"num_attention_heads": 2}, "vision_config.num_attention_heads=2"),
        ("vision", {"hidden_size": 48, "num_attention_heads": 8}, "use at most 6 heads"),
    ],
)
def test_an_impossible_successor_is_refused(part: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(HfChainError) as error:
        grow(trained_like(tiny_config()), tiny_config(**{part: change}))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "use" in str(error.value)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    config = tiny_config()
    config.vision_config.num_attention_heads = 5
    with pytest.raises(HfChainError, match="num_attention_heads=5: choose a number of heads that divides the width"):
        grow(trained_like(tiny_config()), config)


def test_a_smaller_embedding_is_refused() -> None:
    with pytest.raises(HfChainError, match="projection_dim=10 is smaller than the predecessor's 12"):
        grow(trained_like(tiny_config()), tiny_config(embedding=10))


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(HfChainError, match="operator='exakt' is unknown: use one of exact, copy"):
        grow(trained_like(tiny_config()), tiny_config(), "exakt")


def test_copy_allows_smaller_heads() -> None:
    config = tiny_config(vision={"hidden_size": 48, "num_attention_heads": 8})
    assert grow(trained_like(tiny_config()), config, "copy").config.vision_config.num_attention_heads == 8


@pytest.mark.parametrize(("wished", "nearest"), [(27, 48), (36, 48), (57, 48), (60, 72), (63, 72)])
def test_the_nearest_exact_configuration_is_exact(wished: int, nearest: int) -> None:
    predecessor = trained_like(tiny_config())
    config = tiny_config({"hidden_size": 20}, {"hidden_size": wished, "intermediate_size": 60})
    advised = nearest_exact_config(predecessor.config, config)
    assert advised.vision_config.hidden_size == nearest
    assert advised.vision_config.num_attention_heads == nearest // 8
    assert advised.text_config.to_dict() == config.text_config.to_dict()
    assert max(embedding_error(predecessor, grow(predecessor, advised)).values()) < 1e-9


def test_an_exact_configuration_is_its_own_advice() -> None:
    config = tiny_config(TEXT | {"hidden_size": 22}, VISION | {"hidden_size": 72})
    assert nearest_exact_config(tiny_config(), config).to_dict() == config.to_dict()
