"""hf_chain: train something small first and hand its knowledge on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_chain.auto_classes import register_auto_classes

if TYPE_CHECKING:
    from hf_chain.cost import clip_macs
    from hf_chain.data import ImageTextCollator, ImageTextDataset
    from hf_chain.distillation import Teacher
    from hf_chain.errors import HfChainError
    from hf_chain.evaluation import evaluate_clip
    from hf_chain.growth import embedding_error, grow
    from hf_chain.models import ChainCLIPConfig, ChainCLIPModel
    from hf_chain.trainer import ChainConfig, ChainTrainer

__version__ = "0.1.0"

_ROOMS = {
    "ChainCLIPConfig": "models",
    "ChainCLIPModel": "models",
    "ChainConfig": "trainer",
    "ChainTrainer": "trainer",
    "HfChainError": "errors",
    "ImageTextCollator": "data",
    "ImageTextDataset": "data",
    "Teacher": "distillation",
    "clip_macs": "cost",
    "embedding_error": "growth",
    "evaluate_clip": "evaluation",
    "grow": "growth",
}
"""Public name -> the room it lives in; a room is opened when one of its names is first used."""

__all__ = [
    "ChainCLIPConfig",
    "ChainCLIPModel",
    "ChainConfig",
    "ChainTrainer",
    "HfChainError",
    "ImageTextCollator",
    "ImageTextDataset",
    "Teacher",
    "__version__",
    "clip_macs",
    "embedding_error",
    "evaluate_clip",
    "grow",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'hf_chain' has no attribute {name!r}")
    return getattr(import_module(f"hf_chain.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])


register_auto_classes()
