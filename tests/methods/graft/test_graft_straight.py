"""The control of grafts: what is trained on a surrogate, straight on the target."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_chain.commands.report import write_report
from hf_chain.commands.run import RunArguments, launch
from hf_chain.cost import human
from hf_chain.errors import HfChainError
from hf_chain.methods.graft.plan import graft_table
from hf_chain.methods.graft.planning import plan_graft
from hf_chain.methods.graft.recipe import GraftRecipe, load_graft_recipe
from hf_chain.methods.graft.record import graft_record
from hf_chain.methods.graft.straight import SurrogateSaving, straight
from hf_chain.runs.ledger import read_family
from support.graft_recipes import given_graft_values
from support.recipes import write_recipe

ENCODER = {"name": "encoder", "decoder": "surrogate", "parts": {"adapter": 1e-3, "encoder.last:1": 2e-3}}
REFIT = {"name": "again", "decoder": "surrogate", "refit": 8}
TRANSLATOR = {
    "name": "translator",
    "decoder": "surrogate",
    "parts": {"adapter": 1e-3, "translator": 1e-3},
    "data": ["images", "text"],
}
GRAFT = {"name": "graft", "decoder": "target"}
AFTER = {"name": "after", "decoder": "target", "parts": {"decoder": 1e-3}, "epochs": 0.5}


def recipe_of(folder: Path, *stages: dict) -> GraftRecipe:
    """A graft onto a given target of six layers, of which three are replaced."""
    return load_graft_recipe(write_recipe(folder / "recipe.yaml", given_graft_values(folder, list(stages))))


def test_it_trains_the_same_parts_at_the_same_rates_on_the_target(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, TRANSLATOR, REFIT, ENCODER, GRAFT, AFTER)
    control = straight(recipe)
    assert not control.needs_surrogate and control.name == f"{recipe.name}-straight" and not control.baseline
    trained = [(stage.name, stage.decoder, stage.parts, stage.data, stage.epochs) for stage in control.stages]
    assert trained == [
        # Nothing but the translator learns from text.
        ("translator", "target", {"adapter": 1e-3}, ["images"], 1.0),
        ("encoder", "target", ENCODER["parts"], ["images"], 1.0),
        ("after", "target", AFTER["parts"], ["images"], 0.5),
    ]


def test_a_translator_trained_alone_has_nothing_to_compare(tmp_path: Path) -> None:
    alone = {**TRANSLATOR, "parts": {"translator": 1e-3}}
    with pytest.raises(HfChainError, match="tiny trains nothing on a surrogate, which could be trained straight on"):
        straight(recipe_of(tmp_path, alone, GRAFT))


@pytest.mark.slow
def test_the_plan_says_what_the_surrogate_itself_saves(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, ENCODER, GRAFT, AFTER)
    plan, control = plan_graft(recipe), plan_graft(straight(recipe))
    saving = plan.surrogate_saving
    assert saving is not None and not control.straight
    assert [stage.macs for stage in (*plan.straight, plan.stages[-1])] == [stage.macs for stage in control.stages]
    encoder, _, after = plan.stages
    assert saving.straight > encoder.macs and saving.after == after.macs
    cut = plan.surrogate.cut_macs + plan.surrogate.translator_macs if plan.surrogate else 0
    assert saving.graft == cut + encoder.macs + after.macs
    assert plan.to_json()["surrogate_saving"]["share"] == pytest.approx(
        1 - (cut + encoder.macs + after.macs) / (plan.straight[0].macs + after.macs)
    )
    said = graft_table(plan)
    assert said.index("straight on the target, without a surrogate") < said.index("There is no baseline")


def test_the_saving_is_said_with_and_without_what_follows_and_advised_against() -> None:
    straight_macs, after = 1_000_000, 500_000
    first, second = SurrogateSaving(600_000, straight_macs, after).sentences()
    assert "cost 1.5M MACs of training, with it 600K: 60.0 % less." in first
    assert "it is 1M: then the graft costs 40.0 % less." in second
    *_, advice = SurrogateSaving(1_200_000, straight_macs, after).sentences()
    assert advice.startswith("A surrogate hardly pays here:")
    (only,) = SurrogateSaving(700_000, straight_macs, 0).sentences()
    assert only.endswith("with it 700K: 30.0 % less.")


@pytest.mark.slow
def test_it_runs_by_a_flag(tmp_path: Path) -> None:
    values = given_graft_values(tmp_path, [ENCODER, GRAFT])
    path = str(write_recipe(tmp_path / "recipe.yaml", values))
    graft = launch(RunArguments(path))
    assert "was not measured: hf-chain run with --straight" in (graft / "report" / "graft.md").read_text()
    run_dir = launch(RunArguments(path, straight=True))
    family = read_family(run_dir)
    assert run_dir.name == "tiny-straight" and [member.name for member in family.members] == ["encoder"]
    assert (run_dir / "01-encoder" / "model.safetensors").is_file()
    write_report(graft)
    told = (graft / "report" / "graft.md").read_text()
    assert "| the same parts straight on the target |" in told
    cost = {
        name: graft_record(read_family(folder)).steps[-1].spent for name, folder in (("ours", graft), ("it", run_dir))
    }
    (line,) = [line for line in told.splitlines() if "Without a surrogate, the same parts" in line]
    assert f"for {human(cost['it'])} MACs" in line and f"for {human(cost['ours'])}:" in line
    with pytest.raises(HfChainError, match="--continued and --straight are two controls: give one at a time"):
        launch(RunArguments(path, continued=True, straight=True))
