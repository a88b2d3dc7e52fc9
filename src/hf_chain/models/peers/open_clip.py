"""open_clip: CLIPs of two transformers, in `open_clip_config.json` and `open_clip_model.safetensors`."""

from __future__ import annotations

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
    from transformers import CLIPConfig

_MODEL = "CLIPModel"

_ATTENTION = {
    f"attn.in_proj_{kind}": tuple(f"self_attn.{name}_proj.{kind}" for name in "qkv") for kind in ("weight", "bias")
}

_MODEL_FIELDS = {
    "embed_dim": ANY,
    "vision_cfg": ANY,
    "text_cfg": ANY,
    "quick_gelu": (False, True),
    "custom_text": (False,),
    "init_logit_scale": ANY,
    "init_logit_bias": (None,),
    "nonscalar_logit_scale": (False,),
}
_TOWER_FIELDS = {
    **dict.fromkeys(("layers", "width", "mlp_ratio", "norm_kwargs", "output_tokens"), ANY),
    **dict.fromkeys(("ls_init_value", "act_kwargs"), (None,)),
    **dict.fromkeys(("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner"), (False,)),
    **dict.fromkeys(("scale_attn", "scale_fc", "final_ln_after_pool"), (False,)),
    "block_type": (None, "default"),
}
_VISION_FIELDS = _TOWER_FIELDS | {
    **dict.fromkeys(("head_width", "patch_size", "image_size", "patch_dropout"), ANY),
    **dict.fromkeys(("attn_pooler_queries", "attn_pooler_heads"), ANY),
    "attentional_pool": (False,),
    "no_ln_pre": (False,),
    "pos_embed_type": ("learnable",),
    "pool_type": ("tok",),
    "timm_model_name": (None,),
}
_TEXT_FIELDS = _TOWER_FIELDS | {
    **dict.fromkeys(("context_length", "vocab_size", "heads", "pad_id", "eos_id"), ANY),
    **dict.fromkeys(("hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"), ANY),
    "embed_cls": (False,),
    "no_causal_mask": (False,),
    "pool_type": ("argmax", "eos"),
    "proj_bias": (False,),
    "proj_type": ("linear",),
    "hf_model_name": (None,),
}
"""Field -> the values that have a counterpart."""

_VISION = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
_TEXT = {"layers": 12, "width": 512, "heads": 8, "mlp_ratio": 4.0, "context_length": 77, "vocab_size": 49408}
"""What open_clip takes where a field is left out."""

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_ACTIVATIONS = {False: "gelu", True: "quick_gelu"}
_EPSILON = 1e-5
_ARGMAX = 2
"""As an `eos_token_id`, by which transformers pools at the largest id."""


