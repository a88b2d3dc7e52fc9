"""The tokenizer of a family, and the processor that is saved with every member."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPProcessor,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
    SiglipImageProcessorPil,
    SiglipProcessor,
    VisionTextDualEncoderProcessor,
)
from transformers.tokenization_utils_base import LARGE_INTEGER
from transformers.utils import logging

from hf_chain.errors import HfChainError, reason

logger = logging.get_logger(__name__)

CLIP_CONTEXT = 77
LEGACY_END = 2
"""End token of the configurations of the first CLIPs, with which transformers reads the tower at the highest id."""
LEAST_READ = 0.5
"""Share of the captions that a tokenizer is to tell apart."""
PROBES = ("a cat", "žluťoučký kůň 猫 🙂 qwzx §", "two small dogs and a red ball, " * 100)

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


def load_tokenizer(
    name_or_path: str | Path, max_length: int | None = None, needs_end: bool = True
) -> PreTrainedTokenizerBase:
    """Load a tokenizer and try whether CLIP, or another text tower, can use it.

    Args:
        name_or_path (`str` or `pathlib.Path`): A folder or a Hub name.
        max_length (`int`, *optional*): Context length in tokens; by default the tokenizer's own, or 77.
        needs_end (`bool`): Whether the model pools at the end mark, as CLIP; SigLIP does at the last place, padding or
            not, and BERT at the first.

    Returns:
        `transformers.PreTrainedTokenizerBase`: The tokenizer, which pads and cuts on the right, as CLIP reads.

    Raises:
        `HfChainError`: Where it cannot be loaded, or CLIP cannot use it, see `check_tokenizer`.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(name_or_path))
    except Exception as error:  # The Hub, JSON and tokenizers raise errors of their own.
        raise HfChainError(
            f"tokenizer {name_or_path} cannot be loaded, {reason(error)}; give a folder or a Hub name"
        ) from error
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    check_tokenizer(tokenizer, max_length, str(name_or_path), needs_end)
    return tokenizer


def check_tokenizer(
    tokenizer: PreTrainedTokenizerBase, max_length: int | None = None, name: str = "", needs_end: bool = True
) -> None:
    """Encode captions that are short, unusual and too long, and look where CLIP would read its text tower.

    Args:
        tokenizer (`transformers.PreTrainedTokenizerBase`): Any tokenizer.
        max_length (`int`, *optional*): Context length in tokens; by default the tokenizer's own, or 77.
        name (`str`, *optional*): What it is called in an error.
        needs_end (`bool`): Whether the model pools at the end mark.

    Raises:
        `HfChainError`: Where it has no end mark or no padding token, has ids beyond its size, or ends a caption so
            that CLIP would read the tower elsewhere than at its last token.
    """
    own = tokenizer.model_max_length
    # A tokenizer without a context length has one of astronomical size.
    length = max_length or (own if own < LARGE_INTEGER else CLIP_CONTEXT)
    if (problem := _problem(tokenizer, length, needs_end)) is not None:
        name = f"tokenizer {name}" if name else "the tokenizer"
        raise HfChainError(f"{name} {problem}; use a CLIP tokenizer, or let one be trained")


def _problem(tokenizer: PreTrainedTokenizerBase, length: int, needs_end: bool) -> str | None:
    end = tokenizer.eos_token_id
    if end is None and needs_end:
        return "has no end-of-text token, which CLIP pools at"
    if tokenizer.pad_token_id is None:
        return "has no padding token; give it its end mark as pad_token, as CLIP does"
    highest = max(tokenizer.get_vocab().values())
    if highest >= len(tokenizer):
        return f"has {len(tokenizer)} tokens, but ids up to {highest}: its vocabulary has gaps"
    if end == LEGACY_END and highest != end and needs_end:
        return f"has an end mark with id {end}, for which CLIP reads its text tower at the token with the highest id"
    try:
        encoded = tokenizer(list(PROBES), padding="max_length", truncation=True, max_length=length)
    except Exception as error:  # Tokenizers raise errors of every kind.
        return f"cannot write a caption in {length} tokens ({reason(error)})"
    masks = encoded.get("attention_mask", encoded["input_ids"])
    for text, ids, mask in zip(PROBES, encoded["input_ids"], masks, strict=True):
        what = f"{text[:20]!r}{' …' if len(text) > 20 else ''}"
        if len(ids) != length:
            return f"writes {what} in {len(ids)} tokens, not in {length}"
        if not needs_end:
            continue
        if mask != sorted(mask, reverse=True):
            return "pads on the left; set its padding_side to right"
        last = sum(mask) - 1
        if end not in ids[: last + 1]:
            return f"does not end {what} with its end mark {tokenizer.eos_token!r} within {length} tokens"
        if (found := ids.index(end)) != last:
            return (
                f"writes its end mark {tokenizer.eos_token!r} at place {found} of the {last + 1} tokens of {what}, "
                "where CLIP reads its text tower, before the caption ends"
            )
    return None


