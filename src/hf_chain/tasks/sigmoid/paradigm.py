"""Training with the sigmoid loss as a recipe knows it: pairs of images and captions, SigLIPs, zero-shot metrics."""

from __future__ import annotations

from hf_chain.tasks.sigmoid.values import FIRST_LOGITS
from hf_chain.tasks.stock_pairs import StockPairs


class SigmoidParadigm(StockPairs):
    """Every image is judged with every caption of the global batch, pair by pair."""

    first_logits = FIRST_LOGITS
    scores = ".sigmoid()"

    @classmethod
    def families(cls) -> frozenset[str]:
        """SigLIP, and SigLIP-2 of a fixed size, which is the same class."""
        return frozenset(("siglip",))
