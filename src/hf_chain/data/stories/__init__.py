"""Short stories in plain English that are written here: texts for language models that need no download.

A story ends with a question that it answers, so a model that remembers who has what, and where, does better.
"""

from __future__ import annotations

from hf_chain.data.stories.premise import Premise, sample_premise
from hf_chain.data.stories.splits import stories_splits
from hf_chain.data.stories.words import HELD_OUT_PAIRS
from hf_chain.data.stories.writer import write_story

__all__ = ["HELD_OUT_PAIRS", "Premise", "sample_premise", "stories_splits", "write_story"]
