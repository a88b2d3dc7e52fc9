"""Task losses over the global batch, one a file."""

from hf_chain.losses.contrastive import contrastive_loss
from hf_chain.losses.language import next_token_losses, token_divergences
from hf_chain.losses.response import response_loss, response_targets
from hf_chain.losses.sigmoid import sigmoid_loss

__all__ = [
    "contrastive_loss",
    "next_token_losses",
    "response_loss",
    "response_targets",
    "sigmoid_loss",
    "token_divergences",
]
