"""Evaluation: zero-shot classification, retrieval, linear probes, question answering, captioning, text."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.evaluation.captioning import CaptionEvaluation, cider_d, evaluate_captions
    from hf_chain.evaluation.classification import evaluate_classifier
    from hf_chain.evaluation.evaluate import Evaluation, evaluate_clip, evaluation_size
    from hf_chain.evaluation.free_answers import ResponseLoss, evaluate_free_answers, response_loss
    from hf_chain.evaluation.generate import Generated, generate_answers
    from hf_chain.evaluation.language import evaluate_language
    from hf_chain.evaluation.linear_probe import evaluate_linear_probe, fit_linear_probe
    from hf_chain.evaluation.metrics import METRICS, Metric, metric_of
    from hf_chain.evaluation.question_answering import Answered, AnswerEvaluation, evaluate_answers, yes_no_metrics
    from hf_chain.evaluation.reconstruction import evaluate_reconstruction
    from hf_chain.evaluation.retrieval import CaptionIndex, retrieval_metrics
    from hf_chain.evaluation.settings import EvaluationSettings
    from hf_chain.evaluation.zero_shot import class_embeddings, class_labels, class_prompts, zero_shot_metrics

_MODULES = {
    "AnswerEvaluation": "question_answering",
    "Answered": "question_answering",
    "CaptionEvaluation": "captioning",
    "CaptionIndex": "retrieval",
    "Evaluation": "evaluate",
    "EvaluationSettings": "settings",
    "Generated": "generate",
    "METRICS": "metrics",
    "Metric": "metrics",
    "ResponseLoss": "free_answers",
    "cider_d": "captioning",
    "class_embeddings": "zero_shot",
    "class_labels": "zero_shot",
    "class_prompts": "zero_shot",
    "evaluate_answers": "question_answering",
    "evaluate_captions": "captioning",
    "evaluate_classifier": "classification",
    "evaluate_clip": "evaluate",
    "evaluate_free_answers": "free_answers",
    "evaluate_language": "language",
    "evaluate_linear_probe": "linear_probe",
    "evaluate_reconstruction": "reconstruction",
    "evaluation_size": "evaluate",
    "fit_linear_probe": "linear_probe",
    "generate_answers": "generate",
    "metric_of": "metrics",
    "response_loss": "free_answers",
    "retrieval_metrics": "retrieval",
    "yes_no_metrics": "question_answering",
    "zero_shot_metrics": "zero_shot",
}
"""Public name -> its file, imported when first used: a recipe needs the settings alone, which must not start torch."""

__all__ = [
    "EVALUATORS",
    "METRICS",
    "AnswerEvaluation",
    "Answered",
    "CaptionEvaluation",
    "CaptionIndex",
    "Evaluation",
    "EvaluationSettings",
    "Generated",
    "Metric",
    "ResponseLoss",
    "cider_d",
    "class_embeddings",
    "class_labels",
    "class_prompts",
    "evaluate_answers",
    "evaluate_captions",
    "evaluate_classifier",
    "evaluate_clip",
    "evaluate_free_answers",
    "evaluate_language",
    "evaluate_linear_probe",
    "evaluate_reconstruction",
    "evaluation_size",
    "find_evaluator",
    "fit_linear_probe",
    "generate_answers",
    "metric_of",
    "response_loss",
    "retrieval_metrics",
    "yes_no_metrics",
    "zero_shot_metrics",
]

__getattr__ = lazy_names(__name__, _MODULES)

EVALUATORS = {
    "caption": "evaluate_captions",
    "classifier": "evaluate_classifier",
    "dual_encoder": "evaluate_clip",
    "free": "evaluate_free_answers",
    "language": "evaluate_language",
    "question": "evaluate_answers",
    "reconstruction": "evaluate_reconstruction",
}
"""Name of an evaluator -> its function, which takes a model, what reads for it, and rows."""


def find_evaluator(name: str) -> Any:
    """The function of an evaluator in `EVALUATORS`."""
    function = EVALUATORS[name]
    return getattr(import_module(f"{__name__}.{_MODULES[function]}"), function)
