"""Trainers and their configurations: ChainTrainer trains one member of a chain, GraftTrainer one stage of a graft."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.trainer.chain_config import ChainConfig
    from hf_chain.trainer.chain_trainer import ChainTrainer
    from hf_chain.trainer.graft_config import GraftConfig
    from hf_chain.trainer.graft_trainer import GraftTrainer

_FILES = {
    "ChainConfig": "chain_config",
    "ChainTrainer": "chain_trainer",
    "GraftConfig": "graft_config",
    "GraftTrainer": "graft_trainer",
}
"""Public name -> its file, imported when first used: neither trainer needs what the other one does."""

__all__ = ["ChainConfig", "ChainTrainer", "GraftConfig", "GraftTrainer"]

__getattr__ = lazy_names(__name__, _FILES)
