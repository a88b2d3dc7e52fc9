"""Where a distributed engine has to be treated differently."""

from __future__ import annotations

import math

from accelerate import Accelerator
from accelerate.utils import DistributedType
from transformers import CLIPModel

from hf_chain.models import ChainCLIPModel
from hf_chain.models.chain_clip.stock_clip import MAX_LOGIT_SCALE


def clamp_logit_scale(model: ChainCLIPModel, deepspeed_enabled: bool) -> None:
    """Limits the logit scale to 100 after a step; under DeepSpeed in the optimizer's float32 copy as well."""
    if not deepspeed_enabled:
        model.clamp_logit_scale()
        return
    from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param

    value = safe_get_full_fp32_param(model.logit_scale)
    if value is not None and value.max().item() > MAX_LOGIT_SCALE:
        safe_set_full_fp32_param(model.logit_scale, value.clamp(max=MAX_LOGIT_SCALE))


def shards_parameters(accelerator: Accelerator) -> bool:
    """Whether the engine is DeepSpeed ZeRO-3."""
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        return False
    return accelerator.state.deepspeed_plugin.zero_stage == 3


def gather_positions(model: CLIPModel) -> None:
    """Has ZeRO-3 gather the text positions for the whole embedding module.

    It reads the length of the table, which is 0 while the table is sharded. To be called before the engine is made.
    """
    import deepspeed

    embeddings = model.text_model.embeddings
    deepspeed.zero.register_external_parameter(embeddings, embeddings.position_embedding.weight)


def shard_like_student(teacher: CLIPModel, accelerator: Accelerator) -> CLIPModel:
    """Places the frozen teacher: its parameters are sharded under ZeRO-3 and replicated otherwise."""
    if not shards_parameters(accelerator):
        return teacher.to(accelerator.device)
    import deepspeed

    gather_positions(teacher)
    # Features do not need it, and DeepSpeed cannot broadcast a 0-d parameter.
    teacher.logit_scale.data = teacher.logit_scale.data.reshape(1)
    largest = max(parameter.numel() for parameter in teacher.parameters())
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": False,
            "reduce_bucket_size": largest,
            "stage3_param_persistence_threshold": int(math.sqrt(largest)),
            "stage3_prefetch_bucket_size": 0,
        },
    }
    engine, *_ = deepspeed.initialize(model=teacher, config=config)
    engine.module.eval()
    return engine.module
