"""Feature space: a frozen predecessor's features become a loss for its successor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.distillation.schedule import SCHEDULES, weight_factor
    from hf_chain.distillation.teacher import LiveTeacher, Teacher, TeacherFeatures, feature_loss

_MODULES = {
    "SCHEDULES": "schedule",
    "LiveTeacher": "teacher",
    "Teacher": "teacher",
    "TeacherFeatures": "teacher",
    "feature_loss": "teacher",
    "weight_factor": "schedule",
}
"""Public name -> its file, imported when first used: a plan needs the schedules alone, which must not start torch."""

__all__ = ["SCHEDULES", "LiveTeacher", "Teacher", "TeacherFeatures", "feature_loss", "weight_factor"]

__getattr__ = lazy_names(__name__, _MODULES)
