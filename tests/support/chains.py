"""Chains in tests: what they ended with, and chains that were stopped on the way."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from hf_chain.methods.chain.recipe import ChainRecipe
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import FamilyRecord, read_family
from hf_chain.trainer import ChainTrainer
from support.stops import interrupt


def weights_of(family: FamilyRecord, member: str = "small") -> dict[str, torch.Tensor]:
    """The saved weights of a member."""
    return load_file(family.run_dir / family.member(member).folder / "model.safetensors")


def run_interrupted(recipe: ChainRecipe, *steps: int) -> FamilyRecord:
    """Runs a chain that is stopped at each of these steps of whichever member is trained, and goes on to its end."""
    for step in steps:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt(patch, ChainTrainer, step=step)
            run(recipe)
    return read_family(run(recipe))
