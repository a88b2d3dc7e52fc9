"""Byte-level BPE for language models: any text can be written, and what is written is read back as it was."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hf_chain.errors import HfChainError, reason

END = "<|endoftext|>"


def train_text_tokenizer(texts: Iterable[str], vocab_size: int = 8192) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with one mark, which ends a text, begins one and pads.

    Args:
        texts (`Iterable[str]`): Texts to learn from.
        vocab_size (`int`, *optional*, defaults to 8192): Most entries; a small corpus may fill fewer.

    Returns:
        `transformers.PreTrainedTokenizerFast`: The same one for the same texts in every process. The mark has the id
        0, so that a larger vocabulary does not move it.

    Raises:
        `HfChainError`: Where the vocabulary is too small for bytes and mark, or there is no text.
    """
    tokenizer = learn_bytes(texts, vocab_size, [END], "text_column")
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,
    )


def load_text_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer for a language model that is trained from scratch.

    Args:
        name_or_path (`str` or `pathlib.Path`): A folder or a Hub name.

    Raises:
        `HfChainError`: Where it cannot be loaded, or has no end-of-text token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name_or_path))
    except Exception as error:  # The Hub, JSON and tokenizers raise errors of their own.
        raise HfChainError(
            f"tokenizer {name_or_path} cannot be loaded, {reason(error)}; give a folder or a Hub name"
        ) from error
    if tokenizer.eos_token_id is None:
        raise HfChainError(f"tokenizer {name_or_path} has no end-of-text token: give one with an eos_token")
    return tokenizer


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """How many bytes of text each token stands for; special tokens stand for none.

    Exact for byte-level BPE, also of tokens that are a part of a character, and for the kind of SentencePiece.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Any tokenizer.

    Returns:
        `numpy.ndarray`: int64, by id.
    """
    alphabet, special = set(pre_tokenizers.ByteLevel.alphabet()), set(tokenizer.all_special_ids)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    byte_level = backend is not None and "ByteLevel" in repr(backend.decoder)
    vocabulary = tokenizer.get_vocab()
    sizes = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
    for token, number in vocabulary.items():
        if number in special:
            continue
        if byte_level and alphabet.issuperset(token):
            sizes[number] = len(token)
        elif re.fullmatch("<0x[0-9A-F]{2}>", token):
            sizes[number] = 1
        else:
            sizes[number] = len(token.replace("▁", " ").encode())
    return sizes


def learn_bytes(
    texts: Iterable[str], vocab_size: int, marks: Sequence[str], column: str, add_prefix_space: bool = False
) -> Tokenizer:
    """Learn a byte-level BPE, without a decoder.

    Args:
        texts (`Iterable[str]`): Texts to learn from.
        vocab_size (`int`): Most entries.
        marks (`Sequence[str]`): Special tokens, which get the first ids.
        column (`str`): Setting of the texts' column, for an error.
        add_prefix_space (`bool`): Whether the first word of a text is written as one inside of it.

    Raises:
        `HfChainError`: Where the vocabulary is too small for bytes and marks, or there is no text.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(alphabet) + len(marks)
    if vocab_size < least:
        raise HfChainError(f"vocab_size is {vocab_size}; bytes and marks alone need {least}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(marks), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if vocab_size > least and tokenizer.get_vocab_size() == least:
        raise HfChainError(f"the tokenizer has no text to learn from; check {column}")
    return tokenizer
