"""hf_chain: train something small first and hand its knowledge on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.auto_classes import register_auto_classes
from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.cost import clip_macs
    from hf_chain.data import ImageTextCollator, ImageTextDataset
    from hf_chain.distillation import Teacher
    from hf_chain.errors import HfChainError
    from hf_chain.evaluation import evaluate_clip
    from hf_chain.evaluation.question_answering import evaluate_answers
    from hf_chain.grafting.criteria import choose_ranges
    from hf_chain.grafting.export_llava import export_llava
    from hf_chain.grafting.graft import graft
    from hf_chain.grafting.surrogate import build_surrogate
    from hf_chain.grafting.trajectory import measure_trajectory
    from hf_chain.grafting.translator import fit_translator
    from hf_chain.growth import embedding_error, grow, growth_error
    from hf_chain.models import ChainCLIPConfig, ChainCLIPModel
    from hf_chain.models.grafted_vlm import (
        GraftedVLMConfig,
        GraftedVLMForConditionalGeneration,
        GraftedVLMProcessor,
        from_parts,
    )
    from hf_chain.trainer import ChainConfig, ChainTrainer, GraftConfig, GraftTrainer

__version__ = "0.1.0"

_ROOMS = {
    "ChainCLIPConfig": "models",
    "ChainCLIPModel": "models",
    "ChainConfig": "trainer",
    "ChainTrainer": "trainer",
    "GraftConfig": "trainer",
    "GraftTrainer": "trainer",
    "GraftedVLMConfig": "models.grafted_vlm",
    "GraftedVLMForConditionalGeneration": "models.grafted_vlm",
    "GraftedVLMProcessor": "models.grafted_vlm",
    "HfChainError": "errors",
    "ImageTextCollator": "data",
    "ImageTextDataset": "data",
    "Teacher": "distillation",
    "build_surrogate": "grafting.surrogate",
    "choose_ranges": "grafting.criteria",
    "clip_macs": "cost",
    "embedding_error": "growth",
    "evaluate_answers": "evaluation.question_answering",
    "evaluate_clip": "evaluation",
    "export_llava": "grafting.export_llava",
    "fit_translator": "grafting.translator",
    "from_parts": "models.grafted_vlm",
    "graft": "grafting.graft",
    "grow": "growth",
    "growth_error": "growth",
    "measure_trajectory": "grafting.trajectory",
}
"""Public name -> the module it lives in; a module is opened when one of its names is first used."""

__all__ = [
    "ChainCLIPConfig",
    "ChainCLIPModel",
    "ChainConfig",
    "ChainTrainer",
    "GraftConfig",
    "GraftTrainer",
    "GraftedVLMConfig",
    "GraftedVLMForConditionalGeneration",
    "GraftedVLMProcessor",
    "HfChainError",
    "ImageTextCollator",
    "ImageTextDataset",
    "Teacher",
    "__version__",
    "build_surrogate",
    "choose_ranges",
    "clip_macs",
    "embedding_error",
    "evaluate_answers",
    "evaluate_clip",
    "export_llava",
    "fit_translator",
    "from_parts",
    "graft",
    "grow",
    "growth_error",
    "measure_trajectory",
]

__getattr__ = lazy_names(__name__, _ROOMS)

register_auto_classes()
