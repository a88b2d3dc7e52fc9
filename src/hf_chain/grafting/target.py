"""The model a surrogate is cut from: a checkpoint, or a model in memory, seen alike."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedModel

from hf_chain.adapters import check_no_adapter
from hf_chain.errors import HfChainError, reason
from hf_chain.grafting.anatomy import check_described, text_config
from hf_chain.grafting.lineage import is_surrogate, read_lineage
from hf_chain.grafting.shards import Checkpoint, LazyTensor, first_dtype, named_dtype, open_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class CheckpointTarget:
    """A target in a folder or on the Hub, whose weights are read one at a time.

    Args:
        checkpoint (`Checkpoint`): where it is.
        config (`PreTrainedConfig`): its configuration.
        generation_config (`GenerationConfig`, *optional*): how it generates, where it says so.
    """

    checkpoint: Checkpoint
    config: PreTrainedConfig
    generation_config: GenerationConfig | None

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.checkpoint.name

    @property
    def revision(self) -> str | None:
        """Its commit on the Hub."""
        return self.checkpoint.revision

    @cached_property
    def _shards(self) -> dict[str, str]:
        return self.checkpoint.shards()

    def names(self) -> Collection[str]:
        """The names of all its weights."""
        return self._shards

    def weights(self, names: Iterable[str]) -> dict[str, LazyTensor]:
        """Some of its weights, read when they are asked for."""
        return self.checkpoint.tensors({name: self._shards[name] for name in names})

    def dtype(self, names: Iterable[str]) -> torch.dtype:
        """The type its configuration names, else that of the first floating-point weight of these."""
        return named_dtype(text_config(self.config), self.config) or first_dtype(self.weights(names).values())


@dataclass(frozen=True)
class ModelTarget:
    """A target in memory, whose weights are copied, so that training the surrogate leaves it as it is.

    Args:
        model (`PreTrainedModel`): the model.
    """

    model: PreTrainedModel

    @property
    def name(self) -> str:
        """What it was loaded from, else the name of its class."""
        return self.model.config.name_or_path or type(self.model).__name__

    @property
    def revision(self) -> str | None:
        """The commit it was loaded from, where transformers knows."""
        return getattr(self.model.config, "_commit_hash", None)

    @property
    def config(self) -> PreTrainedConfig:
        """Its configuration."""
        return self.model.config

    @property
    def generation_config(self) -> GenerationConfig | None:
        """How it generates."""
        return copy.deepcopy(self.model.generation_config)

    @cached_property
    def _state(self) -> dict[str, torch.Tensor]:
        return self.model.state_dict()

    def names(self) -> Collection[str]:
        """The names of all its weights."""
        return self._state

    def weights(self, names: Iterable[str]) -> dict[str, LazyCopy]:
        """Some of its weights, copied when they are asked for."""
        return {name: LazyCopy(self._state[name]) for name in names}

    def dtype(self, names: Iterable[str]) -> torch.dtype:
        """The type of its weights."""
        return self.model.dtype


Target = CheckpointTarget | ModelTarget


@dataclass(frozen=True)
class LazyCopy:
    """A tensor that is copied when it is asked for, in the form that `from_pretrained` takes.

    Args:
        tensor (`torch.Tensor`): what to copy.
    """

    tensor: torch.Tensor

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Copies the tensor, or a part of it."""
        return self.tensor.detach()[index].clone()


def open_target(target: str | Path | PreTrainedModel, revision: str | None = None) -> Target:
    """Finds a target and reads what it says about itself.

    Args:
        target (`str`, `Path` or `PreTrainedModel`): folder, Hub name or model; of one that is offloaded, the
            checkpoint that it was loaded from is read.
        revision (`str`, *optional*): branch, tag or commit on the Hub.

    Returns:
        `CheckpointTarget` or `ModelTarget`: the target; none of its weights are read yet.

    Raises:
        HfChainError: when there is none, when it is of an unknown family or a surrogate itself, when it has an
            adapter, or when its weights are out of reach.
    """
    if isinstance(target, (str, Path)):
        checkpoint = open_checkpoint(target, revision)
        config = _config(checkpoint)
        _check_no_surrogate(config, checkpoint.name)
        return CheckpointTarget(checkpoint, config, _generation_config(checkpoint))
    if not isinstance(target, PreTrainedModel):
        raise HfChainError(
            f"a {type(target).__name__} cannot be cut: give a transformers model, its folder or its Hub name"
        )
    check_no_adapter(target, target.name_or_path or type(target).__name__)
    if getattr(target, "hf_quantizer", None) is not None:
        raise HfChainError(f"{type(target).__name__} is quantised in memory: give its folder or its Hub name instead")
    _check_no_surrogate(target.config, target.name_or_path or type(target).__name__)
    offloaded = any(weight.is_meta for weight in target.parameters())
    if offloaded and target.name_or_path:
        return _checkpoint_behind(target, revision)
    if offloaded or any(not weight.numel() for weight in target.parameters()):
        raise HfChainError(
            f"weights of this {type(target).__name__} are on disk or on other processes: give its folder or its Hub"
            " name instead"
        )
    return ModelTarget(target)


def _checkpoint_behind(model: PreTrainedModel, revision: str | None) -> CheckpointTarget:
    """Where an offloaded model came from, which its weights that are at hand have to confirm."""
    target = open_target(model.name_or_path, revision)
    assert isinstance(target, CheckpointTarget)
    at_hand = {
        name: weight
        for name, weight in model.state_dict().items()
        if not weight.is_meta and weight.dim() == 1 and name in target.names()
    }
    for name, tensor in target.weights(at_hand).items():
        if not torch.equal(tensor[:].to(at_hand[name].dtype), at_hand[name].cpu()):
            raise HfChainError(
                f"{name} of this offloaded {type(model).__name__} is not what {model.name_or_path} holds: give the"
                " folder or the revision that it was loaded from"
            )
    return target


def _check_no_surrogate(config: PreTrainedConfig, name: str) -> None:
    if is_surrogate(config):
        raise HfChainError(f"{name} is a surrogate itself, cut from {read_lineage(config).target}: cut that one")


def _config(checkpoint: Checkpoint) -> PreTrainedConfig:
    path = checkpoint.folder / "config.json"
    try:
        check_described(str(json.loads(path.read_text(encoding="utf-8"))["model_type"]))
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise HfChainError(
            f"{path} names no model_type, so it is no transformers model: give the folder or the Hub name of one"
        ) from error
    try:
        return AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
    except Exception as error:  # Configuration classes raise errors of their own.
        raise HfChainError(f"{path} cannot be read ({reason(error)}): put it right") from error


def _generation_config(checkpoint: Checkpoint) -> GenerationConfig | None:
    path = checkpoint.folder / "generation_config.json"
    if not path.exists():
        return None
    try:
        return GenerationConfig.from_pretrained(checkpoint.folder)
    except Exception as error:
        raise HfChainError(f"{path} cannot be read ({reason(error)}): put it right or remove it") from error
