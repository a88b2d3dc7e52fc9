"""Parameter space: a predecessor's weights become its successor's."""

from __future__ import annotations

from hf_chain.growth.measure import embedding_error
from hf_chain.growth.operators import OPERATORS, grow
from hf_chain.growth.shapes import nearest_exact_config

__all__ = ["OPERATORS", "embedding_error", "grow", "nearest_exact_config"]
