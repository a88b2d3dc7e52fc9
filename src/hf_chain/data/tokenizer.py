"""Training and loading of CLIP tokenizers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerBase

from hf_chain.errors import HfChainError

_END_OF_WORD = "</w>"
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: Iterable[str], vocab_size: int = 4096, max_length: int = 77) -> CLIPTokenizer:
    """Train a byte-level BPE tokenizer in CLIP's format: 256 bytes, 256 bytes that end a word, merges, two marks.

    The end mark has the highest id, which is where CLIP's text tower looks for it.

    Args:
        captions (`Iterable[str]`): Texts to learn from.
        vocab_size (`int`, *optional*, defaults to 4096): Most entries; a small corpus may fill fewer.
        max_length (`int`, *optional*, defaults to 77): Context length in tokens.

    Returns:
        `transformers.CLIPTokenizer`: The same one for the same captions in every process.

    Raises:
        `HfChainError`: Where the vocabulary is too small for the bytes, or there is no text.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = alphabet + [letter + _END_OF_WORD for letter in alphabet]
    room = vocab_size - len(base) - 2
    if room < 0:
        raise HfChainError(f"vocab_size is {vocab_size}; bytes and marks alone need {len(base) + 2}")
    pattern = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix=_END_OF_WORD, continuing_subword_prefix=""))
    learner.normalizer, learner.pre_tokenizer = pattern.normalizer, pattern.pre_tokenizer
    # Given as special tokens the base entries get fixed ids; ties between merges are broken by ids.
    trainer = trainers.BpeTrainer(
        vocab_size=len(base) + room, special_tokens=base, end_of_word_suffix=_END_OF_WORD, show_progress=False
    )
    learner.train_from_iterator(captions, trainer)
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]][:room]
    entries = dict.fromkeys([*base, *("".join(merge) for merge in merges), _BEGIN, _END])
    if room and not merges:
        raise HfChainError("the tokenizer has no text to learn from; check caption_column")
    vocab = {entry: number for number, entry in enumerate(entries)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer and check that CLIP can use it.

    Args:
        name_or_path (`str` or `pathlib.Path`): A folder or a Hub name.

    Returns:
        `transformers.PreTrainedTokenizerBase`: The tokenizer.

    Raises:
        `HfChainError`: Where it cannot be loaded, or has no end mark.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name_or_path))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise HfChainError(
            f"tokenizer {name_or_path} cannot be loaded, {reason}; give a folder or a Hub name"
        ) from error
    if tokenizer.eos_token_id is None:
        raise HfChainError(
            f"tokenizer {name_or_path} has no end-of-text token, which CLIP pools at; use a CLIP tokenizer"
        )
    return tokenizer
