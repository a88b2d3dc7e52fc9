"""CLIP as it is trained in a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.models.chain_clip.configuration_chain_clip import ChainCLIPConfig
    from hf_chain.models.chain_clip.modeling_chain_clip import ChainCLIPModel, ChainCLIPOutput

_FILES = {
    "ChainCLIPConfig": "configuration_chain_clip",
    "ChainCLIPModel": "modeling_chain_clip",
    "ChainCLIPOutput": "modeling_chain_clip",
}
"""Public name -> its file, imported when first used: the configuration alone registers before torch models load."""

__all__ = ["ChainCLIPConfig", "ChainCLIPModel", "ChainCLIPOutput"]

__getattr__ = lazy_names(__name__, _FILES)
