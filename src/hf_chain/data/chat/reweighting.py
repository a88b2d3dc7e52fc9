"""Larger weights for short responses, for small targets."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from hf_chain.errors import HfChainError


@dataclass(frozen=True)
class ResponseReweighting:
    """Weight w = (log(n + 1) / log(N + 1))^-order of the tokens of a response of n tokens, at least 1.

    n counts the tokens of the response's content, without header and end mark, so that it does not depend on which
    tokens are in the loss. The reference divides by a maximum; here it is that of a fixed N, as the maximum of a batch
    would make the loss depend on the batch. Text-only conversations have weight 1.

    Args:
        order (`float`): How steep; 0 gives weight 1 to every response.
        longest (`int`): Tokens N from which on a response has weight 1.

    Source:
        Zero-shot vision encoder grafting, arXiv 2505.22664, official code.
    """

    order: float = 1.0
    longest: int = 256

    def __post_init__(self) -> None:
        if self.order < 0:
            raise HfChainError(f"order of the response re-weighting is {self.order:g}; it must be 0 or more")
        if self.longest < 1:
            raise HfChainError(f"longest of the response re-weighting is {self.longest}; it must be 1 or more")

    def weight(self, tokens: int) -> float:
        """Return the weight of a response of `tokens` tokens; an empty one counts as one token."""
        return max(1.0, (log(max(1, tokens) + 1) / log(self.longest + 1)) ** -self.order)