def _read_config(told: Mapping[str, Any], name: str) -> CLIPConfig:
    from transformers import CLIPConfig

    (model,) = sections(told, "model_cfg", where=f"{name}: ")
    known_fields(model, _MODEL_FIELDS, f"{name}: ", _MODEL)
    vision, text = sections(model, "vision_cfg", "text_cfg", where=f"{name}: ")
    if isinstance(vision.get("layers"), list):
        raise HfChainError(f"{name}: vision_cfg.layers={vision['layers']} is a ResNet, which {_MODEL} has not")
    known_fields(vision, _VISION_FIELDS, f"{name}: vision_cfg.", _MODEL)
    known_fields(text, _TEXT_FIELDS, f"{name}: text_cfg.", _MODEL)
    vision, text = _VISION | dict(vision), _TEXT | dict(text)
    by_id = text.get("pool_type") == "eos"
    end = text.get("eos_id", _ARGMAX) if by_id else text["vocab_size"] - 1
    if by_id and end == _ARGMAX:
        raise HfChainError(
            f"{name}: text_cfg.eos_id={end} has no counterpart in {_MODEL}, which takes it for the largest id"
        )
    activation = _ACTIVATIONS[bool(model.get("quick_gelu"))]
    return CLIPConfig(
        vision_config=_tower(vision, vision["width"] // vision["head_width"], f"{name}: vision_cfg.")
        | {
            "hidden_act": activation,
            "image_size": square(vision["image_size"], f"{name}: vision_cfg.image_size", _MODEL),
            "patch_size": square(vision["patch_size"], f"{name}: vision_cfg.patch_size", _MODEL),
        },
        text_config=_tower(text, text["heads"], f"{name}: text_cfg.")
        | {
            "hidden_act": activation,
            "max_position_embeddings": text["context_length"],
            "vocab_size": text["vocab_size"],
            "bos_token_id": end - 1,
            "eos_token_id": end,
        },
        projection_dim=model["embed_dim"],
    )


def _tower(told: Mapping[str, Any], heads: int, where: str) -> dict[str, Any]:
    norms = told.get("norm_kwargs") or {}
    known_fields(norms, {"eps": ANY}, f"{where}norm_kwargs.", _MODEL)
    return {
        "hidden_size": told["width"],
        "num_hidden_layers": told["layers"],
        "num_attention_heads": heads,
        "intermediate_size": int(told["width"] * told["mlp_ratio"]),
        "layer_norm_eps": norms.get("eps", _EPSILON),
    }


def _write_config(config: CLIPConfig, images: Preprocessing | None, tokenizer: bool, name: str) -> dict[str, Any]:
    vision, text = config.vision_config, config.text_config
    activations = {activation: quick for quick, activation in _ACTIVATIONS.items()}
    for part, tower in (("vision_config", vision), ("text_config", text)):
        if tower.hidden_act not in activations or tower.hidden_act != vision.hidden_act:
            raise HfChainError(
                f"{name}: {part}.hidden_act={tower.hidden_act!r} has no counterpart in open_clip: both towers have to"
                " have 'gelu' or 'quick_gelu'"
            )
    if vision.num_channels != 3:
        raise HfChainError(f"{name}: vision_config.num_channels={vision.num_channels} is not the 3 of open_clip")
    by_id = text.eos_token_id not in (_ARGMAX, text.vocab_size - 1)
    told: dict[str, Any] = {"embed_dim": config.projection_dim}
    told |= {"quick_gelu": True} if activations[vision.hidden_act] else {}
    told["vision_cfg"] = {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "head_width": vision.hidden_size // vision.num_attention_heads,
    } | _written_tower(vision)
    told["text_cfg"] = {
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "heads": text.num_attention_heads,
    } | _written_tower(text)
    # Of a local folder open_clip takes the tokenizer that lies there, if any is named.
    told["text_cfg"] |= {"hf_tokenizer_name": "."} if tokenizer else {}
    told["text_cfg"] |= {"pool_type": "eos", "eos_id": text.eos_token_id} if by_id else {}
    if images is None:
        return {"model_cfg": told}
    if not images.size == images.crop == vision.image_size:
        raise HfChainError(
            f"{name}: open_clip resizes images to the {vision.image_size} pixels that the model takes, and the image"
            f" processor to {images.size} and cuts {images.crop}: change its size and crop_size"
        )
    preprocessing = {
        "mean": list(images.mean),
        "std": list(images.std),
        "interpolation": images.interpolation,
        "resize_mode": "squash" if images.squash else "shortest",
    }
    return {"model_cfg": told, "preprocess_cfg": preprocessing}


def _written_tower(config: Any) -> dict[str, Any]:
    told = {
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "mlp_ratio": whole_ratio(config.intermediate_size, config.hidden_size),
    }
    return told | ({"norm_kwargs": {"eps": config.layer_norm_eps}} if config.layer_norm_eps != _EPSILON else {})


def _preprocessing(told: Mapping[str, Any], config: CLIPConfig) -> Preprocessing:
    (images,) = sections(told, "preprocess_cfg", where="")
    known = {"interpolation": list(RESAMPLING), "resize_mode": ("shortest", "squash"), "mode": ("RGB",)}
    known_fields(
        images, known | dict.fromkeys(("size", "mean", "std", "fill_color"), ANY), "preprocess_cfg.", "transformers"
    )
    side = config.vision_config.image_size
    return Preprocessing(
        side,
        side,
        tuple(images.get("mean") or _MEAN),
        tuple(images.get("std") or _STD),
        images.get("interpolation", "bicubic"),
        images.get("resize_mode") == "squash",
    )


OPEN_CLIP = Peer(
    name="open_clip",
    model=_MODEL,
    config_file="open_clip_config.json",
    weights_file="open_clip_model.safetensors",
    outer={
        "logit_scale": ("logit_scale",),
        "visual.class_embedding": ("vision_model.embeddings.class_embedding",),
        "visual.positional_embedding": ("vision_model.embeddings.position_embedding.weight",),
        "visual.conv1.weight": ("vision_model.embeddings.patch_embedding.weight",),
        "visual.proj": ("visual_projection.weight",),
        "token_embedding.weight": ("text_model.embeddings.token_embedding.weight",),
        "positional_embedding": ("text_model.embeddings.position_embedding.weight",),
        "text_projection": ("text_projection.weight",),
    }
    | layer("visual.ln_pre", "vision_model.pre_layrnorm")
    | layer("visual.ln_post", "vision_model.post_layernorm")
    | layer("ln_final", "text_model.final_layer_norm"),
    blocks=(
        ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
        ("transformer.resblocks.", "text_model.encoder.layers."),
    ),
    block=layer("ln_1", "layer_norm1")
    | _ATTENTION
    | layer("attn.out_proj", "self_attn.out_proj")
    | layer("ln_2", "layer_norm2")
    | layer("mlp.c_fc", "mlp.fc1")
    | layer("mlp.c_proj", "mlp.fc2"),
    transposed=frozenset({"visual.proj", "text_projection"}),
    read_config=_read_config,
    write_config=_write_config,
    preprocessing=_preprocessing,
)
