"""timm: plain ViTs that classify by their class token, in `config.json` and `model.safetensors`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_chain.errors import HfChainError
from hf_chain.models.peers.peer import (
    ANY,
    RESAMPLING,
    Peer,
    Preprocessing,
    known_fields,
    layer,
    sections,
    square,
    whole_ratio,
)

if TYPE_CHECKING:
    from transformers import ViTConfig

_MODEL = "ViTForImageClassification"
_EPSILON = 1e-6

_SIZES: dict[str, tuple[int, int, int, float]] = {
    "tiny": (192, 12, 3, 4.0),
    "small": (384, 12, 6, 4.0),
    "base": (768, 12, 12, 4.0),
    "large": (1024, 24, 16, 4.0),
    "huge": (1280, 32, 16, 4.0),
    "giant": (1408, 40, 16, 48 / 11),
    "gigantic": (1664, 48, 16, 64 / 13),
}
"""Width, depth, heads and MLP ratio of the architectures `vit_SIZE_patchP_S` and `deit_SIZE_patchP_S`."""

_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu"}
_ARGUMENTS = {
    **dict.fromkeys(("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads"), ANY),
    **dict.fromkeys(("mlp_ratio", "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate"), ANY),
    **dict.fromkeys(("attn_drop_rate", "drop_path_rate", "weight_init", "fix_init"), ANY),
    **dict.fromkeys(("qk_norm", "scale_attn_norm", "scale_mlp_norm", "no_embed_class", "pre_norm"), (False,)),
    **dict.fromkeys(("dynamic_img_size", "dynamic_img_pad", "pool_include_prefix"), (False,)),
    **dict.fromkeys(("init_values", "embed_norm_layer", "norm_layer"), (None,)),
    **dict.fromkeys(("class_token", "proj_bias", "final_norm"), (True,)),
    "qkv_bias": (True, False),
    "act_layer": (None, *_ACTIVATIONS),
    "global_pool": ("token",),
    "pos_embed": ("learn",),
    "reg_tokens": (0,),
    "fc_norm": (None, False),
}
"""Argument of a ViT -> the values that have a counterpart."""


def _arguments(told: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The arguments that the model is built with, those of its architecture and those of its own."""
    architecture = str(told.get("architecture")).partition(".")[0]
    match = re.fullmatch(rf"(?:vit|deit)_({'|'.join(_SIZES)})_patch(\d+)_(\d+)", architecture)
    if match is None:
        raise HfChainError(
            f"{name}: architecture {architecture!r} has no counterpart in {_MODEL}: plain ViTs have, such as"
            " vit_base_patch16_224"
        )
    width, depth, heads, ratio = _SIZES[match[1]]
    found: dict[str, Any] = {
        "patch_size": int(match[2]),
        "img_size": int(match[3]),
        "embed_dim": width,
        "depth": depth,
    }
    found |= {"num_heads": heads, "mlp_ratio": ratio, "in_chans": 3, "qkv_bias": True}
    found |= {field: told[field] for field in ("num_classes", "global_pool") if field in told}
    (own,) = sections(told, "model_args", where=f"{name}: ")
    found |= own
    known_fields(found, _ARGUMENTS, f"{name}: ", _MODEL)
    return found


def _read_config(told: Mapping[str, Any], name: str) -> ViTConfig:
    from transformers import ViTConfig

    model = _arguments(told, name)
    pretrained, classes = told.get("pretrained_cfg") or {}, model.get("num_classes", 1000)
    labels = told.get("label_names") or pretrained.get("label_names")
    named = {"id2label": dict(enumerate(labels))} if labels and len(labels) == classes else {"num_labels": classes}
    return ViTConfig(
        hidden_size=model["embed_dim"],
        num_hidden_layers=model["depth"],
        num_attention_heads=model["num_heads"],
        intermediate_size=int(model["embed_dim"] * model["mlp_ratio"]),
        hidden_act=_ACTIVATIONS[model.get("act_layer") or "gelu"],
        layer_norm_eps=_EPSILON,
        image_size=square(model["img_size"], f"{name}: img_size", _MODEL),
        patch_size=square(model["patch_size"], f"{name}: patch_size", _MODEL),
        num_channels=model["in_chans"],
        qkv_bias=model["qkv_bias"],
        **named,
    )


