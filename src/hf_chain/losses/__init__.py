"""Task losses over the global batch, one a file."""

from hf_chain.losses.contrastive import contrastive_loss
from hf_chain.losses.response import response_loss, response_targets

__all__ = ["contrastive_loss", "response_loss", "response_targets"]
