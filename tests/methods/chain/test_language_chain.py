"""A chain of language models, from stories to cards: what holds for CLIP holds for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_chain.errors import HfChainError
from hf_chain.methods.chain.planning import check_growth, family_cost, memory_plan
from hf_chain.methods.chain.recipe import ChainRecipe, load_recipe, recipe_class
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import FamilyRecord, read_family
from hf_chain.tasks import find_paradigm
from support.chains import language_values, run_interrupted
from support.recipes import REPOSITORY


def language_recipe(folder: Path, **changes: Any) -> ChainRecipe:
    values = language_values(folder, **changes)
    return recipe_class(values).model_validate(values)


def losses(family: FamilyRecord, member: str) -> list[float]:
    log = json.loads((family.run_dir / family.member(member).folder / "training_log.json").read_text())
    return [entry["loss"] for entry in log if "loss" in entry]


def weights(family: FamilyRecord) -> dict[str, dict[str, torch.Tensor]]:
    return {record.name: load_file(family.run_dir / record.folder / "model.safetensors") for record in family.members}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> FamilyRecord:
    return read_family(run(language_recipe(tmp_path_factory.mktemp("language"))))


def test_members_are_grown_trained_evaluated_and_told_of_as_language_models(family: FamilyRecord) -> None:
    tiny, small, deep = family.members
    assert (tiny.parent, small.parent, deep.parent) == (None, "tiny", "tiny")
    assert small.growth_error["logits"] < 1e-5 and deep.growth_error["logits"] < 1e-5
    for record in family.members:
        (after,) = record.metrics_after.values()
        assert after.keys() == {"nats_per_token", "bits_per_byte"}
        assert after["nats_per_token"] < record.metrics_before["validation"]["nats_per_token"]
        assert record.tokens_per_second > 0 and not record.images_per_second
        card = (family.run_dir / record.folder / "README.md").read_text()
        assert "pipeline_tag: text-generation" in card and "is a language model of the llama family" in card
        assert "Lower is better." in card and "image" not in card.partition("## Citation")[0].replace("images/", "")
    before = small.metrics_before["validation"]["nats_per_token"]
    assert before == pytest.approx(tiny.metrics_after["validation"]["nats_per_token"], abs=1e-4)
    report = (family.run_dir / "report" / "family.md").read_text()
    assert "nats a token" in report and "width × layers" in report and "%)" not in report


def test_the_plan_is_what_the_run_counts(family: FamilyRecord) -> None:
    for row, member in zip(family.plan["members"], family.members, strict=True):
        assert (member.samples, member.training_macs["student"]) == (row["samples"], row["student_macs"])
        assert member.training_macs["teacher"] == row["teacher_macs"]
        assert member.evaluation_macs == row["evaluation_macs"]
        assert member.parameters == row["parameters"]
    planned = family_cost(recipe_class(family.recipe).model_validate(family.recipe)).to_json()
    assert planned == family.plan


def test_members_generate_as_stock_models(family: FamilyRecord) -> None:
    folder = family.run_dir / family.member("small").folder
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    inputs = tokenizer("Anna has a red ball.", return_tensors="pt")
    assert tokenizer.decode(inputs.input_ids[0]) == "Anna has a red ball."
    longer = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert longer.shape[1] == inputs.input_ids.shape[1] + 4


@pytest.mark.slow
def test_an_interrupted_chain_ends_with_the_same_weights(family: FamilyRecord, tmp_path: Path) -> None:
    found = weights(run_interrupted(language_recipe(tmp_path), 5, 4))
    for name, expected in weights(family).items():
        assert all(torch.equal(found[name][key], value) for key, value in expected.items()), name


@pytest.mark.slow
def test_a_cached_teacher_is_the_live_one(family: FamilyRecord, tmp_path: Path) -> None:
    cached = read_family(run(language_recipe(tmp_path, cache_teacher_features=True)))
    for name in ("small", "deep"):
        assert losses(cached, name) == pytest.approx(losses(family, name), rel=1e-5)
    for row, member in zip(cached.plan["members"], cached.members, strict=True):
        assert member.training_macs["teacher"] == row["teacher_macs"]
    assert cached.member("small").training_macs["teacher"] != family.member("small").training_macs["teacher"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "causal_im"}, "task is 'causal_im', which is unknown; did you mean causal_lm"),
        ({"family": "lama"}, "family is 'lama', which is unknown; did you mean llama"),
        ({"family": "vit"}, "task is causal_lm and family is vit, which it does not train"),
        ({"data": {"source": "stories", "row_token": 32}}, "data.row_token is unknown; did you mean row_tokens"),
        ({"training": {"task": "contrastive"}}, "training.task is set by the runner; use `task` of the recipe"),
        ({"training": {"image_token_keep": 0.5}}, "image_token_keep"),
        (
            {"members": [{"name": "a", "hidden_size": 16, "num_hidden_layers": 1, "epochs": 1, "grown_from": "b"}]},
            "members.a.grown_from is 'b', no member before it",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(language_values(tmp_path, **changes)))
    with pytest.raises(HfChainError) as error:
        load_recipe(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ({"hidden_sizes": 16}, "members.tiny.hidden_sizes is no field of LlamaConfig; did you mean hidden_size?"),
        ({"vocab_sise": 9}, "members.tiny.vocab_sise is no field of LlamaConfig; did you mean vocab_size?"),
        ({"hidden_size": 20}, "members.tiny.hidden_size is 20, no multiple of model.head_size 8"),
    ],
    ids=str,
)
def test_sizes_that_make_no_model_are_named(member: dict[str, Any], message: str, tmp_path: Path) -> None:
    first = {"name": "tiny", "hidden_size": 16, "num_hidden_layers": 1, "epochs": 1} | member
    with pytest.raises(HfChainError) as error:
        check_growth(language_recipe(tmp_path, members=[first]))
    assert message in str(error.value)


LANGUAGE = sorted(find_paradigm("causal_lm").families() - {"deepseek_v3"})
"""All but those that cannot grow."""
EXPERTS = {
    "mixtral": {"num_local_experts": 4},
    "gpt_oss": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 16},
}


@pytest.mark.parametrize("family", LANGUAGE)
def test_families_of_all_decoders_are_planned(family: str, tmp_path: Path) -> None:
    values = language_values(tmp_path, family=family)
    members = values["members"][:2]
    values["model"] |= EXPERTS.get(family, {})
    values["data"]["samples_per_epoch"] = 100
    recipe = recipe_class(values).model_validate(values | {"members": members})
    check_growth(recipe)
    (small, large), memory = family_cost(recipe).members, memory_plan(recipe)
    assert small.parameters < large.parameters and small.forward < large.forward
    assert [line.split()[1] for line in memory.splitlines()[2:]] == ["tiny", "small"]


@pytest.mark.parametrize("name", ["llama_60m_1b", "gpt2_family"])
def test_published_recipes_of_language_models_are_planned(name: str) -> None:
    recipe = load_recipe(REPOSITORY / "examples" / "recipes" / f"{name}.yaml")
    check_growth(recipe)
    cost = family_cost(recipe)
    sizes = [member.parameters for member in cost.members]
    assert sizes == sorted(sizes) and cost.family_ratio > 2
