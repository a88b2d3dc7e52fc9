"""Translators: what stands for the layers that a surrogate lacks, how it is made, and how good it is."""

from __future__ import annotations

from hf_chain.grafting.translator.fit import COMPARED, METHODS, compare_translators, fit_translator
from hf_chain.grafting.translator.image_prompts import ImagePrompts
from hf_chain.grafting.translator.least_squares import (
    RidgeFit,
    calibration_passes,
    closed_form,
    refitted_weights,
)
from hf_chain.grafting.translator.quality import perplexity
from hf_chain.grafting.translator.report import TranslatorQuality, TranslatorReport, translator_table
from hf_chain.grafting.translator.splice_error import dropping_error, splice_error
from hf_chain.grafting.translator.train import TranslatorTrainer, TranslatorTraining
from hf_chain.grafting.translator.translator_config import OBJECTIVES, TranslatorConfig

__all__ = [
    "COMPARED",
    "METHODS",
    "OBJECTIVES",
    "ImagePrompts",
    "RidgeFit",
    "TranslatorConfig",
    "TranslatorQuality",
    "TranslatorReport",
    "TranslatorTrainer",
    "TranslatorTraining",
    "calibration_passes",
    "closed_form",
    "compare_translators",
    "dropping_error",
    "fit_translator",
    "perplexity",
    "refitted_weights",
    "splice_error",
    "translator_table",
]
