"""Whether weights are finite is found in files and in models, whatever their type."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hf_chain.errors import HfChainError
from hf_chain.loaded_weights import first_not_finite, is_finite, require_finite
from support.grafted_parts import tiny_tower

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_found(dtype: torch.dtype, value: float) -> None:
    tensor = torch.ones(5, 7)
    assert is_finite(tensor.to(dtype))
    tensor[3, 2] = value
    assert not is_finite(tensor.to(dtype))


@pytest.mark.parametrize("dtype", [*TYPES, torch.complex64], ids=str)
def test_one_number_is_found_in_any_place_of_a_large_tensor(dtype: torch.dtype) -> None:
    for place in (0, 31, 100, 4096, 9_999):
        tensor = torch.linspace(-1, 1, 10_000)
        tensor[place] = math.nan
        assert not is_finite(tensor.to(dtype)) and not is_finite(tensor.to(dtype).view(100, 100).T), place


def test_infinities_that_cancel_are_found_and_large_finite_numbers_are_taken() -> None:
    assert not is_finite(torch.tensor([math.inf, -math.inf, 1.0]))
    assert is_finite(torch.full((4,), torch.finfo(torch.float32).max))
    assert is_finite(torch.arange(3)) and is_finite(torch.empty(0)) and is_finite(torch.ones(2, device="meta"))


def test_the_weight_of_a_folder_is_named_in_any_shard_and_in_an_adapter_beside_it(tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "model-00002-of-00002.safetensors")
    save_file({"c": torch.ones(2)}, tmp_path / "lora" / "adapter_model.safetensors")
    assert first_not_finite(tmp_path) is None
    save_file({"c": torch.tensor([1.0, math.nan])}, tmp_path / "lora" / "adapter_model.safetensors")
    assert first_not_finite(tmp_path) == "c"
    save_file({"c": torch.ones(2)}, tmp_path / "lora" / "adapter_model.safetensors")
    save_file({"b": torch.tensor([math.inf])}, tmp_path / "model-00002-of-00002.safetensors")
    assert first_not_finite(tmp_path) == "b"


def test_a_model_with_one_is_refused_in_one_line() -> None:
    model = tiny_tower("clip_vision_model")
    require_finite(model, "mine")
    name = next(name for name, _ in model.named_parameters() if name.endswith("fc1.bias"))
    model.get_parameter(name).data[0] = math.nan
    with pytest.raises(HfChainError, match=r"fc1\.bias of mine holds NaN or infinity: .* finite weights$"):
        require_finite(model, "mine")
