"""DeepSeek-V3: latent attention, whose heads share compressed keys and values, and a mixture of experts."""

from __future__ import annotations

from dataclasses import replace

from hf_chain.families.family import Weight
from hf_chain.families.llama import GATED, LLAMA, NORMS, STREAM
from hf_chain.families.weights import write

DEEPSEEK = replace(
    LLAMA,
    cut_only="keys and values come from one latent vector, whose size no rule can keep apart from the stream's",
    streams=(
        replace(
            STREAM,
            block=NORMS
            | {
                "self_attn.q_proj.weight": Weight("keep", ("query", "residual")),
                "self_attn.q_b_proj.weight": Weight("keep", ("query", "rank")),
            }
            | write("self_attn.o_proj", "context")
            | GATED
            | {"mlp.experts.down_proj": Weight("write", ("expert", "residual", "mlp"))},
        ),
    ),
)
