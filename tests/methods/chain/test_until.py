"""Members that are trained until something is reached: when they stop, what it costs, and that kills do nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_chain.errors import HfChainError
from hf_chain.methods.chain.member import MemberStage
from hf_chain.methods.chain.planning import family_cost
from hf_chain.methods.chain.recipe import ChainRecipe, recipe_class
from hf_chain.methods.chain.report.summary import summarize
from hf_chain.methods.chain.report.tables import sentences
from hf_chain.methods.chain.runner import run
from hf_chain.methods.chain.stopping import StopWhenReached
from hf_chain.methods.chain.until import Goal, UntilSettings
from hf_chain.runs.ledger import FamilyRecord, Ledger, MemberRecord, read_family
from hf_chain.runs.recipe_file import validated
from hf_chain.trainer import ChainTrainer
from support.chains import language_values, weights_of
from support.stops import interrupt

TINY = {"name": "tiny", "hidden_size": 16, "num_hidden_layers": 1, "epochs": 0.5}
SMALL = {"name": "small", "hidden_size": 32, "num_hidden_layers": 2, "epochs": 0.5}
NEVER = {"target": 0.1, "every": 0.2, "max_samples": 20}
TRUNK = {"trunk_decay": 0.25}


def until_recipe(folder: Path, *members: dict[str, Any], **changes: Any) -> ChainRecipe:
    """Llamas on stories, of which each says what it is trained until."""
    training = language_values(folder)["training"] | changes.pop("training", {})
    values = language_values(folder, members=list(members), training=training, **changes)
    return validated(recipe_class(values), values, "recipe")


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


def curve_of(member: MemberRecord) -> dict[int, float]:
    return {point["step"]: point["metrics"]["nats_per_token"] for point in member.curve}


def between(curve: dict[int, float], place: int) -> tuple[int, float]:
    """A step, and a target that is reached there and not before."""
    steps = sorted(curve)
    before, step = steps[place - 1 : place + 1]
    assert all(curve[step] < curve[earlier] for earlier in steps[:place])
    return step, (min(curve[earlier] for earlier in steps[:place]) + curve[step]) / 2


@pytest.fixture(scope="module")
def capped(tmp_path_factory: pytest.TempPathFactory) -> FamilyRecord:
    """Trained to its end, as its target is out of reach."""
    return read_family(run(until_recipe(tmp_path_factory.mktemp("capped"), TINY | {"until": NEVER})))


@pytest.fixture(scope="module")
def trunked(tmp_path_factory: pytest.TempPathFactory) -> FamilyRecord:
    """The same with a trunk."""
    recipe = until_recipe(tmp_path_factory.mktemp("trunked"), TINY | {"until": NEVER}, training=TRUNK)
    return read_family(run(recipe))


def test_a_member_that_does_not_get_there_is_trained_to_its_end_and_said_so(
    capped: FamilyRecord, tmp_path: Path
) -> None:
    (member,), (row,) = capped.members, capped.plan["members"]
    cap = member.samples // 16
    assert sorted(curve_of(member)) == [round(share * cap / 5) for share in range(1, 6)]
    assert member.stopped == {"why": "cap", "step": cap, "steps": cap, "cap": cap}
    assert member.evaluation_macs == row["evaluation_macs"] and member.until_macs == row["until_macs"] > 0
    assert member.training_macs["total"] == row["training_macs"] == member.curve[-1]["training_macs"]
    assert member.curve[-1]["samples"] == member.samples
    # It cost evaluations, and changed nothing.
    plain = read_family(run(until_recipe(tmp_path, TINY)))
    assert plain.members[0].evaluation_macs == member.evaluation_macs - member.until_macs
    assert all(torch.equal(value, weights_of(capped, "tiny")[key]) for key, value in weights_of(plain, "tiny").items())
    told = f"tiny was trained for {cap} of at most {cap} steps: nats a token on validation was"
    assert any(
        line.startswith(told) and "0.100 was asked for" in line for line in sentences(summarize(capped.run_dir))
    )
    assert told in (capped.run_dir / member.folder / "README.md").read_text()


def test_it_stops_at_the_first_evaluation_that_reaches_its_target(capped: FamilyRecord, tmp_path: Path) -> None:
    step, target = between(curve_of(capped.members[0]), 2)
    family = read_family(run(until_recipe(tmp_path, TINY | {"until": NEVER | {"target": target}})))
    (member,) = family.members
    assert curve_of(member) == {at: value for at, value in curve_of(capped.members[0]).items() if at <= step}
    assert member.stopped == {"why": "reached", "step": step, "steps": step, "cap": capped.members[0].samples // 16}
    assert member.samples == 16 * step and member.epochs == pytest.approx(0.5 * 0.6, abs=0.02)
    assert member.training_macs["total"] == member.curve[-1]["training_macs"]
    assert family.plan["members"][0]["training_macs"] == capped.plan["members"][0]["training_macs"]


def test_patience(capped: FamilyRecord, tmp_path: Path) -> None:
    # A rate at which nothing is learnt.
    until = NEVER | {"patience": 2}
    recipe = until_recipe(tmp_path, TINY | {"until": until}, training={"learning_rate": 1e-30})
    (member,) = read_family(run(recipe)).members
    assert (member.stopped["why"], len(member.curve)) == ("patience", 3)
    assert "had not become better in 2 evaluations" in (recipe.run_dir / member.folder / "README.md").read_text()


def test_patience_counts_from_the_best() -> None:
    goal = Goal("nats_per_token", "validation", 1.0, patience=2)

    def verdict(*values: float) -> str | None:
        return goal.verdict([{"metrics": {"nats_per_token": value}} for value in values])

    assert verdict(3.0, 3.1) is None and verdict(3.0, 3.1, 2.9, 3.0) is None
    assert verdict(3.0, 3.0, 3.0) == verdict(3.0, 2.9, 3.1, 2.9) == "patience"
    assert verdict(3.0, 1.0) == verdict(3.0, 3.1, 0.9) == "reached" and verdict() is None
    assert Goal("top1", "validation", 0.5).verdict([{"metrics": {"top1": 0.4}}]) is None
    assert Goal("top1", "validation", 0.5).verdict([{"metrics": {"top1": 0.5}}]) == "reached"


def test_with_a_trunk_the_branch_begins_there(trunked: FamilyRecord, tmp_path: Path) -> None:
    (long,) = trunked.members
    assert max(curve_of(long)) == long.trunk["steps"] == long.samples // 16 - round(long.samples // 16 / 4)
    step, target = between(curve_of(long), 1)
    recipe = until_recipe(
        tmp_path, TINY | {"until": NEVER | {"target": target}}, SMALL | {"epochs": 0.1}, training=TRUNK
    )
    family = read_family(run(recipe))
    tiny, small = family.members
    done = tiny.samples // 16
    assert tiny.stopped["step"] == tiny.trunk["steps"] == step and done == step + round(step / 3)
    assert tiny.trunk["training_macs"] == tiny.curve[-1]["training_macs"]
    log = json.loads((family.run_dir / tiny.folder / "training_log.json").read_text())
    rates = [entry["learning_rate"] for entry in log if "learning_rate" in entry]
    assert rates[: step + 1] == [1e-2] * (step + 1)
    assert rates[step + 1 :] == pytest.approx([1e-2 * (done - at) / (done - step) for at in range(step + 1, done)])
    # What is handed on is what was measured.
    assert small.growth_error["logits"] < 1e-5 and not small.stopped
    assert small.metrics_before["validation"]["nats_per_token"] > tiny.metrics_after["validation"]["nats_per_token"]


@pytest.mark.parametrize("training", [{}, TRUNK], ids=["plain", "trunk"])
def test_killed_at_any_step_it_ends_the_same(
    training: dict[str, Any], capped: FamilyRecord, trunked: FamilyRecord, tmp_path: Path
) -> None:
    step, target = between(curve_of((trunked if training else capped).members[0]), 1)
    members = [TINY | {"until": NEVER | {"target": target, "patience": 4}}]
    # Plain training has a checkpoint of the step before the decision, one with a trunk of the decision as well.
    training = training | {"save_steps": 1 if training else 2}
    whole = read_family(run(until_recipe(tmp_path / "whole", *members, training=training)))
    last = whole.members[0].stopped["steps"]
    assert whole.members[0].stopped["step"] == step
    stops = sorted({1, step - 1, step, min(step + 1, last), last})
    recipe = until_recipe(tmp_path / "killed", *members, training=training)
    for stop in [*stops, None]:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            if stop is None:
                # After the last checkpoint, before anything is saved.
                patch.setattr(MemberStage, "_save", _killed)
            else:
                interrupt(patch, ChainTrainer, step=stop)
            run(recipe)
    found = read_family(run(recipe))
    ours, theirs = whole.members[0], found.members[0]
    for field in ("curve", "stopped", "samples", "epochs", "training_macs", "evaluation_macs", "metrics_after"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert ours.trunk == theirs.trunk
    for key, value in weights_of(whole, "tiny").items():
        assert torch.equal(weights_of(found, "tiny")[key], value), key
    measured = [entry["step"] for entry in Ledger(found.run_dir).entries() if entry["event"] == "measured"]
    assert sorted(measured) == sorted(set(measured))


def test_margin_and_curve_take_their_targets_from_ledgers(capped: FamilyRecord, tmp_path: Path) -> None:
    twin = read_family(run(until_recipe(tmp_path / "twin", SMALL | {"epochs": 0.2})))
    margin = {"margin": 0.01, "every": 0.3}
    curve = {"curve": str(twin.run_dir), "every": 0.3}
    first = TINY | {"epochs": 0.2}
    members = [first, SMALL | {"until": margin}, SMALL | {"name": "other", "grown_from": "tiny", "until": curve}]
    tiny, small, other = read_family(run(until_recipe(tmp_path, *members))).members
    delivered = tiny.metrics_after["validation"]["nats_per_token"]
    assert small.until["target"] == delivered - 0.01 and not tiny.until
    # The model in training is what it will be when it is loaded.
    assert small.curve[-1]["metrics"] == small.metrics_after["validation"]
    assert small.stopped["why"] == "reached" and curve_of(small)[small.stopped["step"]] <= delivered - 0.01
    assert other.until["target"] == twin.members[0].metrics_after["validation"]["nats_per_token"]
    assert other.stopped["why"] == "reached" and other.stopped["steps"] < other.stopped["cap"]
    lines = "\n".join(sentences(summarize(tmp_path / "tiny")))
    assert "(0.01 better than tiny) was asked for" in lines and f"(reached in {twin.run_dir})" in lines


def test_the_time_of_a_training_is_not_that_of_its_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = StopWhenReached.__init__

    def slow(self: StopWhenReached, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        measure = self._measured
        self._measured = lambda: (time.sleep(3), measure())[1]

    monkeypatch.setattr(StopWhenReached, "__init__", slow)
    recipe = until_recipe(tmp_path, TINY | {"epochs": 0.1, "until": {"target": 0.1, "every": 0.9}})
    (member,) = read_family(run(recipe)).members
    # Seconds have one decimal, and a fast machine is done before the first.
    assert len(member.curve) == 1 and member.seconds < 3 and member.tokens_per_second > 0


def test_a_share_of_the_training_stays_one_of_all_its_steps(tmp_path: Path) -> None:
    training = {"feature_loss_weight": 1.0, "feature_loss_until": 0.5}
    members = [TINY | {"epochs": 0.1}, SMALL | {"until": {"target": 9.0, "every": 0.25}}]
    _, small = read_family(run(until_recipe(tmp_path, *members, training=training))).members
    done, cap = small.stopped["steps"], small.stopped["cap"]
    assert done == round(cap / 4)
    planned = read_family(tmp_path / "tiny").plan["members"][1]
    # All steps done had a teacher, where the plan has one in half of them.
    expected = planned["teacher_macs"] * done / -(-cap // 2)
    assert small.training_macs["teacher"] == pytest.approx(expected) and expected > 0


def test_the_plan_says_at_most(tmp_path: Path) -> None:
    cost = family_cost(until_recipe(tmp_path, TINY, SMALL, until=NEVER))
    plain = family_cost(until_recipe(tmp_path, TINY, SMALL))
    assert cost.chain_macs - plain.chain_macs == sum(member.until_macs for member in cost.members) > 0
    assert cost.independent_macs == plain.independent_macs
    baseline = until_recipe(tmp_path, TINY, SMALL | {"until": {"margin": 1.0}}).as_independent()
    assert not any(baseline.until_of(member) for member in baseline.members)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": None}, "members.tiny.until has no target; give one of target, margin, curve"),
        ({"margin": 0.1}, "members.tiny.until has target and margin; give one of target, margin, curve"),
        ({"target": None, "margin": 0.1}, "members.tiny has no predecessor in this run, and until.margin is 0.1"),
        (
            {"target": None, "curve": "runs/x", "max_samples": 5},
            "members.tiny.until.max_samples is 5, and curve is compared with",
        ),
        (
            {"metric": "nats_per_tokn"},
            "members.tiny.until.metric is 'nats_per_tokn', which is unknown; did you mean nats_per_token?",
        ),
        ({"split": "test"}, "members.tiny: until.split is 'test', which is not evaluated; use validation"),
        ({"every": 1.0}, "members.tiny.until.every is 1.0; .* less than 1"),
        ({"every": 0.0}, "members.tiny.until.every is 0.0; .* greater than 0"),
        ({"patience": 0}, "members.tiny.until.patience is 0; .* greater than or equal to 1"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named_as_the_recipe_is_read(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    given = {"target": 1.0} | changes
    until = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(HfChainError, match=message):
        until_recipe(tmp_path, TINY | {"until": until})


def test_states_that_are_merged_are_those_of_the_whole_training(tmp_path: Path) -> None:
    training = TRUNK | {"trunk_merge": 3}
    with pytest.raises(HfChainError, match=r"members.tiny has until, and training.trunk_merge is 3"):
        until_recipe(tmp_path, TINY, until=NEVER, training=training)


def test_what_is_not_measured_is_named_before_anything_is_trained(capped: FamilyRecord, tmp_path: Path) -> None:
    def refused(message: str, member: dict[str, Any] = SMALL, rows: int = 8, **until: Any) -> None:
        data = language_values(tmp_path)["data"]
        data["stories"]["validation"] = rows
        recipe = until_recipe(tmp_path, TINY, member | {"until": until}, name=next(names), data=data)
        with pytest.raises(HfChainError, match=message):
            run(recipe)
        assert not any(entry["event"] == "trained" for entry in Ledger(recipe.run_dir).entries())

    names = iter(("metric", "size", "folder", "data"))

    refused(
        r"members.small: until.metric top1 is not measured on validation: use nats_per_token",
        target=0.5,
        metric="top1",
    )
    refused(
        r"members.small: until.curve is .*, which has no member of .* parameters \(tiny", curve=str(capped.run_dir)
    )
    refused(
        r"members.more: until.curve is .*, and validation is another one here, 9 rows instead of 8",
        member=TINY | {"name": "more"},
        rows=9,
        curve=str(capped.run_dir),
    )
    refused(r"No ledger.jsonl in /dev/null/none", curve="/dev/null/none")


def test_the_steps_of_evaluations() -> None:
    until = UntilSettings(target=1.0, every=0.05)
    assert until.steps(100, None) == list(range(5, 101, 5))
    assert until.steps(100, 0.12) == [*range(5, 86, 5), 88]
    assert until.steps(3, None) == [1, 2, 3] and until.steps(1, None) == [1]
