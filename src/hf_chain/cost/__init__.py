"""Cost: analytic MACs, memory and hours of a model, a member's training and a whole family; imports no torch."""

from hf_chain.cost.clip import (
    clip_evaluation_macs,
    clip_macs,
    clip_member,
    clip_memory,
    clip_parameters,
    kept_patches,
)
from hf_chain.cost.dual import dual_encoder_macs
from hf_chain.cost.family import FamilyCost, MemberCost
from hf_chain.cost.macs import classifier_macs, masked_image_macs
from hf_chain.cost.steps import (
    MemoryEstimate,
    StepCost,
    TowerMACs,
    branch_steps,
    forward_passes,
    training_steps,
)
from hf_chain.cost.table import GraftComparison, comparison_table, hours, human, memory_table, plan_table

__all__ = [
    "FamilyCost",
    "GraftComparison",
    "MemberCost",
    "MemoryEstimate",
    "StepCost",
    "TowerMACs",
    "branch_steps",
    "classifier_macs",
    "clip_evaluation_macs",
    "clip_macs",
    "clip_member",
    "clip_memory",
    "clip_parameters",
    "comparison_table",
    "dual_encoder_macs",
    "forward_passes",
    "hours",
    "human",
    "kept_patches",
    "masked_image_macs",
    "memory_table",
    "plan_table",
    "training_steps",
]
