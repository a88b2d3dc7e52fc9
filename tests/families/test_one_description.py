"""One description is all that an architecture takes: I-JEPA, which the library does not know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import IJepaConfig, IJepaModel

from hf_chain.cost.macs import encoder_macs, image_tokens
from hf_chain.errors import HfChainError
from hf_chain.families import FAMILIES
from hf_chain.grafting.export_llava import export_llava
from hf_chain.growth import grow, growth_error
from hf_chain.models.grafted_vlm import from_parts
from hf_chain.trainer.parts import resolve_parts
from support.decoders import tiny_decoder
from support.families import PIXELS
from support.grafted_parts import image_processor, tiny_tokenizer


@pytest.fixture
def ijepa(monkeypatch: pytest.MonkeyPatch) -> IJepaModel:
    """A tiny model, once its family is described: ViT without a class token."""
    (stream,) = FAMILIES["vit"].streams
    monkeypatch.setitem(FAMILIES, "ijepa", replace(FAMILIES["vit"], streams=(replace(stream, class_tokens=0),)))
    torch.manual_seed(0)
    return IJepaModel(IJepaConfig(**PIXELS, initializer_range=0.3)).eval()


def test_it_grows(ijepa: IJepaModel) -> None:
    ijepa.double()
    larger = IJepaConfig(**PIXELS | {"hidden_size": 36, "num_attention_heads": 6, "num_hidden_layers": 3})
    assert max(growth_error(ijepa, grow(ijepa, larger)).values()) < 1e-6


def test_its_cost_is_what_torch_counts(ijepa: IJepaModel) -> None:
    ijepa.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ijepa(pixel_values=torch.zeros(1, 3, 16, 16))
    assert image_tokens(ijepa.config) == 16
    assert 2 * encoder_macs(ijepa.config) == counter.get_total_flops()


def test_it_is_a_tower_with_parts_and_an_export(ijepa: IJepaModel, tmp_path: Path) -> None:
    sizes = PIXELS | {"intermediate_size": 48}
    tower = IJepaModel(IJepaConfig(**sizes, initializer_range=0.3))
    model, processor = from_parts(tower, tiny_decoder("llama"), tiny_tokenizer(), image_processor())
    assert processor.tokens_per_image == 16
    last, norm = resolve_parts(model, ["encoder.last:1", "encoder.post_layernorm"], 1e-4)
    assert last.parameters and all(name.startswith("vision_tower.layers.1.") for name in last.parameters)
    assert list(norm.parameters) == ["vision_tower.layernorm.weight", "vision_tower.layernorm.bias"]
    llava = export_llava(model, processor, tmp_path / "llava")
    assert llava.config.vision_config.num_hidden_layers == 3


def test_without_it_all_of_that_is_refused_in_one_line() -> None:
    tower = IJepaModel(IJepaConfig(**PIXELS))
    for use in (
        lambda: grow(tower, IJepaConfig(**PIXELS)),
        lambda: encoder_macs(tower.config),
        lambda: from_parts(tower, tiny_decoder("llama"), tiny_tokenizer(), image_processor()),
    ):
        with pytest.raises(HfChainError, match="model_type 'ijepa' (is not known|has no description).*add a family"):
            use()
