"""What a tokenizer is recognised by: models can only be joined when they speak the same language."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from hf_chain.models.grafted_vlm.processing_grafted_vlm import without_images

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase, image_token: str) -> dict[str, str | int | None]:
    """Hashes that two tokenizers share when they turn text into the same ids.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): any tokenizer.
        image_token (`str`): the token a grafted model adds, which does not count.

    Returns:
        `dict`: the `image_token`, the number of `tokens`, and hashes of `vocabulary`, `special_tokens` and
            `chat_template` (`None` without one).
    """
    vocabulary = {token: number for token, number in tokenizer.get_vocab().items() if token != image_token}
    template = without_images(tokenizer.chat_template)
    return {
        "image_token": image_token,
        "tokens": len(vocabulary),
        "vocabulary": _hash(sorted(vocabulary.items())),
        "special_tokens": _hash(named_tokens(tokenizer)),
        "chat_template": None if template is None else _hash(template),
    }


def named_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """The tokens with a part to play, such as `bos_token`; how rows are padded is no part of the language."""
    tokens = sorted(tokenizer.special_tokens_map.items())
    return {name: str(token) for name, token in tokens if name != "pad_token" and not isinstance(token, (list, dict))}


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
