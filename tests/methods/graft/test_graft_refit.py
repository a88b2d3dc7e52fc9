"""Rounds on the surrogate: the translator fitted again, LoRA, what the graft carries along, and what is planned."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from hf_chain.commands.graft import graft_folder
from hf_chain.grafting.trained_layers import carry_layers
from hf_chain.methods.graft.plan import GraftPlan
from hf_chain.methods.graft.recipe import GraftRecipe, load_graft_recipe
from hf_chain.methods.graft.record import graft_record
from hf_chain.models.grafted_vlm import GraftedVLMForConditionalGeneration
from hf_chain.runs.ledger import read_family
from support.graft_recipes import given_graft_values, planned_then_run
from support.recipes import write_recipe

pytestmark = pytest.mark.slow
PROMPTS = 20
ADAPTER = {"name": "adapter", "decoder": "surrogate", "parts": {"adapter": 1e-3}, "epochs": 0.5}


def recipe_in(folder: Path) -> GraftRecipe:
    """Adapter, two translators with LoRA between them, a larger surrogate, and graft, on models that exist."""
    values = given_graft_values(
        folder,
        stages=[
            ADAPTER,
            {"name": "translator", "decoder": "surrogate", "refit": PROMPTS},
            {**ADAPTER, "name": "encoder", "parts": {"adapter": 1e-3, "lora": 1e-2}, "training": {"lora": {"r": 2}}},
            {"name": "translator-2", "decoder": "surrogate", "refit": PROMPTS},
            {"name": "larger", "decoder": "surrogate", "refit": PROMPTS, "replaced": "3-4"},
            {"name": "graft", "decoder": "target"},
        ],
    )
    return load_graft_recipe(write_recipe(folder / "recipe.yaml", values))


@pytest.fixture(scope="module")
def planned_and_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[GraftPlan, Path]:
    """The plan, made before the run, and the folder of the run."""
    return planned_then_run(tmp_path_factory.mktemp("refit"), recipe_in)


def weights(run_dir: Path, folder: str) -> dict[str, torch.Tensor]:
    """The weights in the folder of a stage."""
    return load_file(run_dir / folder / "model.safetensors")


@pytest.mark.parametrize("stages", [("02-adapter", "03-translator"), ("04-encoder", "05-translator-2")])
def test_nothing_but_the_translator_changes(planned_and_run: tuple[GraftPlan, Path], stages: tuple[str, str]) -> None:
    before, after = (weights(planned_and_run[1], name) for name in stages)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    layer = "language_model.model.layers.2."
    assert changed == {layer + "mlp.down_proj.weight", layer + "self_attn.o_proj.weight"}


def test_the_next_stage_goes_on_from_it(planned_and_run: tuple[GraftPlan, Path]) -> None:
    """With the fitted translator as it is: LoRA leaves it alone."""
    fitted, next_stage = (weights(planned_and_run[1], name) for name in ("03-translator", "04-encoder"))
    translator = [name for name in fitted if name.startswith("language_model.model.layers.2.")]
    assert translator and all(torch.equal(next_stage[name], fitted[name]) for name in translator)


def test_the_graft_carries_layers_along_that_were_trained_on_the_surrogate(
    planned_and_run: tuple[GraftPlan, Path], tmp_path: Path
) -> None:
    """Layers 0, 1 and 5 of the target are 0, 1 and 3 of the surrogate, and no others differ from the target's."""
    _, run_dir = planned_and_run
    grafted, surrogate = weights(run_dir, "07-graft"), weights(run_dir, "05-translator-2")
    target = AutoModelForCausalLM.from_pretrained(run_dir.parents[1] / "target").state_dict()
    changed = {name for name, value in target.items() if not torch.equal(grafted[f"language_model.{name}"], value)}
    linear = [name for name in target if name.endswith("_proj.weight")]
    assert changed == {name for name in linear if name.split(".")[2] in ("0", "1", "5")}
    for name in changed:
        own = name.replace(".5.", ".3.")
        assert torch.equal(grafted[f"language_model.{name}"], surrogate[f"language_model.{own}"])
    for name in ("04-encoder", "07-graft"):
        assert "Of the target, layers 0, 1, 5 were trained on" in (run_dir / name / "README.md").read_text()
    said = graft_folder(str(run_dir / "05-translator-2"), str(run_dir.parents[1] / "target"), tmp_path / "again")
    assert said.endswith("target, with layers 0, 1, 5 as they were trained on its surrogate")
    by_command = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(by_command[name], value) for name, value in grafted.items())


