"""Feature space: a frozen predecessor's features become a loss for its successor."""

from hf_chain.distillation.feature_loss import feature_loss
from hf_chain.distillation.schedule import SCHEDULES, weight_factor
from hf_chain.distillation.teacher import Teacher, TeacherFeatures

__all__ = ["SCHEDULES", "Teacher", "TeacherFeatures", "feature_loss", "weight_factor"]
