"""A vision encoder, an adapter and any decoder-only language model in one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.models.grafted_vlm.assembly import from_parts
    from hf_chain.models.grafted_vlm.configuration_grafted_vlm import GraftedVLMConfig
    from hf_chain.models.grafted_vlm.image_half import GraftedVLMImageModel
    from hf_chain.models.grafted_vlm.modeling_grafted_vlm import (
        GraftedVLMForConditionalGeneration,
        GraftedVLMModel,
    )
    from hf_chain.models.grafted_vlm.processing_grafted_vlm import GraftedVLMProcessor

_FILES = {
    "GraftedVLMConfig": "configuration_grafted_vlm",
    "GraftedVLMForConditionalGeneration": "modeling_grafted_vlm",
    "GraftedVLMImageModel": "image_half",
    "GraftedVLMModel": "modeling_grafted_vlm",
    "GraftedVLMProcessor": "processing_grafted_vlm",
    "from_parts": "assembly",
}
"""Public name -> its file, imported when first used: the configuration alone registers before torch models load."""

__all__ = [
    "GraftedVLMConfig",
    "GraftedVLMForConditionalGeneration",
    "GraftedVLMImageModel",
    "GraftedVLMModel",
    "GraftedVLMProcessor",
    "from_parts",
]

__getattr__ = lazy_names(__name__, _FILES)
