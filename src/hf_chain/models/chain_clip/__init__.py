"""CLIP as it is trained in a chain."""

from hf_chain.models.chain_clip.configuration_chain_clip import ChainCLIPConfig
from hf_chain.models.chain_clip.modeling_chain_clip import ChainCLIPModel, ChainCLIPOutput

__all__ = ["ChainCLIPConfig", "ChainCLIPModel", "ChainCLIPOutput"]
