"""Language models: each token is predicted from those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.tasks.causal_lm.paradigm import CausalLMParadigm
    from hf_chain.tasks.causal_lm.task import CausalLMTask
    from hf_chain.tasks.causal_lm.values import FEATURE_LOSS_WEIGHT, check_values

_FILES = {
    "FEATURE_LOSS_WEIGHT": "values",
    "CausalLMParadigm": "paradigm",
    "CausalLMTask": "task",
    "check_values": "values",
}
"""Public name -> its file, imported when first used: checking values starts no torch."""

__all__ = ["FEATURE_LOSS_WEIGHT", "CausalLMParadigm", "CausalLMTask", "check_values"]

__getattr__ = lazy_names(__name__, _FILES)
