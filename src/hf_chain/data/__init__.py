"""Data sets, captions, augmentation, tokenizer, collator, and the rendered scenes that need no download."""

from __future__ import annotations

from hf_chain.data.captions import class_names
from hf_chain.data.collator import ImageTextCollator
from hf_chain.data.dataset import ImageTextDataset, ImageTextStream
from hf_chain.data.processor import build_processor
from hf_chain.data.prompts import PROMPT_TEMPLATES, resolve_templates
from hf_chain.data.quality import QualityReport, check_quality
from hf_chain.data.settings import DataSettings, ScenesSettings
from hf_chain.data.sources import load_splits
from hf_chain.data.tokenizer import load_tokenizer, train_tokenizer


__all__ = [
    "PROMPT_TEMPLATES",
    "DataSettings",
    "ImageTextCollator",
    "ImageTextDataset",
    "ImageTextStream",
    "QualityReport",
    "ScenesSettings",
    "build_processor",
    "check_quality",
    "class_names",
    "load_splits",
    "load_tokenizer",
    "resolve_templates",
    "train_tokenizer",
]
