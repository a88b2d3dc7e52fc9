"""Custom `PreTrainedModel` classes: what is trained; what is saved loads in stock classes."""

from hf_chain.models.chain_clip import ChainCLIPConfig, ChainCLIPModel, ChainCLIPOutput

__all__ = ["ChainCLIPConfig", "ChainCLIPModel", "ChainCLIPOutput"]
