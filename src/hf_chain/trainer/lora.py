"""LoRA on the decoder, by peft: attached for training, saved as peft's own adapter beside the stock model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from hf_chain.errors import HfChainError, reason
from hf_chain.grafting.trained_layers import carried_layers, note_trained_layers, translators_pattern
from hf_chain.loaded_weights import first_not_finite_of

FOLDER = "lora"
MERGED_FOLDER = "merged_lora"
"""Of an adapter that is in the weights beside it already; it is for the decoder as it was before."""
ADAPTER = "default"
WEIGHTS = "adapter_model.safetensors"
DEFAULTS: dict[str, Any] = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}


def is_lora(name: str) -> bool:
    """Whether a parameter of this name belongs to LoRA."""
    return ".lora_" in name


def has_lora(decoder: nn.Module) -> bool:
    """Whether LoRA is attached to the decoder."""
    return any(isinstance(module, BaseTunerLayer) for module in decoder.modules())


def check_adapters(model: nn.Module, decoder: nn.Module) -> None:
    """Refuses adapters that are no LoRA of this module: saving would lose them.

    Args:
        model (`nn.Module`): the whole model.
        decoder (`nn.Module`): its part that LoRA may be in, as `attach_lora` puts it there.

    Raises:
        HfChainError: naming the first one.
    """
    known = {id(module) for module in decoder.modules()}
    for where, module in model.named_modules():
        if not type(module).__module__.startswith("peft."):
            continue
        ours = id(module) in known and type(module).__module__.startswith("peft.tuners.lora.")
        if not ours or (isinstance(module, BaseTunerLayer) and set(module.active_adapters) != {ADAPTER}):
            raise HfChainError(
                f"{where or type(model).__name__} has an adapter ({type(module).__name__}) that would not be saved:"
                f" train with the part lora, or attach LoRA to the decoder alone, called {ADAPTER!r}"
            )


def attach_lora(decoder: PreTrainedModel, settings: dict[str, Any] | None = None, seed: int = 0) -> None:
    """Adds LoRA to the decoder's linear layers, in place; the decoder computes the same as before.

    A surrogate's translators have none, unless the settings say what to exclude: a graft would leave it behind.

    Args:
        decoder (`PreTrainedModel`): a language model without LoRA.
        settings (`dict`, *optional*): fields of `peft.LoraConfig`; by default rank 16, alpha 32, all linear layers but
            the head.
        seed (`int`): seed of the first matrices; the second ones start at zero.

    Raises:
        HfChainError: when peft refuses the settings, or they reach what a graft leaves behind of a surrogate.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            defaults = DEFAULTS | {"exclude_modules": translators_pattern(decoder)}
            config = LoraConfig(task_type="CAUSAL_LM", **(defaults | (settings or {})))
            inject_adapter_in_model(config, decoder, ADAPTER)
        except (TypeError, ValueError) as error:
            raise HfChainError(f"lora: {reason(error)}") from error
    carried_layers(decoder, [name for name, _ in _lora_layers(decoder)])


def merge_lora(decoder: PreTrainedModel) -> None:
    """Adds the LoRA matrices to the weights they stand beside and removes them, in place; lineages note the layers.

    Raises:
        HfChainError: when a sum is not finite, or there is no adapter.
    """
    if not hasattr(decoder, "peft_config"):
        raise HfChainError(
            f"this {type(decoder).__name__} has no adapter to merge: give the decoder itself, such as"
            " model.language_model, once"
        )
    layers = list(_lora_layers(decoder))
    note_trained_layers(decoder, [name for name, _ in layers])
    for name, layer in layers:
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise HfChainError(
                f"{name} with its adapter holds NaN or infinity: train it again, or in float32"
            ) from error
        decoder.set_submodule(name, layer.get_base_layer())
    del decoder.peft_config


@contextmanager
def lora_aside(decoder: nn.Module) -> Iterator[None]:
    """For as long as it lasts the decoder is the stock one, with its own weights under their own names."""
    layers = list(_lora_layers(decoder))
    for name, layer in layers:
        decoder.set_submodule(name, layer.get_base_layer())
    try:
        yield
    finally:
        for name, layer in layers:
            decoder.set_submodule(name, layer)


def stock_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a model with LoRA as the stock model calls them, without LoRA's own."""
    return {name.replace(".base_layer.", "."): value for name, value in state.items() if not is_lora(name)}


def save_lora(decoder: PreTrainedModel, folder: Path, state: dict[str, torch.Tensor] | None = None) -> None:
    """Writes an adapter that `PeftModel.from_pretrained` loads onto the decoder.

    Args:
        decoder (`PreTrainedModel`): a language model with LoRA.
        folder (`Path`): the adapter's folder.
        state (`dict`, *optional*): the decoder's weights, when an engine has gathered them.
    """
    weights = get_peft_model_state_dict(decoder, state, ADAPTER, save_embedding_layers=False)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in weights.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = copy(decoder.peft_config[ADAPTER])
    config.inference_mode = True
    config.base_model_name_or_path = decoder.config.name_or_path or None
    config.save_pretrained(str(folder))


def load_lora(decoder: PreTrainedModel, folder: Path) -> None:
    """Loads what `save_lora` wrote; LoRA is attached first where it is not.

    Raises:
        HfChainError: when the adapter does not fit the decoder or is not finite.
    """
    if not has_lora(decoder):
        config = LoraConfig.from_pretrained(str(folder))
        config.inference_mode = False
        inject_adapter_in_model(config, decoder, ADAPTER)
    weights = load_file(folder / WEIGHTS)
    if name := first_not_finite_of(weights.items()):
        raise HfChainError(f"{name} of the adapter in {folder} holds NaN or infinity: train it again")
    weights = {name.removeprefix("base_model.model."): value for name, value in weights.items()}
    try:
        unexpected = set_peft_model_state_dict(decoder, weights, ADAPTER).unexpected_keys
    except RuntimeError as error:
        raise HfChainError(f"the adapter in {folder} does not fit: {reason(error)}") from error
    if unexpected:
        raise HfChainError(
            f"the adapter in {folder} has {unexpected[0]} and {len(unexpected) - 1} more that "
            f"{type(decoder).__name__} with its LoRA lacks: attach LoRA with the settings it was trained with"
        )


def _lora_layers(decoder: nn.Module) -> Iterator[tuple[str, BaseTunerLayer]]:
    for name, module in decoder.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name, module
