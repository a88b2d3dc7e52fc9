"""Evaluation: zero-shot classification and image-text retrieval, question answering and captioning."""

from __future__ import annotations

from hf_chain.evaluation.captioning import CaptionEvaluation, cider_d, evaluate_captions
from hf_chain.evaluation.evaluate import Evaluation, evaluate_clip
from hf_chain.evaluation.generate import Generated, generate_answers
from hf_chain.evaluation.question_answering import Answered, AnswerEvaluation, evaluate_answers
from hf_chain.evaluation.retrieval import CaptionIndex, retrieval_metrics
from hf_chain.evaluation.settings import EvaluationSettings
from hf_chain.evaluation.yes_no import yes_no_metrics
from hf_chain.evaluation.zero_shot import class_embeddings, class_labels, class_prompts, zero_shot_metrics

__all__ = [
    "AnswerEvaluation",
    "Answered",
    "CaptionEvaluation",
    "CaptionIndex",
    "Evaluation",
    "EvaluationSettings",
    "Generated",
    "cider_d",
    "class_embeddings",
    "class_labels",
    "class_prompts",
    "evaluate_answers",
    "evaluate_captions",
    "evaluate_clip",
    "generate_answers",
    "retrieval_metrics",
    "yes_no_metrics",
    "zero_shot_metrics",
]
