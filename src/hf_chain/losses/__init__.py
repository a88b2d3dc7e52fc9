"""Task losses over the global batch, one a file."""

from hf_chain.losses.contrastive import contrastive_loss

__all__ = ["contrastive_loss"]