def test_a_larger_surrogate_has_more_of_the_target_and_all_that_was_trained(
    planned_and_run: tuple[GraftPlan, Path],
) -> None:
    """Layers 3 and 4 of the target are replaced in place of 2, 3 and 4."""
    plan, run_dir = planned_and_run
    small, large, grafted = (weights(run_dir, name) for name in ("05-translator-2", "06-larger", "07-graft"))
    layers, translator = {0: 0, 1: 1, 2: 2, 3: 3, 4: 5}, "language_model.model.layers.3."
    fitted = {translator + "mlp.down_proj.weight", translator + "self_attn.o_proj.weight"}
    for name, value in large.items():
        of_target = re.sub(r"layers\.(\d+)\.", lambda found: f"layers.{layers[int(found[1])]}.", name)
        assert torch.equal(value, grafted[of_target]) is (name not in fitted), name
    images = [name for name in small if not name.startswith("language_model.")]
    assert images and all(torch.equal(small[name], large[name]) for name in images)
    card = " ".join((run_dir / "06-larger" / "README.md").read_text().split())
    assert "in the form of a larger surrogate than surrogate." in card
    assert "Larger surrogate with layers 3-4 replaced, its translator fitted, by least squares on image" in card
    planned = next(stage for stage in plan.stages if stage.name == "larger")
    record = read_family(run_dir).member("larger")
    assert record.parameters == planned.parameters > read_family(run_dir).member("translator-2").parameters
    assert 0.7 * record.training_macs["total"] < planned.macs < record.training_macs["total"]


def test_a_translator_is_fitted_to_the_target_that_the_graft_will_have(
    planned_and_run: tuple[GraftPlan, Path],
) -> None:
    """It is nearer to that than to the target without what was trained."""
    _, run_dir = planned_and_run
    model = GraftedVLMForConditionalGeneration.from_pretrained(run_dir / "05-translator-2")
    decoder = model.language_model
    embeds = torch.randn(4, 24, 16, generator=torch.Generator().manual_seed(0))
    ends = []
    for carried in (True, False):
        target = AutoModelForCausalLM.from_pretrained(run_dir.parents[1] / "target")
        if carried:
            carry_layers(decoder, target)
        with torch.no_grad():
            states = target(inputs_embeds=embeds, output_hidden_states=True).hidden_states
            mine = decoder(inputs_embeds=embeds, output_hidden_states=True).hidden_states
        ends.append((mine[3] - states[5]).norm().item())
        assert torch.equal(mine[2], states[2]) is carried
    assert ends[0] < ends[1]


def test_it_comes_closer_to_the_target_on_images_and_says_so(planned_and_run: tuple[GraftPlan, Path]) -> None:
    _, run_dir = planned_and_run
    report = json.loads((run_dir / "03-translator" / "translator.json").read_text())
    (fit,) = report["fits"]
    assert fit["error_after"] < fit["error_before"]
    lineage = AutoConfig.from_pretrained(run_dir / "03-translator").text_config.hf_chain_surrogate
    assert lineage["translator_method"] == report["method"] == "closed_form+closed_form"
    card = (run_dir / "03-translator" / "README.md").read_text()
    assert "fitted again, by least squares on image prompts" in card and "plugged into the target" not in card


def test_only_what_a_graft_is_judged_by_is_asked(planned_and_run: tuple[GraftPlan, Path]) -> None:
    plan, run_dir = planned_and_run
    family = read_family(run_dir)
    asked = {record.name for record in family.members if record.metrics_after}
    assert asked == {"larger", "graft"} == {step.name for step in graft_record(family).steps}
    assert {stage.name for stage in plan.stages if stage.evaluation_macs} == asked
    assert not (run_dir / "03-translator" / "answers.json").exists()


def test_its_cost_is_counted_and_planned(planned_and_run: tuple[GraftPlan, Path]) -> None:
    plan, run_dir = planned_and_run
    record = read_family(run_dir).member("translator")
    planned = next(stage for stage in plan.stages if stage.name == "translator")
    assert record.samples == planned.samples == PROMPTS
    # Not planned: the padding of a batch to its longest prompt, which counts squared at this size.
    assert 0.7 * record.training_macs["total"] < planned.macs < record.training_macs["total"]
    assert planned.trained_parameters == 16 * (16 + 32)
    target = 4 * AutoModelForCausalLM.from_pretrained(run_dir.parents[1] / "target").num_parameters()
    larger = GraftedVLMForConditionalGeneration.from_pretrained(run_dir / "06-larger").language_model
    assert planned.memory.teacher == target, "both are in memory while the translator is fitted"
    assert plan.memory["graft"].teacher == 4 * larger.num_parameters(), "and while layers are carried along"
    assert plan.memory["encoder"].teacher == 0


def test_what_trains_for_gradients_is_planned(tmp_path: Path) -> None:
    values = given_graft_values(tmp_path, stages=[ADAPTER, {"name": "graft", "decoder": "target"}])
    values["surrogate"]["translator"] = ["closed_form", "train:gradients"]
    recipe = load_graft_recipe(write_recipe(tmp_path / "recipe.yaml", values))
    plan, run_dir = planned_then_run(tmp_path, lambda _: recipe)
    counted = read_family(run_dir).member("surrogate").training_macs["translator"]
    # Batches are padded, of which the plan knows nothing.
    assert plan.surrogate is not None and 0.65 * counted < plan.surrogate.translator_macs < counted
    report = json.loads((run_dir / "01-surrogate" / "translator.json").read_text())
    (training,) = report["trainings"]
    assert training["objective"] == "gradients" and training["macs"] > counted / 2
