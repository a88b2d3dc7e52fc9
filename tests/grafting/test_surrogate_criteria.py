"""A surrogate is cut where a criterion says, in one call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import hf_chain
from hf_chain.errors import HfChainError
from hf_chain.grafting.criteria import choose_ranges
from hf_chain.grafting.cut import CHOOSING
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.ranges import Budget, LayerRange
from hf_chain.grafting.trajectory import Trajectory, measure_trajectory
from hf_chain.grafting.translator.least_squares import closed_form
from support.decoders import some_tokens, tiny_decoder

LAYERS = 8
TEXT = [
    {"input_ids": (tokens := some_tokens(4, 12, seed)), "attention_mask": torch.ones_like(tokens)} for seed in (0, 1)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target on disk."""
    folder = tmp_path_factory.mktemp("target")
    tiny_decoder("llama").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("criterion", ["two_segment", "block_influence"])
def test_a_folder_is_cut_where_its_trajectory_says(folder: Path, tmp_path: Path, criterion: str) -> None:
    output, budget = tmp_path / "surrogate", Budget(layers=5)
    surrogate = hf_chain.build_surrogate(folder, criterion, text=TEXT, budget=budget, output_dir=output)
    trajectory = measure_trajectory(AutoModelForCausalLM.from_pretrained(folder), TEXT)
    lineage = read_lineage(surrogate.config)
    assert lineage is not None and lineage.replaced == choose_ranges(trajectory, criterion, budget=budget)
    assert surrogate.config.num_hidden_layers <= 5
    written = Trajectory.from_json((output / "trajectory.json").read_text())
    assert written.prediction_distance == pytest.approx(trajectory.prediction_distance)
    assert (output / "trajectory.png").exists() and (output / "trajectory.md").exists()
    assert AutoModelForCausalLM.from_pretrained(output).num_parameters() == surrogate.num_parameters()


def test_the_range_of_a_size_that_a_translator_bridges_best_is_cut() -> None:
    target = tiny_decoder("llama")
    surrogate = hf_chain.build_surrogate(target, "splice_error", text=TEXT, budget=Budget(layers=LAYERS - 2))
    errors = {}
    for first in range(LAYERS - 3):
        span = LayerRange(first, first + 2)
        (fit,) = closed_form(hf_chain.build_surrogate(target, span), target, TEXT)
        errors[span] = fit.error_after
    lineage = read_lineage(surrogate.config)
    assert lineage is not None and lineage.replaced == (min(errors, key=lambda span: errors[span]),)


def test_what_cannot_be_chosen_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    def refused(message: str, replaced: str, **options: object) -> None:
        with pytest.raises(HfChainError, match=message):
            hf_chain.build_surrogate(folder, replaced, output_dir=tmp_path / "surrogate", **options)
        assert not (tmp_path / "surrogate").exists()

    refused("two_segment measures the target: give text", "two_segment")
    refused("text and budget are for criteria, and layers 3-6 are named", "3-6", text=TEXT)
    refused("text and budget are for criteria, and layers 3-6 are named", "3-6", budget=Budget(layers=5))
    refused("block_influence compares ranges of one size: give a budget", "block_influence", text=TEXT)
    refused("budget is 'layers=5': give a Budget, such as", "two_segment", text=TEXT, budget="layers=5")
    refused("no range of the target's 8 layers leaves 1 layers", "two_segment", text=TEXT, budget=Budget(layers=1))
    refused(f"or one of {', '.join(CHOOSING)}", "two segments", text=None)
    budget = Budget(layers=5)
    refused("text can be read only once", "splice_error", text=iter(TEXT), budget=budget)
    refused("text is a dict: give a list of batches", "two_segment", text=TEXT[0])
    refused("a str is no batch of text", "two_segment", text=["a red circle"])
    foreign = [TEXT[0] | {"input_ids": TEXT[0]["input_ids"] + 100}]
    refused(
        "the text holds token 1[0-9]+, and .* has 48: make it with the model's own tokenizer",
        "two_segment",
        text=foreign,
    )


def test_what_cannot_be_chosen_is_refused_before_the_target_is_loaded(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"cannot be loaded")
    for criterion, budget, message in (
        ("block_influence", None, "block_influence compares ranges of one size"),
        ("two_segment", Budget(layers=1), "no range of the target's 8 layers leaves 1 layers"),
        ("two_segment", Budget(parameters=10), "no range of the target's 8 layers leaves 10 parameters"),
    ):
        with pytest.raises(HfChainError, match=message):
            hf_chain.build_surrogate(tmp_path, criterion, text=TEXT, budget=budget)


def test_text_without_a_mask_has_no_padding() -> None:
    target = tiny_decoder("llama")
    plain = [{"input_ids": batch["input_ids"]} for batch in TEXT]
    assert measure_trajectory(target, plain) == measure_trajectory(target, TEXT)
