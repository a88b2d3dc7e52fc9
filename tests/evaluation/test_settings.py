"""Evaluation settings read from a recipe."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hf_chain.evaluation import EvaluationSettings


def test_tasks_follow_the_data_unless_told_otherwise():
    settings = EvaluationSettings()
    assert settings.zero_shot is settings.retrieval is settings.prompt_templates is None
    assert settings.splits == ["validation"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"prompt_templates": ["a photo"]}, "prompt_templates"),
        ({"prompt_templates": []}, "prompt_templates"),
        ({"splits": []}, "splits"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_samples": 0}, "max_samples"),
        ({"zeroshot": True}, "zeroshot"),
    ],
)
def test_wrong_values_are_refused_by_name(wrong, field):
    with pytest.raises(ValidationError, match=field):
        EvaluationSettings(**wrong)
