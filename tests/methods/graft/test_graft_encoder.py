"""A run keeps the encoder that it began with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hf_chain.errors import HfChainError
from hf_chain.methods.graft.encoder_source import finished_encoder, member_of_chain
from hf_chain.methods.graft.recipe import load_graft_recipe
from hf_chain.runs.ledger import Ledger
from support.graft_recipes import tiny_graft_values
from support.recipes import write_recipe
from support.report_runs import write_run


def test_a_chain_that_grows_meanwhile_changes_no_run(tmp_path: Path) -> None:
    recipe = load_graft_recipe(write_recipe(tmp_path / "graft.yaml", tiny_graft_values(tmp_path)))
    assert finished_encoder(recipe) is None
    runs = Path(recipe.output_dir)
    first = write_run(runs / "chain-first", members=("tiny",)) / "01-tiny"
    assert finished_encoder(recipe) == str(first)
    noted = member_of_chain(recipe, str(first))
    Ledger(recipe.run_dir).append("run_started", recipe={}, plan={}, environment={}, encoder=noted)
    largest = write_run(runs / "chain") / "03-base"
    assert finished_encoder(recipe) == str(first)
    assert finished_encoder(recipe.model_copy(update={"name": "another"})) == str(largest)
    shutil.rmtree(first)
    with pytest.raises(HfChainError, match=r"tiny was begun with the encoder .*01-tiny, which is gone: restore it"):
        finished_encoder(recipe)
