"""The cost model reproduces the published figures of CoM-PT (arXiv 2604.12391) within 3 %."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from hf_chain.cost import FamilyCost, clip_member
from hf_chain.errors import HfChainError

CC3M = 2_890_000


@pytest.fixture
def cc3m(paper_config) -> Callable[..., FamilyCost]:
    """Returns a function from member names and epochs to the family trained on CC3M with 7 captions."""

    def build(**epochs: float) -> FamilyCost:
        configs = {name: paper_config(name, 768 if name == "BL" else 512) for name in epochs}
        teachers = [None, *configs.values()]
        members = [
            clip_member(name, configs[name], epochs[name], CC3M, captions=7, teacher=teacher)
            for name, teacher in zip(epochs, teachers, strict=False)
        ]
        return FamilyCost(members)

    return build


PUBLISHED_FAMILY_RATIO = {
    "T,S,B,L": (5.68, {"T": 128, "S": 24, "B": 16, "L": 16}),
    "S,B,L": (4.13, {"S": 128, "B": 24, "L": 16}),
    "seven members": (7.09, {"T": 128, "C": 24, "S": 20, "M": 16, "B": 14, "BL": 12, "L": 10}),
}


@pytest.mark.parametrize("family", PUBLISHED_FAMILY_RATIO)
def test_family_ratio_is_the_published_one(cc3m, family):
    published, epochs = PUBLISHED_FAMILY_RATIO[family]
    assert cc3m(**epochs).family_ratio == pytest.approx(published, rel=0.03)


def test_four_members_cost_28_percent_of_the_largest_alone(cc3m):
    assert cc3m(T=128, S=24, B=16, L=16).largest_alone_ratio == pytest.approx(0.28, rel=0.03)


def test_two_members_cost_48_percent_of_the_largest_alone(cc3m):
    # 15 epochs: the published checkpoint of L.
    assert cc3m(B=128, L=15).largest_alone_ratio == pytest.approx(0.48, rel=0.03)


def test_text_dominates_small_members(cc3m):
    shares = [member.details["text_share"] for member in cc3m(T=128, S=24, B=16, L=16).members]
    assert shares == pytest.approx([0.81, 0.72, 0.54, 0.43], abs=0.005)


def test_teachers_are_nine_percent_of_the_chain(cc3m):
    family = cc3m(T=128, S=24, B=16, L=16)
    teachers = sum(member.training_macs["teacher"] for member in family.members)
    assert teachers / family.chain_macs == pytest.approx(0.09, abs=0.005)


def test_evaluation_counts_on_both_sides(cc3m):
    family = cc3m(T=128, S=24)
    evaluated = FamilyCost([replace(member, evaluation_macs=10**15) for member in family.members])
    assert evaluated.chain_macs == family.chain_macs + 2 * 10**15
    assert evaluated.independent_macs == family.independent_macs + 2 * 10**15


def test_baseline_epochs_can_be_set(cc3m):
    members = cc3m(T=128, S=24).members
    assert FamilyCost(members, 64).independent_macs * 2 == FamilyCost(members).independent_macs


def test_the_plan_survives_json_and_adds_up(cc3m):
    family = cc3m(T=128, S=24, B=16, L=16)
    plan = json.loads(json.dumps(family.to_json()))
    members = plan["members"]
    assert [member["name"] for member in members] == ["T", "S", "B", "L"]
    assert [member["epochs"] for member in members] == [128, 24, 16, 16]
    assert members[0]["parameters"] == 27_899_777
    assert members[0]["macs_per_sample"] == members[0]["macs_per_image"] + 7 * members[0]["macs_per_caption"]
    assert plan["chain_macs"] == sum(member["training_macs"] for member in members)
    for member in members:
        assert member["training_macs"] == member["student_macs"] + member["teacher_macs"]
    independent = [member["independent_training_macs"] for member in members]
    assert plan["independent_macs"] == sum(independent)
    assert plan["family_ratio"] == plan["independent_macs"] / plan["chain_macs"]
    assert plan["largest_alone_ratio"] == plan["chain_macs"] / independent[-1]


def test_an_empty_family_is_refused():
    with pytest.raises(HfChainError, match="no members"):
        FamilyCost([])


def test_a_baseline_of_no_epochs_is_refused(cc3m):
    with pytest.raises(HfChainError, match="baseline_epochs is 0"):
        FamilyCost(cc3m(T=1).members, 0)
