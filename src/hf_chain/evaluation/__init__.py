"""Evaluation of a member: zero-shot classification and image-text retrieval."""

from __future__ import annotations

from hf_chain.evaluation.evaluate import Evaluation, evaluate_clip
from hf_chain.evaluation.retrieval import CaptionIndex, retrieval_metrics
from hf_chain.evaluation.settings import EvaluationSettings
from hf_chain.evaluation.zero_shot import class_embeddings, class_labels, class_prompts, zero_shot_metrics

__all__ = [
    "CaptionIndex",
    "Evaluation",
    "EvaluationSettings",
    "class_embeddings",
    "class_labels",
    "class_prompts",
    "evaluate_clip",
    "retrieval_metrics",
    "zero_shot_metrics",
]
