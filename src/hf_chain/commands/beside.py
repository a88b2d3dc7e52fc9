"""What stands beside a model and prepares its inputs."""

from __future__ import annotations

from typing import Any


def beside(name: str, *kinds: str) -> Any:
    """The first of some kinds that a folder, or a model on the Hub, has.

    Args:
        name (`str`): Folder or Hub name.
        kinds (`str`): Auto classes, such as `AutoProcessor`.

    Returns:
        A processor, a tokenizer or an image processor; `None` where there is nothing of these kinds.
    """
    import transformers

    for kind in kinds:
        try:
            found = getattr(transformers, kind).from_pretrained(name)
        except Exception:
            continue
        if not _is_empty(getattr(found, "tokenizer", found)):
            return found
    return None


def _is_empty(tokenizer: Any) -> bool:
    """Whether it knows its marks alone: transformers makes one of a CLIP that has no tokenizer."""
    return hasattr(tokenizer, "get_vocab") and not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
