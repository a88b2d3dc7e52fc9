"""OLMo-2 and 3: blocks read the stream as it is, and a norm stands behind each; queries and keys have one norm."""

from __future__ import annotations

from hf_chain.families.family import Weight
from hf_chain.families.llama import GATED, relative
from hf_chain.families.weights import attention, norm

OLMO_2 = relative(
    block=attention("self_attn.")
    | {f"self_attn.{axis[0]}_norm.weight": Weight("unit_gain", (axis,)) for axis in ("query", "key")}
    | norm("post_attention_layernorm", "post_gain")
    | GATED
    | norm("post_feedforward_layernorm", "post_gain")
)
