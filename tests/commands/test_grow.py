"""`hf-chain grow` on models of any family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoTokenizer

from hf_chain.growth import growth_error
from support.command_line import Command
from support.families import ROWS
from support.grafted_parts import tiny_tokenizer


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A tiny Llama with a tokenizer."""
    folder = tmp_path / "llama"
    ROWS["llama"].trained_like(torch.float32).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_language_model_grows_into_a_stock_folder(hf_chain: Command, llama: Path, tmp_path: Path) -> None:
    grown = tmp_path / "grown"
    outcome = hf_chain("grow", llama, grown, "--set", "hidden_size=36", "--set", "num_hidden_layers=3")
    assert outcome.status == 0, outcome.err
    small, large = (AutoModelForCausalLM.from_pretrained(folder) for folder in (llama, grown))
    # Heads keep their size, groups theirs, and the MLP its ratio.
    sizes = [getattr(large.config, name) for name in ("num_attention_heads", "num_key_value_heads", "head_dim")]
    assert sizes == [6, 3, 6] and large.config.intermediate_size == 54
    assert growth_error(small, large)["logits"] < 1e-6
    assert AutoTokenizer.from_pretrained(grown).get_vocab() == AutoTokenizer.from_pretrained(llama).get_vocab()


def test_a_model_of_stages_grows_into_a_stock_folder(hf_chain: Command, tmp_path: Path) -> None:
    small, grown = tmp_path / "small", tmp_path / "grown"
    ROWS["swin, classes"].trained_like(torch.float32).save_pretrained(small)
    outcome = hf_chain("grow", small, grown, "--set", "embed_dim=24", "--set", "depths=[2, 4, 2]")
    assert outcome.status == 0, outcome.err
    before, after = (AutoModelForImageClassification.from_pretrained(folder) for folder in (small, grown))
    assert (after.config.num_heads, after.config.hidden_size, after.config.depths) == ([4, 8, 16], 96, [2, 4, 2])
    assert growth_error(before, after)["logits"] < 1e-6


def test_a_check_says_what_grows_how_and_writes_nothing(hf_chain: Command, llama: Path) -> None:
    before = sorted(llama.parent.iterdir())
    outcome = hf_chain("grow", llama, "--set", "hidden_size=30", "--set", "vocab_size=50", "--check")
    assert outcome.status == 0, outcome.err
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in outcome.out.splitlines() if "|" in line]
    assert ["hidden_size", "24", "30", "zeros are added"] in rows
    assert ["num_attention_heads", "4", "5", "new heads write zeros"] in rows
    assert "relative error of the outputs" in outcome.out
    assert sorted(llama.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "hidden_size=37", "--check"], "hidden_size=37 is not a multiple of the head size 6: choose 42"),
        (["--set", "hidden=48", "--check"], "hidden is no field of the configuration"),
        (["--set", "hidden_size=wide", "--check"], "hidden_size='wide' is of another kind than its present 24"),
        (["--set", "hidden_size", "--check"], "--set 'hidden_size' names no field"),
        (["--set", "hidden_size=18", "--check"], "hidden_size=18 is smaller than the predecessor's 24"),
        (["--set", "num_attention_heads=2", "--check"], "num_attention_heads=2 is smaller than the predecessor's 4"),
        (["--set", "rms_norm_eps=0.1", "--check"], "nothing would grow"),
        (["--check"], "no size is given to grow"),
        (["--set", "hidden_size=48"], "no folder is given for the grown model"),
    ],
)
def test_what_cannot_grow_is_said_in_a_line(hf_chain: Command, llama: Path, arguments: list[str], said: str) -> None:
    outcome = hf_chain("grow", llama, *arguments)
    assert outcome.status == 1 and said in outcome.err.strip().splitlines()[-1]


def test_a_family_that_is_not_described_is_refused(hf_chain: Command, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    outcome = hf_chain("grow", tmp_path, "--set", "hidden_size=48", "--check")
    assert outcome.status == 1 and "model_type 'mamba' has no description of its residual stream" in outcome.err
