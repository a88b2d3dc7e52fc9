"""The control of a chain of CLIPs: its first member trained on, from what was delivered."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_chain.errors import HfChainError
from hf_chain.methods.chain.continued import continued
from hf_chain.methods.chain.report.sheet import chain_sheet
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import read_family
from support.command_line import Command
from support.recipes import GLOBAL_BATCH, tiny_recipe, tiny_values, write_recipe


def test_a_chain_of_clips_has_its_control_in_the_report(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, members=2)
    chain = read_family(run(recipe))
    control = read_family(run(continued(recipe)))
    (member,) = control.members
    first, *successors = chain.members
    assert (member.name, member.parent, member.operator) == (first.name, str(chain.run_dir / first.folder), "exact")
    assert member.metrics_before == first.metrics_after and not member.training_macs["teacher"]
    wanted = sum(one.training_macs["total"] for one in successors)
    step = first.training_macs["total"] * GLOBAL_BATCH / first.samples
    assert member.training_macs["total"] == pytest.approx(wanted, abs=step)
    table = chain_sheet(chain.run_dir).files["family.md"]
    assert f"| {first.name}, trained on" in table
    assert f"{first.name}, trained on for as many MACs as its successors cost, reaches" in table


def test_the_command_asks_for_one_control_of_a_chain(tmp_path: Path, hf_chain: Command) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", tiny_values(tmp_path, members=2))
    assert "give one at a time" in hf_chain("run", path, "--continued", "--independent").message
    assert "from which tiny is trained on: run the chain first" in hf_chain("run", path, "--continued").message
    alone = tiny_recipe(tmp_path)
    with pytest.raises(HfChainError, match="has no members that grow"):
        continued(alone.model_copy(update={"members": alone.members[:1]}))
