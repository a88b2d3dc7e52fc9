"""Between the model that is trained and the stock model: configurations, weights, and the file beside the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPConfig, CLIPModel
from transformers.utils import cached_file

from hf_chain.adapters import HUB
from hf_chain.errors import HfChainError
from hf_chain.models.chain_clip.configuration_chain_clip import ChainCLIPConfig

MAX_LOGIT_SCALE = math.log(100)
"""Largest logarithm of the logit scale (CLIP, arXiv 2103.00020, section 2.5)."""

MAP_SUFFIX = "_to_teacher."
TEACHER_MAPS_NAME = "teacher_maps.safetensors"


def chain_config(config: CLIPConfig, teacher_projection_dim: int | None) -> ChainCLIPConfig:
    """A stock model's configuration, as that of a model in training."""
    dropped = ("model_type", "architectures", "teacher_projection_dim")
    values = {key: value for key, value in config.to_dict().items() if key not in dropped}
    chain = ChainCLIPConfig(**values, teacher_projection_dim=teacher_projection_dim)
    chain._attn_implementation, chain.name_or_path = config._attn_implementation, config.name_or_path
    return chain


def stock_config(config: ChainCLIPConfig) -> CLIPConfig:
    """The configuration of the stock model with the same weights."""
    dropped = ("model_type", "architectures", "teacher_projection_dim", "transformers_version")
    stock = CLIPConfig(**{key: value for key, value in config.to_dict().items() if key not in dropped})
    stock._attn_implementation = config._attn_implementation
    return stock


def maps_name(variant: str | None = None) -> str:
    """Name of the file with the maps to the teacher."""
    return TEACHER_MAPS_NAME.replace(".", f".{variant}.") if variant else TEACHER_MAPS_NAME


def maps_beside(name: str, variant: str | None = None, **kwargs: Any) -> dict[str, torch.Tensor]:
    """The maps to the teacher in a folder or repository; none where the model has no need of them."""
    source = {option: kwargs[option] for option in (*HUB, "subfolder") if option in kwargs}
    lenient = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    path = cached_file(name, maps_name(variant), **source, **lenient)
    return load_file(path) if path else {}


def only_maps(state: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """Those weights that the stock model does not have."""
    return {name: weight for name, weight in (state or {}).items() if MAP_SUFFIX in name}


def stock_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The stock model's weights, with its 0-d logit scale."""
    stock = {name: weight for name, weight in state.items() if MAP_SUFFIX not in name}
    return stock | {"logit_scale": stock["logit_scale"].reshape(()).clamp(max=MAX_LOGIT_SCALE)}


def check_stock(model: nn.Module) -> None:
    """Refuses a model that is more or other than a `CLIPModel` of its configuration, which would be lost.

    Raises:
        HfChainError: naming what it is, or a weight or method that is its own.
    """
    kind = type(model)
    if not isinstance(model, CLIPModel) or isinstance(model.config, ChainCLIPConfig):
        raise HfChainError(f"the model to train is a {kind.__name__}: give a CLIPModel")
    for name in ("forward", "get_image_features", "get_text_features"):
        if getattr(kind, name) is not getattr(CLIPModel, name):
            raise HfChainError(f"{kind.__name__} has its own {name}, which would not be called: give a CLIPModel")
    if getattr(model, "is_quantized", False):
        raise HfChainError("the model to train is quantised: load it without quantization_config")
    with torch.device("meta"):
        stock = {name: list(weight.shape) for name, weight in CLIPModel(model.config).state_dict().items()}
    own = {name: list(weight.shape) for name, weight in model.state_dict().items()}
    for name in sorted(own.keys() | stock.keys()):
        has, says = own.get(name, "absent"), stock.get(name, "absent")
        # A logit scale of one number may have any shape.
        if has != says and (name != "logit_scale" or "absent" in (has, says)):
            raise HfChainError(
                f"{name} of the model to train is {has}, and of a CLIPModel with its configuration {says}: it would be"
                " lost, so give a CLIPModel as its configuration says"
            )
