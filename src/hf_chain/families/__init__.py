"""Families: one file an architecture, which says what its weights are to its residual streams. Starts no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hf_chain.errors import HfChainError
from hf_chain.families.arcee import ARCEE
from hf_chain.families.clip import CLIP, CLIP_TEXT, CLIP_VISION
from hf_chain.families.cohere import COHERE, STABLELM, STARCODER_2
from hf_chain.families.convnext import CONVNEXT
from hf_chain.families.deepseek import DEEPSEEK
from hf_chain.families.dinov2 import DINOV2
from hf_chain.families.experts import GPT_OSS, MIXTRAL
from hf_chain.families.family import Composite, Family, Heads, Slot, Stream, Weight, value_of
from hf_chain.families.gemma import GEMMA, GEMMA_2
from hf_chain.families.glm import GLM_4
from hf_chain.families.gpt import GPT_2, GPT_NEOX, OPT
from hf_chain.families.llama import LLAMA
from hf_chain.families.nemotron import NEMOTRON
from hf_chain.families.olmo import OLMO_2
from hf_chain.families.phi import PHI, PHI_3
from hf_chain.families.siglip import SIGLIP, SIGLIP_TEXT, SIGLIP_VISION
from hf_chain.families.swin import SWIN
from hf_chain.families.swinv2 import SWIN_V2
from hf_chain.families.vision_text import NORMS_ON_THE_STREAM, TOWERS, VISION_TEXT, dual_encoder
from hf_chain.families.vit import DEIT, MAE, VIT

FAMILIES: dict[str, Family] = {
    "clip": CLIP,
    "clip_text_model": CLIP_TEXT,
    "clip_vision_model": CLIP_VISION,
    "siglip": SIGLIP,
    "siglip2": SIGLIP,
    "siglip_text_model": SIGLIP_TEXT,
    "siglip_vision_model": SIGLIP_VISION,
    "siglip2_vision_model": SIGLIP_VISION,
    "vit": VIT,
    "deit": DEIT,
    "vit_mae": MAE,
    "dinov2": DINOV2,
    "dinov2_with_registers": DINOV2,
    "swin": SWIN,
    "swinv2": SWIN_V2,
    "convnext": CONVNEXT,
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "granite": LLAMA,
    "smollm3": LLAMA,
    "gemma": GEMMA,
    "gemma2": GEMMA_2,
    "gemma3_text": GEMMA_2,
    "phi": PHI,
    "phi3": PHI_3,
    "olmo2": OLMO_2,
    "olmo3": OLMO_2,
    "cohere": COHERE,
    "stablelm": STABLELM,
    "starcoder2": STARCODER_2,
    "glm4": GLM_4,
    "nemotron": NEMOTRON,
    "arcee": ARCEE,
    "mixtral": MIXTRAL,
    "qwen3_moe": MIXTRAL,
    "gpt_oss": GPT_OSS,
    "deepseek_v3": DEEPSEEK,
    "gpt2": GPT_2,
    "gpt_neox": GPT_NEOX,
    "opt": OPT,
}
"""`model_type` of a configuration -> its family."""

COMPOSITES: dict[str, Composite] = {
    "gemma3": Composite(
        decoder="model.language_model",
        prefixes=(
            ("language_model.model.", "model."),
            ("language_model.lm_head.", "lm_head."),
            ("model.language_model.", "model."),
            ("lm_head.", "lm_head."),
        ),
    )
}
"""`model_type` of models that hold a decoder beside other towers -> where; the decoder has a family of its own."""

BEHIND_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Text encoders that count positions from the one behind the padding token's id."""

POST_NORM = ("bert", *BEHIND_PADDING)
"""Text encoders with norms on the stream itself: they cannot grow, and may stand beside an image tower that does."""

__all__ = [
    "BEHIND_PADDING",
    "COMPOSITES",
    "FAMILIES",
    "VISION_TEXT",
    "Composite",
    "Family",
    "Heads",
    "Slot",
    "Stream",
    "Weight",
    "family_of",
    "tower_family",
    "value_of",
]


def family_of(config: Any) -> Family:
    """The family of a model.

    Args:
        config (`PreTrainedConfig`): The model's configuration.

    Returns:
        `Family`: What its weights are.

    Raises:
        HfChainError: When no family describes it.
    """
    if config.model_type == VISION_TEXT:
        towers = {part: getattr(config, part) for part in TOWERS}
        return dual_encoder(*(tower_family(part, tower.model_type).of(tower) for part, tower in towers.items()))
    found = FAMILIES.get(config.model_type)
    if found is None:
        raise _unknown("model_type", config.model_type, FAMILIES)
    return found.of(config)


def tower_family(part: str, model_type: str) -> Family:
    """The family of one tower of a `VisionTextDualEncoder`.

    Args:
        part (`str`): `vision_config` or `text_config`.
        model_type (`str`): The kind of the tower.

    Raises:
        HfChainError: When towers of this kind cannot stand there, naming those that can.
    """
    known = {name: family for name, family in FAMILIES.items() if family.pooled and name != "clip_text_model"}
    if part == "text_config":
        known = {"clip_text_model": CLIP_TEXT} | dict.fromkeys(POST_NORM, NORMS_ON_THE_STREAM)
    if model_type not in known:
        raise _unknown(f"{part}.model_type", model_type, known)
    return known[model_type]


def _unknown(field: str, model_type: str, known: Iterable[str]) -> HfChainError:
    why = "no pooled output of this kind" if model_type in FAMILIES else "no description of its residual stream"
    return HfChainError(
        f"{field} {model_type!r} has {why}: use one of {', '.join(known)}, or add a family (docs/families.md)"
    )
