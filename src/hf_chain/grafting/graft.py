"""Plugging a vision encoder that was trained on a surrogate into the whole language model.

Source: Zero-Shot Vision Encoder Grafting via LLM Surrogates (arXiv 2505.22664), section 3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging

from hf_chain.adapters import HUB, check_model_files, check_no_adapter
from hf_chain.engine import require_whole_weights
from hf_chain.errors import HfChainError
from hf_chain.grafting.lineage import FIELD, is_surrogate, read_lineage
from hf_chain.grafting.shards import first_dtype, hub_commit, is_folder, load_whole, named_dtype, open_checkpoint
from hf_chain.grafting.trained_layers import carry_layers
from hf_chain.loaded_weights import require_finite
from hf_chain.models.grafted_vlm.assembly import check_at_hand, with_image_half
from hf_chain.models.grafted_vlm.configuration_grafted_vlm import GraftedVLMConfig
from hf_chain.models.grafted_vlm.fingerprint import named_tokens, tokenizer_fingerprint
from hf_chain.models.grafted_vlm.image_half import GraftedVLMImageModel
from hf_chain.models.grafted_vlm.language_models import load_language_model, load_tokenizer, named_errors
from hf_chain.models.grafted_vlm.modeling_grafted_vlm import GraftedVLMForConditionalGeneration

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

logger = logging.get_logger(__name__)


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


COMPARED_ROWS = 128
"""Rows of the two token embeddings that are compared."""


@dataclass(frozen=True)
class _Trained:
    """What a graft takes of a trained model: its image half, trained layers, a few rows of its token embeddings."""

    name: str
    images: GraftedVLMImageModel
    surrogate: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    rows: Callable[[str, slice], torch.Tensor | None]


def graft(
    vlm: str | Path | GraftedVLMForConditionalGeneration,
    target: str | Path | PreTrainedModel,
    *,
    tokenizer: str | Path | PreTrainedTokenizerBase | None = None,
    strict: bool = True,
    dtype: torch.dtype | None = None,
    **loading: Any,
) -> GraftedVLMForConditionalGeneration:
    """Puts the vision tower, adapter and image-start and image-end embeddings of a model onto another language model.

    Nothing is trained. Layers of the target that were trained on its surrogate, as LoRA or in full, come along.

    Of a folder only the image half is read, so memory holds that and the target; where layers come along, all of it.

    Args:
        vlm (`str`, `Path` or `GraftedVLMForConditionalGeneration`): the model trained on a surrogate. In memory its
            image half is copied.
        target (`str`, `Path` or `PreTrainedModel`): the whole language model that the surrogate was cut from. In
            memory it is not copied: it becomes part of the result, and takes the layers that come along.
        tokenizer (`str`, `Path` or `PreTrainedTokenizerBase`, *optional*): the target's, for a target in memory.
        strict (`bool`): whether anything that differs is an error. Without it only sizes have to fit, and the rest
            is warned of.
        dtype (`torch.dtype`, *optional*): of all weights; the target's by default.
        loading: arguments of `from_pretrained` for a target that is loaded, such as `device_map` and `revision`.

    Returns:
        `GraftedVLMForConditionalGeneration`: in evaluation mode. Its processor is the one of `vlm`.

    Raises:
        HfChainError: when the two do not fit, naming everything that differs, when either has an adapter, when weights
            of either are missing, too many or not finite, or when the target cannot take layers that come along
            because it is quantised or offloaded.
    """
    require_whole_weights("graft before the training arguments are made")
    if not isinstance(target, (str, Path, PreTrainedModel)):
        raise HfChainError(
            f"the target is a {type(target).__name__}: give a transformers model, its folder or its Hub name"
        )
    trained = _open(vlm)
    config = trained.images.config
    name = str(target) if isinstance(target, (str, Path)) else target.name_or_path or type(target).__name__
    commit: str | None = None
    if not isinstance(target, PreTrainedModel) and not is_folder(target):
        # One commit for configuration, tokenizer and weights, whatever becomes of a branch meanwhile.
        commit = loading["revision"] = hub_commit(
            name, **{option: loading[option] for option in HUB if option in loading}
        )
    origin = {option: loading[option] for option in (*HUB, "subfolder") if option in loading}
    if not isinstance(target, PreTrainedModel):
        check_model_files(target, **origin)
    target_config = target.config if isinstance(target, PreTrainedModel) else _config(target, **origin)
    text = target_config.get_text_config(decoder=True)
    if not hasattr(text, "vocab_size"):
        raise HfChainError(f"{name} is a {text.model_type}, no language model: give the one that the surrogate is of")
    sizes = size_differences(config, text)
    rest = lineage_differences(config, text)
    theirs = _tokenizer(tokenizer, target, **origin)
    if theirs is None:
        logger.warning(f"{name} in memory brings no tokenizer, so vocabulary and chat template are not compared")
    else:
        rest += tokenizer_differences(config, theirs, trained.tokenizer)
    _report(trained.name, name, sizes, rest, strict)
    language_model = load_language_model(target, dtype, **loading)
    check_at_hand(language_model)
    table = language_model.get_input_embeddings().weight
    start = min(len(table), config.text_config.vocab_size) // 2
    rows = slice(start, start + COMPARED_ROWS)
    before = trained.rows(_name(language_model, table), rows)
    if before is not None:
        _report(trained.name, name, [], embedding_differences(before, table[rows].detach()), strict)
    if trained.surrogate is not None:
        carry_layers(trained.surrogate, language_model)
    return _joined(trained, language_model, name, commit)


def _joined(
    trained: _Trained, language_model: PreTrainedModel, name: str, revision: str | None
) -> GraftedVLMForConditionalGeneration:
    config = copy.deepcopy(trained.images.config)
    config.hf_chain_graft = {
        "trained": trained.name,
        "surrogate": getattr(config.text_config, FIELD, None),
        "target": name,
        "revision": revision,
    }
    return with_image_half(config, trained.images, language_model)


def _open(vlm: str | Path | GraftedVLMForConditionalGeneration) -> _Trained:
    if isinstance(vlm, PreTrainedModel):
        if not isinstance(vlm, GraftedVLMForConditionalGeneration):
            raise HfChainError(f"{type(vlm).__name__} is no grafted model: give a GraftedVLMForConditionalGeneration")
        name = vlm.name_or_path or type(vlm).__name__
        check_no_adapter(vlm, name)
        require_finite(vlm, name)
        table = vlm.get_input_embeddings().weight.detach()
        surrogate = vlm.language_model if _carries(vlm.config) else None
        return _Trained(name, vlm, surrogate, None, lambda name, rows: table[rows])
    if not isinstance(vlm, (str, Path)):
        raise HfChainError(
            f"{type(vlm).__name__} is no grafted model: merge adapters into it first, or give its folder"
        )
    checkpoint = open_checkpoint(vlm)
    config = _config(checkpoint.folder)
    if not isinstance(config, GraftedVLMConfig):
        raise HfChainError(f"{vlm} holds a {config.model_type}, no grafted model: give what stage 2 saved")
    shards, carries = checkpoint.shards(), _carries(config)
    needed = {name: shard for name, shard in shards.items() if carries or not name.startswith("language_model.")}
    tensors = checkpoint.tensors(needed)
    model_class = GraftedVLMForConditionalGeneration if carries else GraftedVLMImageModel
    images = load_whole(model_class, config, tensors, named_dtype(config) or first_dtype(tensors.values()), str(vlm))
    surrogate = images.language_model if isinstance(images, GraftedVLMForConditionalGeneration) else None

    def rows(name: str, part: slice) -> torch.Tensor | None:
        return checkpoint.tensors({name: shards[name]})[name][part] if name in shards else None

    return _Trained(str(vlm), images, surrogate, load_tokenizer(checkpoint.folder), rows)


def _carries(config: GraftedVLMConfig) -> bool:
    return is_surrogate(config) and bool(read_lineage(config).trained_layers)


def _config(folder: str | Path, **origin: Any) -> Any:
    with named_errors("configuration of", folder):
        return AutoConfig.from_pretrained(str(folder), **origin)


def _tokenizer(
    tokenizer: str | Path | PreTrainedTokenizerBase | None, target: str | Path | PreTrainedModel, **origin: Any
) -> PreTrainedTokenizerBase | None:
    if isinstance(tokenizer, (str, Path)):
        return load_tokenizer(tokenizer)
    if tokenizer is not None:
        return tokenizer
    return None if isinstance(target, PreTrainedModel) else load_tokenizer(target, **origin)


def _name(language_model: PreTrainedModel, table: torch.Tensor) -> str:
    """What a grafted model's checkpoint calls the token embeddings."""
    return "language_model." + next(name for name, weight in language_model.named_parameters() if weight is table)


def _report(trained: str, target: str, sizes: list[str], rest: list[str], strict: bool) -> None:
    found = "; ".join(sizes + rest)
    if sizes or (rest and strict):
        remedy = "" if sizes else ", or call hf_chain.graft with strict=False if it fits all the same"
        raise HfChainError(f"{trained} does not fit {target}: {found}. Graft it onto its own target{remedy}")
    if rest:
        logger.warning(f"{trained} is grafted onto {target} although {found}")
