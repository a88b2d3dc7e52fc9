"""ChainTrainer and ChainConfig: one member is one training."""

from hf_chain.trainer.chain_config import ChainConfig
from hf_chain.trainer.chain_trainer import ChainTrainer

__all__ = ["ChainConfig", "ChainTrainer"]
