"""Custom `PreTrainedModel` classes: what is trained; what is saved loads in stock classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.models.chain_clip import ChainCLIPConfig, ChainCLIPModel, ChainCLIPOutput
    from hf_chain.models.grafted_vlm import (
        GraftedVLMConfig,
        GraftedVLMForConditionalGeneration,
        GraftedVLMProcessor,
        from_parts,
    )

_ROOMS = {
    "ChainCLIPConfig": "chain_clip",
    "ChainCLIPModel": "chain_clip",
    "ChainCLIPOutput": "chain_clip",
    "GraftedVLMConfig": "grafted_vlm",
    "GraftedVLMForConditionalGeneration": "grafted_vlm",
    "GraftedVLMProcessor": "grafted_vlm",
    "from_parts": "grafted_vlm",
}
"""Public name -> the model it belongs to, imported when first used: `auto_classes` needs one without the other."""

__all__ = [
    "ChainCLIPConfig",
    "ChainCLIPModel",
    "ChainCLIPOutput",
    "GraftedVLMConfig",
    "GraftedVLMForConditionalGeneration",
    "GraftedVLMProcessor",
    "from_parts",
]

__getattr__ = lazy_names(__name__, _ROOMS)
