"""Whether a vision encoder trained on one language model fits another: what differs, in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hf_chain.grafting.lineage import is_surrogate, read_lineage
from hf_chain.models.grafted_vlm.fingerprint import named_tokens, tokenizer_fingerprint

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from hf_chain.models import GraftedVLMConfig


def size_differences(config: GraftedVLMConfig, target: PreTrainedConfig) -> list[str]:
    """What no graft can do without: the embedding size, and a row for every token.

    Args:
        config (`GraftedVLMConfig`): the trained model's.
        target (`PreTrainedConfig`): the target's language model's.

    Returns:
        `list[str]`: one phrase for each difference; empty where it fits.
    """
    found = []
    size = getattr(target, "word_embed_proj_dim", None) or target.hidden_size
    if size != config.embedding_size:
        found.append(f"its embedding size is {size}, the adapter's {config.embedding_size}")
    tokens = (config.tokenizer_fingerprint or {}).get("tokens", 0)
    if target.vocab_size < tokens:
        found.append(f"its vocabulary has {target.vocab_size} rows, the tokenizer {tokens} tokens")
    return found


def tokenizer_differences(
    config: GraftedVLMConfig, theirs: PreTrainedTokenizerBase, ours: PreTrainedTokenizerBase | None
) -> list[str]:
    """How the target's tokenizer differs from the one that the encoder was trained with.

    Args:
        config (`GraftedVLMConfig`): the trained model's.
        theirs (`PreTrainedTokenizerBase`): the target's.
        ours (`PreTrainedTokenizerBase`, *optional*): the trained model's; with it, tokens are named.

    Returns:
        `list[str]`: one phrase for each difference; empty where it fits.
    """
    trained = config.tokenizer_fingerprint
    if trained is None:
        return []
    target = tokenizer_fingerprint(theirs, trained["image_token"])
    found = []
    if target["vocabulary"] != trained["vocabulary"]:
        sizes = f"its vocabulary differs ({target['tokens']} tokens, trained with {trained['tokens']})"
        found.append(sizes + ("" if ours is None else f": {_tokens(ours, theirs, trained['image_token'])}"))
    if target["special_tokens"] != trained["special_tokens"]:
        found.append(f"its special tokens differ: {_special_tokens(ours, theirs)}")
    if target["chat_template"] != trained["chat_template"]:
        found.append("it has no chat template" if theirs.chat_template is None else "its chat template differs")
    return found


def lineage_differences(config: GraftedVLMConfig, target: PreTrainedConfig) -> list[str]:
    """Whether the surrogate that the encoder was trained on can have been cut from this target.

    Args:
        config (`GraftedVLMConfig`): the trained model's.
        target (`PreTrainedConfig`): the target's language model's.

    Returns:
        `list[str]`: one phrase for each difference; empty where it fits.
    """
    text = config.text_config
    found = []
    if target.model_type != text.model_type:
        found.append(f"it is a {target.model_type}, the surrogate a {text.model_type}")
    if is_surrogate(text):
        lineage = read_lineage(config)
        if lineage.target_layers != target.num_hidden_layers:
            found.append(
                f"it has {target.num_hidden_layers} layers, the surrogate was cut from {lineage.target_layers} of"
                f" {Path(lineage.target).name}"
            )
    return found


def embedding_differences(trained: torch.Tensor, target: torch.Tensor) -> list[str]:
    """Whether both language models embed tokens alike, on some rows of their tables.

    Args:
        trained (`torch.Tensor`): shape `[rows, D]`, of the language model that the encoder was trained on.
        target (`torch.Tensor`): shape `[rows, D]`, of the target.

    Returns:
        `list[str]`: one phrase for each difference; empty where it fits.
    """
    if trained.shape != target.shape:
        return []
    trained = trained.to(target.device)
    # A table in bfloat16 equals one in float32 that rounds to it.
    same = (trained.to(target.dtype) == target).all(-1) | (trained == target.to(trained.dtype)).all(-1)
    different = int((~same).sum())
    return [f"its token embeddings differ in {different} of {len(same)} rows compared"] if different else []


def _tokens(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase, image_token: str) -> str:
    trained, target = ours.get_vocab(), theirs.get_vocab()
    tokens = sorted(set(trained) | set(target), key=lambda token: (trained.get(token, -1), token))
    different = [token for token in tokens if token != image_token and trained.get(token) != target.get(token)]
    first = [
        f"{token!r} is {target.get(token, 'missing')}, was {trained.get(token, 'missing')}" for token in different
    ]
    return ", ".join(first[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")


def _special_tokens(ours: PreTrainedTokenizerBase | None, theirs: PreTrainedTokenizerBase) -> str:
    target = named_tokens(theirs)
    if ours is None:
        return ", ".join(f"{name} {token!r}" for name, token in target.items())
    trained = named_tokens(ours)
    names = [name for name in sorted(set(trained) | set(target)) if trained.get(name) != target.get(name)]
    return ", ".join(f"{name} is {target.get(name)!r}, was {trained.get(name)!r}" for name in names)
