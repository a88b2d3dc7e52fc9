"""Chains that grow from trunks: what is delivered has decayed, what is handed on has not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hf_chain.errors import HfChainError
from hf_chain.methods.chain.comparison.compare import compare
from hf_chain.methods.chain.continued import continued
from hf_chain.methods.chain.recipe import ChainRecipe, recipe_class
from hf_chain.methods.chain.report.summary import summarize
from hf_chain.methods.chain.report.tables import metrics_table, sentences
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import FamilyRecord, read_family
from hf_chain.trainer import ChainTrainer
from hf_chain.trainer.trunk import STATE_NAME, mean_of
from support.chains import language_values, run_interrupted, weights_of
from support.stops import interrupt

MEMBERS = [
    {"name": "tiny", "hidden_size": 16, "num_hidden_layers": 1, "epochs": 0.3},
    {"name": "small", "hidden_size": 32, "num_hidden_layers": 2, "epochs": 0.2},
    {"name": "longer", "hidden_size": 32, "num_hidden_layers": 2, "epochs": 0.2},
]


def trunk_recipe(folder: Path, training: dict[str, Any] | None = None, **changes: Any) -> ChainRecipe:
    """Two Llamas, and the second trained on, each delivered by a decay over the last quarter of its steps."""
    values = language_values(folder, members=MEMBERS) | changes
    values["training"] = values["training"] | {"trunk_decay": 0.25} | (training or {})
    return recipe_class(values).model_validate(values)


def trunk_of(family: FamilyRecord, member: str) -> Path:
    return family.run_dir / "trunks" / family.member(member).folder


def rates(family: FamilyRecord, member: str) -> list[float]:
    log = json.loads((family.run_dir / family.member(member).folder / "training_log.json").read_text())
    return [entry["learning_rate"] for entry in log if "learning_rate" in entry]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> FamilyRecord:
    return read_family(run(trunk_recipe(tmp_path_factory.mktemp("trunk"))))


def test_the_rate_is_stable_on_the_trunk_and_falls_to_zero_in_the_branch(family: FamilyRecord) -> None:
    for member in family.members:
        found, trunk = rates(family, member.name), member.trunk["steps"]
        steps = member.samples // 16
        assert len(found) == steps and trunk == steps - round(steps / 4)
        assert found[: trunk + 1] == [1e-2] * (trunk + 1)
        falling = [1e-2 * (steps - step) / (steps - trunk) for step in range(trunk + 1, steps)]
        assert found[trunk + 1 :] == pytest.approx(falling)
        assert member.trunk["samples"] == 16 * trunk
        share = member.trunk["training_macs"] / member.training_macs["total"]
        assert share == pytest.approx(trunk / steps, abs=1e-3) or member.training_macs["teacher"]


def test_successors_grow_from_trunks_and_a_member_of_the_same_size_goes_on(family: FamilyRecord) -> None:
    for before, after in zip(family.members, family.members[1:], strict=False):
        trunk = AutoModelForCausalLM.from_pretrained(trunk_of(family, before.name))
        delivered = AutoModelForCausalLM.from_pretrained(family.run_dir / before.folder)
        assert not torch.equal(trunk.lm_head.weight, delivered.lm_head.weight)
        assert after.growth_error["logits"] < 1e-5
        # The delivered one is better than what it was before its rate fell, and that is where its successor begins.
        began = after.metrics_before["validation"]["nats_per_token"]
        assert began > before.metrics_after["validation"]["nats_per_token"] + 1e-3


def test_the_state_of_the_optimizer_goes_on(family: FamilyRecord, tmp_path: Path) -> None:
    first, longer = (load_file(trunk_of(family, name) / STATE_NAME) for name in ("small", "longer"))
    steps = {name: family.member(name).trunk["steps"] for name in ("tiny", "small", "longer")}
    key = "model.layers.0.mlp.up_proj.weight:step"
    assert first[key] == steps["tiny"] + steps["small"] and longer[key] == first[key] + steps["longer"]
    # A block that was put in began with none.
    assert first["model.layers.1.mlp.up_proj.weight:step"] in (first[key], steps["small"])
    fresh = read_family(run(trunk_recipe(tmp_path, optimizer_state=False)))
    assert load_file(trunk_of(fresh, "small") / STATE_NAME)[key] == steps["small"]
    losses = [record.member("small").metrics_after["validation"]["nats_per_token"] for record in (family, fresh)]
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_an_interrupted_chain_ends_with_the_same_weights_and_trunks(family: FamilyRecord, tmp_path: Path) -> None:
    steps = family.member("tiny").trunk["steps"]
    found = run_interrupted(trunk_recipe(tmp_path), steps - 1, steps + 1, 2)
    for name in ("tiny", "small", "longer"):
        for key, expected in weights_of(family, name).items():
            assert torch.equal(weights_of(found, name)[key], expected), (name, key)
        before, after = (load_file(trunk_of(record, name) / STATE_NAME) for record in (family, found))
        assert all(torch.equal(after[key], value) for key, value in before.items()), name
        assert family.member(name).trunk["training_macs"] == found.member(name).trunk["training_macs"]


def test_the_mean_of_states_is_delivered_instead_of_a_decay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[dict[str, torch.Tensor]] = []

    def seen(files: list[Path]) -> dict[str, torch.Tensor]:
        kept.extend(load_file(file) for file in files)
        return mean_of(files)

    monkeypatch.setattr("hf_chain.trainer.trunk.mean_of", seen)
    family = read_family(run(trunk_recipe(tmp_path, {"trunk_merge": 3}, members=MEMBERS[:1])))
    found, steps = weights_of(family, "tiny"), family.member("tiny").samples // 16
    assert family.member("tiny").trunk["steps"] == steps and set(rates(family, "tiny")) == {1e-2}
    assert len(kept) == 3
    for name, weight in found.items():
        expected = sum(state[name].double() for state in kept) / 3
        torch.testing.assert_close(weight, expected.float())
    last = load_file(trunk_of(family, "tiny") / "model.safetensors")
    assert all(torch.equal(weight, kept[-1][name]) for name, weight in last.items())
    assert not list((family.run_dir / "trunks").glob(".*"))


def test_the_first_member_trained_on_is_the_control(family: FamilyRecord, tmp_path: Path) -> None:
    recipe = trunk_recipe(tmp_path, members=MEMBERS[:2])
    with pytest.raises(HfChainError, match="tiny/trunks/01-tiny is not there, from which tiny is trained on"):
        continued(recipe)
    chain = read_family(run(recipe))
    assert any(
        "was not measured: hf-chain run with --continued" in line for line in sentences(summarize(chain.run_dir))
    )
    control = read_family(run(continued(recipe)))
    (member,) = control.members
    assert (control.run_dir.name, member.parent) == ("tiny-continued", str(chain.run_dir / "trunks/01-tiny"))
    # To a step, for as many MACs, at the rate that was running and with the optimizer's state.
    step = 16 * 3 * member.macs_per_sample
    assert abs(member.training_macs["total"] - chain.member("small").training_macs["total"]) <= step
    assert rates(control, "tiny")[0] == 1e-2
    key = "model.layers.0.mlp.up_proj.weight:step"
    steps = [read_state_of(record)[key] for record in (chain, control)]
    assert steps[1] == steps[0] + member.trunk["steps"]
    found = summarize(chain.run_dir)
    ours, theirs = (record.metrics_after["validation"]["nats_per_token"] for record in (chain.members[1], member))
    (line,) = [line for line in sentences(found) if "trained on for as many MACs" in line]
    assert f"reaches {theirs:.3f}" in line and ("is ahead of" in line) == (ours < theirs)
    assert metrics_table(found, "validation")[1][2][0] == "tiny, trained on"
    (verdict,) = compare([chain.run_dir, control.run_dir]).chains
    assert verdict.members[-1].name == "small"


def read_state_of(family: FamilyRecord) -> dict[str, torch.Tensor]:
    return load_file(trunk_of(family, "tiny") / STATE_NAME)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"trunk_decay": 1.0}, "trunk_decay=1.0 must be above 0 and below 1"),
        ({"trunk_decay": None, "trunk_merge": 3}, "trunk_merge=3 merges states over the share trunk_decay"),
        ({"new_weights_warmup": 1.0}, "new_weights_warmup=1.0 must be at least 0 and below 1"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(training: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((HfChainError, ValueError), match=message):
        trunk_recipe(tmp_path, training)


def test_a_training_without_a_step_for_its_trunk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="which leaves no trunk"):
        run(trunk_recipe(tmp_path, members=[MEMBERS[0] | {"epochs": 0.004}]))


def test_a_trunk_that_has_changed_is_refused(family: FamilyRecord, tmp_path: Path) -> None:
    recipe = trunk_recipe(tmp_path, members=[MEMBERS[0] | {"epochs": 0.1}, MEMBERS[1]])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        # The first member has fewer steps.
        interrupt(patch, ChainTrainer, step=5)
        run(recipe)
    (recipe.run_dir / "trunks/01-tiny/model.safetensors").write_bytes(b"")
    with pytest.raises(HfChainError, match=r"trunks/01-tiny is damaged \(model.safetensors has 0 bytes"):
        run(recipe)
