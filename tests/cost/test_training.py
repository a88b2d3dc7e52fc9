"""Everything a member's training computes is counted once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hf_chain.cost import MemberCost, clip_evaluation_macs, clip_macs, clip_member
from hf_chain.errors import HfChainError


@pytest.fixture
def member(paper_config) -> Callable[..., MemberCost]:
    """ViT-S taught by ViT-T: 24 epochs of 1,000 images with 7 captions, or with other values."""
    values = {"epochs": 24, "samples_per_epoch": 1_000, "captions": 7, "teacher": paper_config("T")}
    return lambda **changes: clip_member("S", paper_config("S"), **(values | changes))


def test_the_student_costs_three_forwards_and_the_teacher_one(member, paper_config):
    student, teacher, cost = clip_macs(paper_config("S")), clip_macs(paper_config("T")), member()
    assert cost.macs_per_sample == student.image + 7 * student.text
    assert cost.training_macs["student"] == 3 * 24_000 * cost.macs_per_sample
    assert cost.training_macs["teacher"] == 24_000 * (teacher.image + 7 * teacher.text)
    assert cost.training_macs["total"] == cost.training_macs["student"] + cost.training_macs["teacher"]


def test_accumulation_through_cached_features_adds_one_student_forward(member):
    once, twice = member().training_macs, member(forward_passes=2).training_macs
    assert 3 * twice["student"] == 4 * once["student"]
    assert twice["teacher"] == once["teacher"]


def test_a_cached_teacher_sees_every_view_and_every_caption_once_however_short_the_training(member, paper_config):
    teacher, cached = clip_macs(paper_config("T")), {"cached_views": 2, "cached_captions": 8_500}
    assert member(**cached).training_macs["teacher"] == 2_000 * teacher.image + 8_500 * teacher.text
    assert member(**cached, epochs=1).training_macs["teacher"] == member(**cached).training_macs["teacher"]


def test_short_batches_are_dropped_by_the_member_and_by_its_twin(member):
    batched = member(epochs=1, batch_size=600)
    assert (batched.steps, batched.samples) == (1, 600)
    assert batched.independent_training_macs(2) == 2 * batched.training_macs["student"]
    streamed = member(batch_size=600, streamed=True, epochs=2)
    assert (streamed.steps, streamed.samples) == (3, 1_800)
    with pytest.raises(HfChainError, match="S: 1 epochs of 1000 samples make no batch of 1200"):
        member(epochs=1, batch_size=1_200)


def test_a_teacher_that_leaves_early_costs_its_share(member):
    assert 4 * member(teacher_share=0.25).training_macs["teacher"] == member().training_macs["teacher"]


def test_masked_training_pays_for_its_unmasked_tail(member):
    masked, whole = member(image_token_keep=0.5), member()
    tail = member(image_token_keep=0.5, unmasked_tail=0.1)
    assert masked.macs_per_sample < tail.macs_per_sample < whole.macs_per_sample
    assert tail.macs_per_sample == pytest.approx(0.9 * masked.macs_per_sample + 0.1 * whole.macs_per_sample)
    assert masked.training_macs["teacher"] < tail.training_macs["teacher"] < whole.training_macs["teacher"]


def test_the_independent_twin_has_no_teacher_but_the_same_savings(member):
    saving = member(image_token_keep=0.5, captions=2)
    assert saving.independent_training_macs(24) == saving.training_macs["student"]


def test_evaluation_counts_every_image_and_every_prompt(paper_config):
    macs = clip_macs(paper_config("T"))
    assert clip_evaluation_macs(paper_config("T"), images=50, texts=80) == 50 * macs.image + 80 * macs.text


@pytest.mark.parametrize(
    ("field", "value"), [("epochs", 0), ("captions", 0), ("unmasked_tail", 1.5), ("teacher_share", -1)]
)
def test_impossible_values_are_named(member, field, value):
    with pytest.raises(HfChainError, match=f"{field} of member S is {value}"):
        member(**{field: value})