def check_readings(captions: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that reads all captions in the same way, and warn where many become one.

    Args:
        captions (`Iterable[str]`): Some of the captions of a run.
        tokenizer (`transformers.PreTrainedTokenizerBase`): Its `model_max_length` is the context length.

    Raises:
        `HfChainError`: Where different captions become the same tokens, all of them.
    """
    captions = list(captions)
    end = tokenizer.eos_token
    if end and (cut := sum(end in caption for caption in captions)):
        logger.warning(f"{cut:,} of {len(captions):,} captions hold the end mark {end!r}: what follows it is lost")
    texts = list(dict.fromkeys(" ".join(caption.lower().split()) for caption in captions))
    if len(texts) < 2:
        return
    ids = tokenizer(texts, truncation=True, max_length=tokenizer.model_max_length)["input_ids"]
    read = len({tuple(one) for one in ids})
    words = f"{len(texts):,} different captions are {read:,} to the tokenizer at {tokenizer.model_max_length} tokens"
    remedy = "raise model.max_text_tokens, or use another tokenizer"
    if read == 1:
        raise HfChainError(f"{words}; {remedy}")
    if read < LEAST_READ * len(texts):
        logger.warning(f"{words}: {remedy}")


def build_processor(tokenizer: PreTrainedTokenizerBase, image_size: int) -> CLIPProcessor:
    """Build the processor of a member, with a tokenizer that was tried.

    Args:
        tokenizer (`transformers.PreTrainedTokenizerBase`): Tokenizer of the family.
        image_size (`int`): Height and width in pixels that the image tower takes.

    Returns:
        `transformers.CLIPProcessor`: Resizes the shorter side (bicubic), cuts the centre, normalises as CLIP does.

    Raises:
        `HfChainError`: Where CLIP cannot use the tokenizer.
    """
    check_tokenizer(tokenizer, name=str(tokenizer.name_or_path))
    return CLIPProcessor(image_processor=_clip_images(image_size), tokenizer=tokenizer)


def towers_processor(
    tokenizer: PreTrainedTokenizerBase, image_size: int, needs_end: bool = True
) -> VisionTextDualEncoderProcessor:
    """Build the processor of a `VisionTextDualEncoder`, with a tokenizer that was tried.

    Args:
        tokenizer (`transformers.PreTrainedTokenizerBase`): Tokenizer of the family.
        image_size (`int`): Height and width in pixels that the image tower takes.
        needs_end (`bool`): Whether the text tower pools at the end mark, as CLIP's.

    Returns:
        `transformers.VisionTextDualEncoderProcessor`: It treats images as CLIP's does.

    Raises:
        `HfChainError`: Where the text tower cannot use the tokenizer.
    """
    check_tokenizer(tokenizer, name=str(tokenizer.name_or_path), needs_end=needs_end)
    return VisionTextDualEncoderProcessor(image_processor=_clip_images(image_size), tokenizer=tokenizer)


def _clip_images(size: int) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def padded_processor(tokenizer: PreTrainedTokenizerBase, image_size: int) -> SiglipProcessor:
    """Build the processor of a member that reads padding, with a tokenizer that was tried.

    Args:
        tokenizer (`transformers.PreTrainedTokenizerBase`): Tokenizer of the family; it makes no masks from here on.
        image_size (`int`): Height and width in pixels that the image tower takes.

    Returns:
        `transformers.SiglipProcessor`: Resizes images to a square (bicubic) and normalises as SigLIP does.
    """
    check_tokenizer(tokenizer, name=str(tokenizer.name_or_path), needs_end=False)
    # Both, as only what it was made with is saved.
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = ["input_ids"]
    size = {"height": image_size, "width": image_size}
    return SiglipProcessor(image_processor=SiglipImageProcessorPil(size=size), tokenizer=tokenizer)
