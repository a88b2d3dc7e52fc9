"""One row a family: a tiny model, and what grows in it. A new family needs its row here and nothing else."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from hf_chain.families import family_of
from hf_chain.growth.growth import fresh_model
from hf_chain.growth.measure import random_inputs

Changes = Mapping[str, Any]

WORDS = {"vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
DECODER = WORDS | {"hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = DECODER | {"num_key_value_heads": 2, "max_position_embeddings": 32}


@dataclass(frozen=True)
class Row:
    """A family in the tests.

    Args:
        model (`str`): The stock class.
        sizes (`dict`): Arguments of its configuration, sections by name.
        grown (`dict`): What grows -> fields of the successor, with their section and a dot.
        errors (`dict`): What grows -> bound of the relative error where it is not exact.
        idle (`str`): Regular expression of weights that get no gradient in any model, such as biases of keys.
    """

    model: str
    sizes: Changes
    grown: Mapping[str, Changes]
    errors: Mapping[str, float] = field(default_factory=dict)
    idle: str = r".*(?:k_proj|c_attn|query_key_value)\.bias|.*in_proj_bias|pooler\..*|.*mask_token"

    def is_idle(self, weight: str) -> bool:
        """Whether a weight gets no gradient."""
        return re.fullmatch(self.idle, weight) is not None

    def loss(self, model: PreTrainedModel, generator: torch.Generator) -> torch.Tensor:
        """What the model is trained by in tests: random outputs of random inputs."""
        inputs = random_inputs(model, generator, 16)
        if family_of(model.config).kind == "dual":
            return model(**inputs, return_loss=True).loss
        output = model(**inputs)
        names = ("logits", "image_embeds", "pooler_output", "last_hidden_state")
        found = next(value for name in names if (value := getattr(output, name, None)) is not None)
        return (found - torch.randn(found.shape, generator=generator, dtype=found.dtype)).square().mean()

    def config(self, what: str | None = None) -> Any:
        """The configuration of the tiny model, or of one in which something has grown."""
        sizes = {key: dict(value) if isinstance(value, dict) else value for key, value in self.sizes.items()}
        for path, value in (self.grown[what] if what else {}).items():
            *part, name = path.split(".")
            (sizes[part[0]] if part else sizes)[name] = value
        config = getattr(transformers, self.model).config_class(**sizes)
        # The others compute in at most float32.
        config._experts_implementation = "eager"
        return config

    def shapes(self, what: str) -> dict[str, torch.Size]:
        """Shapes of the weights of a model in which something has grown."""
        with torch.device("meta"):
            model = getattr(transformers, self.model)(self.config(what))
        return {name: weight.shape for name, weight in model.named_parameters()}

    def trained_like(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> PreTrainedModel:
        """A model whose gains, offsets and biases are as uneven as training leaves them (std 0.3)."""
        model = fresh_model(self.config(), getattr(transformers, self.model), seed, torch.float64)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                scale = 0.3 if weight.dim() == 1 else 0.05
                if name not in ("logit_scale", "logit_bias"):
                    weight += torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * scale
        return model.to(dtype).eval()


class _Float64(ModuleType):
    """Torch, in which float32 is float64."""

    float32 = float = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def compute_in_float64(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock norms and softmaxes compute in float32 whatever the model is in; those of this model no longer do.

    Torch itself stays: whatever is imported meanwhile would keep its types for good.
    """
    for name in {type(part).__module__ for part in model.modules()}:
        if name.startswith("transformers."):
            monkeypatch.setattr(sys.modules[name], "torch", _Float64("torch"), raising=False)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def decoder(model: str, sizes: Changes = GROUPED, errors: Mapping[str, float] | None = None, **grown: Changes) -> Row:
    """A language model with rotary heads of six channels; `grown` replaces and adds to what grows."""
    everywhere = {
        "width": {"hidden_size": 36, "num_attention_heads": 6, "num_key_value_heads": 3},
        "twice the width": {"hidden_size": 48, "num_attention_heads": 8, "num_key_value_heads": 2},
        "depth": {"num_hidden_layers": 5},
        "heads": {"num_attention_heads": 6, "head_dim": 6},
        "key-value heads": {"num_key_value_heads": 4},
        "MLP": {"intermediate_size": 50},
        "vocabulary": {"vocab_size": 44},
        "everything": {
            "hidden_size": 42,
            "num_attention_heads": 7,
            "num_key_value_heads": 7,
            "num_hidden_layers": 3,
            "intermediate_size": 80,
        },
    }
    return Row(
        model, sizes, {what: changes for what, changes in (everywhere | grown).items() if changes}, errors or {}
    )


WIDER = {"hidden_size": 36, "num_attention_heads": 6}
"""Half as wide again; heads keep their six channels."""

