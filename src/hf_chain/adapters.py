"""What is taken for a model and is not one, or not all of it: adapters beside it and in it, and GGUF files."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import find_adapter_config_file

from hf_chain.errors import HfChainError
from hf_chain.files import check_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OWN_FOLDER = "lora"
"""Where a `GraftTrainer` puts an adapter that is not in the weights beside it."""

HUB = ("revision", "token", "cache_dir", "local_files_only", "force_download")
"""Arguments of `from_pretrained` about the Hub; they hold for a model's configuration and tokenizer as well."""

_MERGED = "merge it into the weights (peft's merge_and_unload) and save the result to a folder of its own"


def check_model_files(name: str | Path, **hub: Any) -> None:
    """Refuses an adapter or a GGUF file in place of a model, and a model with an adapter beside it.

    Transformers puts such an adapter into the model unasked, where growth, surrogates and grafts would not see it.

    Args:
        name (`str` or `Path`): folder or Hub name.
        hub: arguments of `from_pretrained` about the Hub, such as `revision`.

    Raises:
        HfChainError: naming what is there; or a revision where the model is not on the Hub.
    """
    check_path(name)
    folder = Path(name).expanduser()
    if hub.get("revision") is not None and folder.exists():
        raise HfChainError(
            f"revision={hub['revision']} is for models on the Hub, and {name} is a folder: leave it out"
        )
    if folder.suffix == ".gguf" and folder.is_file():
        raise HfChainError(f"{name} is a GGUF file, which is not read: give the folder of the model it was made from")
    whole = (folder / "config.json").is_file()
    if gguf := sorted(folder.glob("*.gguf")):
        missing = [] if whole else ["config.json"]
        missing += [] if any(folder.glob("*.safetensors")) else ["safetensors"]
        if missing:
            raise HfChainError(
                f"{name} holds {gguf[0].name}, a GGUF file, and no {missing[0]}: give the folder of the model it was"
                " made from"
            )
    if whole and (folder / OWN_FOLDER / "adapter_config.json").is_file():
        raise HfChainError(
            f"{name} holds an adapter in {OWN_FOLDER}/ that is not in its weights: merge it with"
            " hf_chain.trainer.lora.merge_lora and save the model again, or remove the adapter to use it without"
        )
    adapter = None
    with suppress(Exception):
        # Whoever reads the model says what is wrong with its name or with the network.
        adapter = find_adapter_config_file(str(folder if folder.is_dir() else name), **hub)
    if adapter is not None:
        alone = " and no config.json" if folder.is_dir() and not whole else ""
        raise HfChainError(f"{name} holds an adapter of {_base(adapter)} (adapter_config.json){alone}: {_MERGED}")


def check_no_adapter(model: PreTrainedModel, name: str) -> None:
    """Refuses a model with layers of peft in it, or with other weights than its configuration says, such as those of
    an adapter by hand or of a parametrisation: they would be lost, or random when they are read again.

    Args:
        model (`PreTrainedModel`): the model.
        name (`str`): what the user calls it.

    Raises:
        HfChainError: naming the first layer, or the first weight.
    """
    for place, module in model.named_modules():
        if type(module).__module__.startswith("peft."):
            where = f"in {place}" if place else "around it"
            raise HfChainError(
                f"{name} has an adapter ({type(module).__name__} {where}): {_MERGED}, or give it without"
            )
    if getattr(model, "hf_quantizer", None) is not None or not hasattr(type(model), "config_class"):
        return  # Its layers have weights of their own, or it is no model of transformers.
    with torch.device("meta"):
        stock = type(model)(copy.deepcopy(model.config))
    found, expected = (
        {weight for weight, _ in one.named_parameters(remove_duplicate=False)} for one in (model, stock)
    )
    if found != expected:
        lacking, more = min(expected - found, default=None), min(found - expected, default=None)
        words = " and ".join([f"lacks {lacking}"] * bool(lacking) + [f"has {more}"] * bool(more))
        raise HfChainError(
            f"{name} {words}, other than its configuration says: give a model as transformers builds it, with adapters"
            " and parametrisations merged into its weights"
        )


def _base(adapter: str) -> str:
    try:
        named = json.loads(Path(adapter).read_text(encoding="utf-8"))["base_model_name_or_path"]
        return "another model" if named is None else str(named)
    except (OSError, ValueError, KeyError, TypeError):
        return "another model"
