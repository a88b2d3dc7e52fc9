"""The weights by which a layer writes to the residual stream: what a linear map folds into, family by family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import text_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Write:
    """How one half of a layer, attention or MLP, writes.

    Args:
        projection (`str`): its last linear map.
        norm (`str`, *optional*): a norm between that map and the residual stream.
        norm_offset (`float`): what this norm adds to its weight before it multiplies by it.
        experts (`str`, *optional*): of a mixture, the parameter `[experts, d, f]` with every expert's last linear map.
        mixture (`str`, *optional*): the module that adds up the experts.
    """

    projection: str
    norm: str | None = None
    norm_offset: float = 0.0
    experts: str | None = None
    mixture: str | None = None


@dataclass(frozen=True)
class LayerWrites:
    """Both halves of a layer."""

    attention: Write
    mlp: Write


def _pre_norm(attention: str, mlp: str) -> LayerWrites:
    return LayerWrites(Write(attention), Write(mlp))


def _post_norm(offset: float) -> LayerWrites:
    return LayerWrites(
        Write("self_attn.o_proj", "post_attention_layernorm", offset),
        Write("mlp.down_proj", "post_feedforward_layernorm", offset),
    )


_LLAMA = _pre_norm("self_attn.o_proj", "mlp.down_proj")
_MIXTURE = LayerWrites(
    Write("self_attn.o_proj"), Write("mlp.down_proj", experts="mlp.experts.down_proj", mixture="mlp")
)

WRITES: dict[str, LayerWrites] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _post_norm(offset=1.0),
    "gemma3_text": _post_norm(offset=1.0),
    "phi3": _LLAMA,
    "olmo2": _post_norm(offset=0.0),
    "gpt2": _pre_norm("attn.c_proj", "mlp.c_proj"),
    "opt": _pre_norm("self_attn.out_proj", "fc2"),
    "gpt_neox": _pre_norm("attention.dense", "mlp.dense_4h_to_h"),
    "mixtral": _MIXTURE,
    "qwen3_moe": _MIXTURE,
}
"""`model_type` -> its row. A new family is a new row."""


def layer_writes(config: PreTrainedConfig) -> LayerWrites:
    """The row of a model.

    Args:
        config (`PreTrainedConfig`): the model's configuration; of a composite one, its decoder counts.

    Returns:
        `LayerWrites`: its row.

    Raises:
        HfChainError: when the family has no row, or when its layers normalise the residual stream itself.
    """
    config = text_config(config)
    row = WRITES.get(config.model_type)
    if row is None:
        raise HfChainError(
            f"closed_form does not know how layers of {config.model_type!r} write: use method 'train', or add a row to"
            " WRITES in hf_chain/grafting/translator/layer_writes.py"
        )
    if getattr(config, "do_layer_norm_before", True) is False:
        raise HfChainError(
            "closed_form cannot fold into layers with do_layer_norm_before=False, which normalise the residual stream"
            " itself: use method 'train'"
        )
    return row
