"""Parameter space: a predecessor's weights become its successor's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.growth.measure import embedding_error, growth_error
    from hf_chain.growth.operators import OPERATORS, grow
    from hf_chain.growth.shapes import nearest_exact_config

_MODULES = {
    "OPERATORS": "operators",
    "embedding_error": "measure",
    "grow": "operators",
    "growth_error": "measure",
    "nearest_exact_config": "shapes",
}
"""Public name -> its file, imported when first used: a plan needs the shapes alone, which must not start torch."""

__all__ = ["OPERATORS", "embedding_error", "grow", "growth_error", "nearest_exact_config"]

__getattr__ = lazy_names(__name__, _MODULES)
