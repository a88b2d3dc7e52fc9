"""A tiny random model of every decoder family that grafting knows."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_chain.grafting.anatomy import decoder_layers

VOCABULARY = 48
LAYERS = 8

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GEMMA = _COMMON | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4}
_EXPERTS = _COMMON | {"num_experts_per_tok": 2, "head_dim": 8}
_SIGLIP = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}

DECODERS: dict[str, dict[str, Any]] = {
    "llama": _COMMON,
    "mistral": _COMMON | {"sliding_window": 4},
    "qwen2": _COMMON | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 5},
    "qwen3": _COMMON | {"head_dim": 8, "tie_word_embeddings": True},
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA | {"sliding_window_pattern": 3, "final_logit_softcapping": 5.0},
    "gemma3": {
        "text_config": _GEMMA | {"sliding_window_pattern": 3},
        "vision_config": _SIGLIP,
        "mm_tokens_per_image": 4,
        "image_token_index": 40,
        "boi_token_index": 41,
        "eoi_token_index": 42,
    },
    "phi3": _COMMON | {"sliding_window": 4},
    "olmo2": _COMMON,
    "gpt2": {
        "vocab_size": VOCABULARY,
        "n_embd": 32,
        "n_layer": LAYERS,
        "n_head": 4,
        "n_positions": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "opt": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 16,
    },
    "gpt_neox": _COMMON,
    "mixtral": _EXPERTS | {"num_local_experts": 4, "sliding_window": 4},
    "granite": _COMMON | {"embedding_multiplier": 2.0, "residual_multiplier": 0.5, "logits_scaling": 3.0},
    "smollm3": _COMMON | {"no_rope_layer_interval": 3},
    "gemma": _COMMON | {"head_dim": 8},
    "phi": _COMMON,
    "olmo3": _COMMON | {"sliding_window": 4},
    "cohere": _COMMON,
    "stablelm": _COMMON | {"use_qkv_bias": True},
    "starcoder2": _COMMON | {"sliding_window": 4},
    "glm4": _COMMON | {"head_dim": 8},
    "nemotron": _COMMON,
    "arcee": _COMMON,
    "gpt_oss": _EXPERTS | {"num_local_experts": 4, "sliding_window": 4},
    "deepseek_v3": _COMMON
    | {
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "first_k_dense_replace": 3,
        "kv_lora_rank": 12,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
    "qwen3_moe": _EXPERTS
    | {"num_experts": 4, "moe_intermediate_size": 24, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
}
"""`model_type` -> fields of its configuration, with what makes its layers differ from each other where it can."""


def tiny_decoder(model_type: str, seed: int = 0, **fields: Any) -> PreTrainedModel:
    """A model whose weights are large enough that a wrong, missing or swapped layer shows in its logits.

    Args:
        model_type (`str`): one of `DECODERS`.
        seed (`int`): the seed of its weights.
        **fields: Fields of the configuration that differ.
    """
    config = CONFIG_MAPPING[model_type](**(DECODERS[model_type] | fields))
    auto = AutoModelForImageTextToText if model_type == "gemma3" else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight += torch.randn_like(weight) * 0.1
    return model.eval()


def some_tokens(rows: int = 2, length: int = 12, seed: int = 0) -> torch.Tensor:
    """Token ids `[rows, length]` without special tokens, longer than the sliding windows."""
    return torch.randint(3, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


def logits_without(model: PreTrainedModel, dropped: tuple[int, ...], tokens: torch.Tensor) -> torch.Tensor:
    """The logits of a decoder whose `dropped` layers hand their input on."""

    def hand_on(layer: torch.nn.Module, args: tuple, kwargs: dict, output: object) -> object:
        hidden = args[0] if args else kwargs["hidden_states"]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    layers = decoder_layers(model)
    hooks = [layers[number].register_forward_hook(hand_on, with_kwargs=True) for number in dropped]
    try:
        return logits(model, tokens)
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def logits(model: PreTrainedModel, tokens: torch.Tensor, **options: object) -> torch.Tensor:
    """The logits `[rows, length, V]` of a decoder on tokens."""
    return model(input_ids=tokens, **options).logits
