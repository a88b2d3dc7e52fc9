"""Trainable-only files: what a stage trained, without the rest of the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from hf_chain.engine import whole_copies
from hf_chain.errors import HfChainError, reason
from hf_chain.loaded_weights import first_not_finite_of
from hf_chain.trainer.lora import FOLDER as LORA_FOLDER
from hf_chain.trainer.lora import MERGED_FOLDER, is_lora, load_lora, save_lora
from hf_chain.trainer.part_aliases import decoder_of
from hf_chain.trainer.parts import Part

WEIGHTS = "trainable.safetensors"
INDEX = "trainable.json"


def save_trainable(
    model: PreTrainedModel, parts: Sequence[Part], folder: Path, stage: str | None = None, main_process: bool = True
) -> None:
    """Writes the trained parameters to `trainable.safetensors` and their names to `trainable.json`.

    LoRA's go to `lora/`, as an adapter that peft loads. Every process has to call it: sharded parameters are gathered.

    Args:
        model (`PreTrainedModel`): the model, not wrapped.
        parts (`Sequence[Part]`): what was trained.
        folder (`Path`): where to.
        stage (`str`, *optional*): name of the stage.
        main_process (`bool`): whether this process writes.
    """
    save_adapter(model, folder, main_process)
    own = {name: value for part in parts for name, value in part.parameters.items() if not is_lora(name)}
    tensors = whole_copies(own, main_process)
    if main_process:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        index = {
            "stage": stage,
            "parts": [
                {"name": part.name, "learning_rate": part.learning_rate, "parameters": list(part.parameters)}
                for part in parts
            ],
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def save_adapter(model: PreTrainedModel, folder: Path, main_process: bool = True) -> None:
    """Writes the decoder's LoRA, where it has one, to `lora/`; for all processes, as `save_trainable`."""
    decoder = decoder_of(model)
    prefix = next(f"{name}." if name else "" for name, module in model.named_modules() if module is decoder)
    tensors = whole_copies({name: p for name, p in model.named_parameters() if is_lora(name)}, main_process)
    if tensors:
        save_lora(decoder, folder / LORA_FOLDER, {name.removeprefix(prefix): value for name, value in tensors.items()})


def load_trainable(model: PreTrainedModel, folder: str | Path) -> dict[str, Any]:
    """Loads what `save_trainable` wrote into a model, LoRA included, before an engine takes the model over.

    Args:
        model (`PreTrainedModel`): a model that has the trained parts; the rest of it may be another one, such as the
            target in place of its surrogate, without the LoRA of the folder in its weights.
        folder (`str` or `Path`): where the files are.

    Returns:
        `dict`: what `trainable.json` says.

    Raises:
        HfChainError: when the files are missing, damaged or not finite, or do not fit the model.
    """
    folder = Path(folder)
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise HfChainError(f"{folder} has no whole {WEIGHTS} and {INDEX}: {reason(error)}; save them again") from error
    parameters = dict(model.named_parameters())
    if name := first_not_finite_of(tensors.items()):
        raise HfChainError(f"{name} in {folder / WEIGHTS} holds NaN or infinity: train the stage again")
    for name, value in tensors.items():
        if name not in parameters:
            raise HfChainError(f"{folder / WEIGHTS} holds {name}, which {type(model).__name__} lacks: another model")
        if parameters[name].shape != value.shape:
            raise HfChainError(
                f"{name} is {tuple(value.shape)} in {folder / WEIGHTS} and {tuple(parameters[name].shape)} in the "
                "model: build the model with the sizes it was trained with"
            )
    with torch.no_grad():
        for name, value in tensors.items():
            parameters[name].copy_(value)
    for name in (LORA_FOLDER, MERGED_FOLDER):
        if (folder / name).is_dir():
            load_lora(decoder_of(model), folder / name)
    return index
