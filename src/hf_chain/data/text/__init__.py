"""Texts and conversations as streams of token batches, for whatever reads a language model without training it."""

from __future__ import annotations

from hf_chain.data.text.batches import TokenBatches, token_batches

__all__ = ["TokenBatches", "token_batches"]