SQUARE = {"hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 4}
PIXELS = SQUARE | {"image_size": 16, "patch_size": 4}
ALIGNED = {"hidden_size": 48, "num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 3}
"""Sizes that kernels for experts take in float32."""

EXPERTS = {"num_local_experts": 3, "num_experts_per_tok": 2}
MORE_EXPERTS = {"num_local_experts": 6, "num_experts_per_tok": 4}


def _in(part: str, changes: Changes) -> Changes:
    return {f"{part}.{name}": value for name, value in changes.items()}


def tower(model: str, sizes: Changes = PIXELS, errors: Mapping[str, float] | None = None, **grown: Changes) -> Row:
    """A vision model; `grown` replaces and adds to what grows."""
    everywhere = {
        "width": WIDER,
        "twice the width": {"hidden_size": 48, "num_attention_heads": 8},
        "depth": {"num_hidden_layers": 5},
        "heads": {"hidden_size": 48, "num_attention_heads": 4},
        "MLP": {"intermediate_size": 50},
        "everything": {
            "hidden_size": 40,
            "num_attention_heads": 5,
            "num_hidden_layers": 3,
            "intermediate_size": 80,
        },
    }
    return Row(
        model, sizes, {what: changes for what, changes in (everywhere | grown).items() if changes}, errors or {}
    )


SWIN = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 12,
    "depths": [2, 2, 2],
    "num_heads": [2, 4, 8],
    "window_size": 4,
}
CONVNEXT = {"image_size": 32, "patch_size": 2, "hidden_sizes": [12, 24, 36], "depths": [1, 2, 1], "num_stages": 3}


def staged(model: str, sizes: Changes = SWIN, error: float = 1e-3) -> Row:
    """A vision model of stages; `error` bounds that of widths that are no multiples."""
    if sizes is CONVNEXT:
        grown: dict[str, Changes] = {
            "width": {"hidden_sizes": [18, 36, 54]},
            "twice the width": {"hidden_sizes": [24, 48, 72]},
            "depth": {"depths": [1, 5, 2]},
            "everything": {"hidden_sizes": [24, 24, 72], "depths": [2, 4, 1]},
        }
        return Row(model, sizes, grown, {"width": 1e-4})
    grown = {
        "width": {"embed_dim": 18, "num_heads": [3, 6, 12]},
        "twice the width": {"embed_dim": 24, "num_heads": [4, 8, 16]},
        "depth": {"depths": [4, 6, 2]},
        "MLP": {"mlp_ratio": 5.0},
        "everything": {"embed_dim": 24, "num_heads": [4, 8, 16], "depths": [4, 2, 4], "mlp_ratio": 5.0},
    }
    if sizes is SWIN:
        grown |= {"heads": {"embed_dim": 24}, "everything": {**grown["everything"], "num_heads": [4, 8, 8]}}
    return Row(model, sizes, grown, {"width": error})


ROOT_OF_WIDTH = {"width": 1e-7, "twice the width": 1e-7, "everything": 1e-7}
"""Gemma multiplies embeddings by the root of the width in float32."""


def dual(
    model: str,
    text: Changes,
    vision: Changes,
    as_wide_as_vision: str = "",
    vision_mlp: Changes | None = None,
    behind_norm: float | None = None,
    **sizes: Any,
) -> Row:
    """A dual encoder whose towers grow alone and together, and a field that is as wide as the image tower.

    `behind_norm` bounds the error of an image tower with a norm before its first block.
    """
    mlp = _in("vision_config", vision_mlp or {"intermediate_size": 50})
    text_wider = _in("text_config", WIDER)
    vision_wider = _in("vision_config", WIDER | {"num_hidden_layers": 3}) | mlp
    vision_wider |= {as_wide_as_vision: 36} if as_wide_as_vision else {}
    vision_twice = _in("vision_config", {"hidden_size": 48, "num_attention_heads": 8})
    return Row(
        model,
        {"text_config": text, "vision_config": vision} | sizes,
        {
            "text width": text_wider,
            "text depth": {"text_config.num_hidden_layers": 5},
            "heads": _in("text_config", {"hidden_size": 48, "num_attention_heads": 4}),
            "MLP": {"text_config.intermediate_size": 50} | mlp,
            "vision width": vision_wider,
            "twice the vision width": vision_twice | ({as_wide_as_vision: 48} if as_wide_as_vision else {}),
            "everything": text_wider | {"text_config.intermediate_size": 50} | vision_wider,
        }
        | ({"embedding": text_wider | {"projection_dim": 16}} if "projection_dim" in sizes else {}),
        errors={"vision width": behind_norm, "everything": behind_norm} if behind_norm else {},
    )


ONE_HEAD_EACH = {
    "width": {"hidden_size": 36, "num_attention_heads": 6},
    "twice the width": {"hidden_size": 48, "num_attention_heads": 8},
    "heads": {"num_attention_heads": 4},
    "key-value heads": {},
    "everything": {"hidden_size": 42, "num_attention_heads": 7, "num_hidden_layers": 3, "intermediate_size": 80},
}
"""What grows in a decoder in which each head has its own keys and values."""

GPT_2 = {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 16, "n_inner": 36} | WORDS
OPT = WORDS | {
    "hidden_size": 24,
    "ffn_dim": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
    "word_embed_proj_dim": 24,
    "dropout": 0.0,
    "activation_function": "gelu",
}
HEADS = {"head_dim": 6}
TEXT = WORDS | SQUARE | {"max_position_embeddings": 8}

ROWS: dict[str, Row] = {
    "llama": decoder("LlamaForCausalLM", GROUPED | {"attention_bias": True, "mlp_bias": True}),
    "llama, tied": decoder("LlamaForCausalLM", GROUPED | {"tie_word_embeddings": True}),
    "mistral": decoder("MistralForCausalLM"),
    "qwen2": decoder("Qwen2ForCausalLM"),
    "qwen3": decoder("Qwen3ForCausalLM", GROUPED | HEADS),
    "granite": decoder("GraniteForCausalLM", GROUPED | {"embedding_multiplier": 2.0, "logits_scaling": 3.0}),
    "smollm3": decoder(
        "SmolLM3ForCausalLM",
        GROUPED | {"num_hidden_layers": 4, "no_rope_layer_interval": 2},
        depth={"num_hidden_layers": 7},
        everything={"hidden_size": 36, "num_attention_heads": 6, "num_hidden_layers": 6, "intermediate_size": 40},
    ),
    "gemma": decoder("GemmaForCausalLM", GROUPED | HEADS, ROOT_OF_WIDTH),
    "gemma2": decoder("Gemma2ForCausalLM", GROUPED | HEADS, ROOT_OF_WIDTH),
    "gemma3": decoder("Gemma3ForCausalLM", GROUPED | HEADS, ROOT_OF_WIDTH),
    "phi": decoder("PhiForCausalLM", GROUPED | {"partial_rotary_factor": 0.67}, heads={}),
    "phi3": decoder("Phi3ForCausalLM"),
    "olmo2": decoder("Olmo2ForCausalLM"),
    "olmo3": decoder("Olmo3ForCausalLM"),
    "cohere": decoder("CohereForCausalLM"),
    "stablelm": decoder("StableLmForCausalLM", heads={}),
    "starcoder2": decoder("Starcoder2ForCausalLM"),
    "glm4": decoder("Glm4ForCausalLM", GROUPED | HEADS),
    "nemotron": decoder(
        "NemotronForCausalLM", GROUPED | {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}
    ),
    "arcee": decoder("ArceeForCausalLM", GROUPED | {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "mixtral": decoder(
        "MixtralForCausalLM",
        GROUPED | EXPERTS,
        experts=MORE_EXPERTS,
        everything=ALIGNED,
    ),
    "qwen3_moe": decoder(
        "Qwen3MoeForCausalLM",
        GROUPED | HEADS | {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 12},
        experts={"num_experts": 6, "num_experts_per_tok": 4},
        MLP={"moe_intermediate_size": 16},
        everything=ALIGNED,
    ),
    "gpt_oss": decoder(
        "GptOssForCausalLM",
        GROUPED | HEADS | EXPERTS,
        experts=MORE_EXPERTS,
        everything=ALIGNED,
    ),
    "gpt2": decoder(
        "GPT2LMHeadModel",
        GPT_2,
        **ONE_HEAD_EACH
        | {
            "width": {"n_embd": 36, "n_head": 6},
            "twice the width": {"n_embd": 48, "n_head": 8},
            "larger heads": {"n_embd": 48},
            "depth": {"n_layer": 5},
            "MLP": {"n_inner": 50},
            "context": {"n_positions": 20},
            "everything": {"n_embd": 42, "n_head": 6, "n_layer": 3, "n_inner": 80},
        },
    ),
    "opt": decoder(
        "OPTForCausalLM",
        OPT,
        **ONE_HEAD_EACH
        | {
            "width": {"hidden_size": 36, "num_attention_heads": 6, "word_embed_proj_dim": 36},
            "twice the width": {"hidden_size": 48, "num_attention_heads": 8, "word_embed_proj_dim": 48},
            "MLP": {"ffn_dim": 50},
            "everything": {
                "hidden_size": 42,
                "num_attention_heads": 6,
                "num_hidden_layers": 3,
                "ffn_dim": 80,
                "word_embed_proj_dim": 42,
            },
        },
    ),
    "gpt_neox": decoder("GPTNeoXForCausalLM", DECODER | {"max_position_embeddings": 32}, **ONE_HEAD_EACH),
    "vit": tower("ViTModel"),
    "vit, classes": tower("ViTForImageClassification", classes={}),
    "deit": tower("DeiTForImageClassificationWithTeacher"),
    "vit_mae": tower(
        "ViTMAEForPreTraining",
        PIXELS
        | {
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 20,
        },
    ),
    "dinov2": tower(
        "Dinov2Model",
        PIXELS | {"mlp_ratio": 2},
        MLP={"mlp_ratio": 3},
        everything={"hidden_size": 40, "num_attention_heads": 5, "num_hidden_layers": 3},
    ),
    "dinov2_with_registers": tower(
        "Dinov2WithRegistersForImageClassification",
        PIXELS | {"mlp_ratio": 2, "use_swiglu_ffn": True, "num_register_tokens": 2},
        MLP={"mlp_ratio": 3},
        everything={"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 3},
    ),
    "swin": staged("SwinModel"),
    "swin, classes": staged("SwinForImageClassification"),
    "swinv2": staged("Swinv2Model", SWIN | {"mlp_ratio": 2.0}, 1e-1),
    "convnext": staged("ConvNextModel", CONVNEXT),
    "convnext, classes": staged("ConvNextForImageClassification", CONVNEXT),
    "clip": dual("CLIPModel", TEXT, PIXELS, behind_norm=1e-4, projection_dim=12),
    "clip_vision_model": tower("CLIPVisionModelWithProjection", errors={"width": 1e-3, "everything": 1e-3}),
    "clip_text_model": tower("CLIPTextModel", TEXT),
    "siglip_vision_model": tower("SiglipVisionModel"),
    "siglip2_vision_model": tower("Siglip2VisionModel", SQUARE | {"num_patches": 16, "patch_size": 4}),
    "siglip_text_model": tower("SiglipTextModel", TEXT | {"projection_size": 24}),
    "siglip": dual(
        "SiglipModel", TEXT | {"projection_size": 24}, PIXELS, as_wide_as_vision="text_config.projection_size"
    ),
    "siglip2": dual(
        "Siglip2Model",
        TEXT | {"projection_size": 24},
        SQUARE | {"num_patches": 16, "patch_size": 4},
        as_wide_as_vision="text_config.projection_size",
    ),
    "dual encoder of vit and clip": dual(
        "VisionTextDualEncoderModel",
        TEXT | {"model_type": "clip_text_model"},
        PIXELS | {"model_type": "vit"},
        as_wide_as_vision="vision_config.pooler_output_size",
        projection_dim=12,
    ),
    "dual encoder of siglip and clip": dual(
        "VisionTextDualEncoderModel",
        TEXT | {"model_type": "clip_text_model"},
        PIXELS | {"model_type": "siglip_vision_model"},
        projection_dim=12,
    ),
    "dual encoder of dinov2 and clip": dual(
        "VisionTextDualEncoderModel",
        TEXT | {"model_type": "clip_text_model"},
        PIXELS | {"model_type": "dinov2", "mlp_ratio": 2},
        vision_mlp={"mlp_ratio": 3},
        projection_dim=12,
    ),
    "dual encoder of clip and clip": dual(
        "VisionTextDualEncoderModel",
        TEXT | {"model_type": "clip_text_model"},
        PIXELS | {"model_type": "clip_vision_model"},
        behind_norm=1e-3,
        projection_dim=12,
    ),
    "dual encoder of swin and bert": Row(
        "VisionTextDualEncoderModel",
        {
            "text_config": TEXT | {"model_type": "bert"},
            "vision_config": SWIN | {"model_type": "swin"},
            "projection_dim": 12,
        },
        {
            "twice the vision width": _in("vision_config", {"embed_dim": 24, "num_heads": [4, 8, 16]}),
            "depth": {"vision_config.depths": [2, 4, 2]},
            "everything": _in("vision_config", {"embed_dim": 24, "num_heads": [4, 8, 16], "depths": [2, 4, 2]})
            | {"projection_dim": 16},
        },
    ),
    "dual encoder of vit and bert": Row(
        "VisionTextDualEncoderModel",
        {
            "text_config": TEXT | {"model_type": "bert"},
            "vision_config": PIXELS | {"model_type": "vit"},
            "projection_dim": 12,
        },
        {
            "vision width": _in("vision_config", WIDER | {"pooler_output_size": 36}),
            "depth": {"vision_config.num_hidden_layers": 5},
            "MLP": {"vision_config.intermediate_size": 50},
            "everything": _in("vision_config", WIDER | {"pooler_output_size": 36, "num_hidden_layers": 5})
            | {"projection_dim": 16},
        },
    ),
}