def _write_config(config: ViTConfig, images: Preprocessing | None, tokenizer: bool, name: str) -> dict[str, Any]:
    activations = {stock: theirs for theirs, stock in _ACTIVATIONS.items()}
    if config.hidden_act not in activations:
        raise HfChainError(
            f"{name}: hidden_act={config.hidden_act!r} has no counterpart in timm: {' and '.join(activations)} have"
        )
    side = square(config.image_size, f"{name}: image_size", "timm")
    arguments = {
        "img_size": side,
        "patch_size": square(config.patch_size, f"{name}: patch_size", "timm"),
        "in_chans": config.num_channels,
        "num_classes": config.num_labels,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": whole_ratio(config.intermediate_size, config.hidden_size),
        "qkv_bias": config.qkv_bias,
    }
    arguments |= {"act_layer": activations[config.hidden_act]} if config.hidden_act != "gelu" else {}
    pretrained: dict[str, Any] = {
        "input_size": [config.num_channels, side, side],
        "fixed_input_size": True,
        "num_classes": config.num_labels,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    if images is not None:
        if images.crop != side:
            raise HfChainError(
                f"{name}: the image processor cuts {images.crop} pixels, and the model takes {side}: set crop_size"
            )
        pretrained |= {
            "mean": list(images.mean),
            "std": list(images.std),
            "interpolation": images.interpolation,
            "crop_pct": _share(images),
            "crop_mode": "squash" if images.squash else "center",
        }
    labels = [config.id2label[number] for number in range(config.num_labels)]
    if labels != [f"LABEL_{number}" for number in range(config.num_labels)]:
        pretrained["label_names"] = labels
    return {
        # Any: the arguments say all that it would.
        "architecture": "vit_base_patch16_224",
        "num_classes": config.num_labels,
        "num_features": config.hidden_size,
        "global_pool": "token",
        "model_args": arguments,
        "pretrained_cfg": pretrained,
    }


def _share(images: Preprocessing) -> float:
    """A share of the resized side that is cut out, from which `int(crop / share)` is that side again."""
    share = images.crop / images.size
    return share if int(images.crop / share) == images.size else images.crop / (images.size + 0.5)


def _preprocessing(told: Mapping[str, Any], config: ViTConfig) -> Preprocessing:
    (images,) = sections(told, "pretrained_cfg", where="")
    used = {field: images[field] for field in ("interpolation", "crop_mode") if images.get(field)}
    known = {"interpolation": list(RESAMPLING), "crop_mode": ("center", "squash")}
    known_fields(used, known, "pretrained_cfg.", "transformers")
    side = int(config.image_size)
    return Preprocessing(
        int(side / (images.get("crop_pct") or 0.875)),
        side,
        tuple(images.get("mean") or (0.485, 0.456, 0.406)),
        tuple(images.get("std") or (0.229, 0.224, 0.225)),
        images.get("interpolation") or "bicubic",
        images.get("crop_mode") == "squash",
    )


TIMM = Peer(
    name="timm",
    model=_MODEL,
    config_file="config.json",
    weights_file="model.safetensors",
    outer={
        "cls_token": ("vit.embeddings.cls_token",),
        "pos_embed": ("vit.embeddings.position_embeddings",),
    }
    | layer("patch_embed.proj", "vit.embeddings.patch_embeddings.projection")
    | layer("norm", "vit.layernorm")
    | layer("head", "classifier"),
    blocks=(("blocks.", "vit.layers."),),
    block=layer("norm1", "layernorm_before")
    | layer("attn.qkv", *(f"attention.{name}_proj" for name in "qkv"))
    | layer("attn.proj", "attention.o_proj")
    | layer("norm2", "layernorm_after")
    | layer("mlp.fc1", "mlp.fc1")
    | layer("mlp.fc2", "mlp.fc2"),
    read_config=_read_config,
    write_config=_write_config,
    preprocessing=_preprocessing,
    epsilon=_EPSILON,
)
