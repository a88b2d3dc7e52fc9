"""Shape and tokenizer of a language model that is trained here."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig, PreTrainedTokenizerFast

from hf_chain.data.chat.tokenizer import train_chat_tokenizer
from hf_chain.stages.graft.materials import Conversations
from hf_chain.stages.graft.parts_of_recipe import NewTargetSettings

TOKENIZER_ROWS = 5_000
"""Conversations of each source that the tokenizer is trained on."""


def new_tokenizer(settings: NewTargetSettings, conversations: Conversations) -> PreTrainedTokenizerFast:
    """Trains the tokenizer; the same one for the same recipe."""
    rows = conversations.sample(settings.data, TOKENIZER_ROWS)
    return train_chat_tokenizer(rows, settings.vocab_size, settings.max_length)


def new_target_config(settings: NewTargetSettings, vocab_size: int, **marks: Any) -> LlamaConfig:
    """The configuration of a small Llama.

    Args:
        settings (`NewTargetSettings`): its sizes.
        vocab_size (`int`): entries of its tokenizer.
        marks: ids of the tokenizer's special tokens, such as `eos_token_id`.
    """
    heads = settings.hidden_size // settings.head_size
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size or 3 * settings.hidden_size,
        num_hidden_layers=settings.num_hidden_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=settings.max_length,
        # The usual 0.02 suits widths in the thousands: narrow models take far longer to learn to look things up.
        initializer_range=settings.hidden_size**-0.5,
        tie_word_embeddings=True,
        **marks,
    )
