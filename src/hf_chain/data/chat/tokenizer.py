"""A tokenizer with a chat template for language models that are trained from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hf_chain.data.chat.rows import IMAGE_PLACEHOLDER
from hf_chain.errors import HfChainError

PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SPECIAL_TOKENS = (PAD, BEGIN, END, *_ROLES, IMAGE_PLACEHOLDER)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_chat_tokenizer(
    rows: Iterable[Mapping[str, Any]], vocab_size: int = 2048, max_length: int = 512
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on conversations and give it a chat template.

    Any text can be written: every byte has a token. The image placeholder has one too, so that a language model that
    was trained with it keeps its vocabulary when it is grafted.

    Args:
        rows (`Iterable[Mapping]`): Chat rows; only their messages are read.
        vocab_size (`int`, *optional*, defaults to 2048): Most entries; a small corpus may fill fewer.
        max_length (`int`, *optional*, defaults to 512): Context length in tokens.

    Returns:
        `transformers.PreTrainedTokenizerFast`: The same one for the same rows in every process.

    Raises:
        `HfChainError`: Where the vocabulary is too small for bytes and marks, or there is no text.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(alphabet) + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise HfChainError(f"vocab_size is {vocab_size}; bytes and marks alone need {least}")
    tokenizer = Tokenizer(models.BPE())
    # A word is the same token where it begins an answer and inside a sentence.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(rows), trainer)
    if vocab_size > least and tokenizer.get_vocab_size() == least:
        raise HfChainError("the tokenizer has no text to learn from; check messages_column")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _texts(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        for message in row["messages"]:
            yield message["content"].replace(IMAGE_PLACEHOLDER, "")
