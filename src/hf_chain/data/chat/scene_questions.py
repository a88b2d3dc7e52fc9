"""Questions about the rendered scenes, and scenes described in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hf_chain.data.chat.questions import Turn

# In the order in which hf_chain.data.scenes asks them; the last one only where a relation is clear.
SCENE_KINDS = ("colour", "shape", "background", "pattern", "count_all", "count", "exists", "relation")


@dataclass(frozen=True)
class SceneQuestions:
    """The questions that come with every scene."""

    def turns(self, row: Mapping[str, Any], random: Random, training: bool) -> list[Turn]:
        """Return all questions about a scene, with their kinds."""
        asked = zip(SCENE_KINDS, row["questions"], strict=False)
        return [Turn(entry["question"], entry["answer"], kind) for kind, entry in asked]

    def description(self, row: Mapping[str, Any], turns: Sequence[Turn], random: Random) -> str:
        """Describe a scene by those of its captions that together answer every question, in random order.

        The first names every object, the fifth counts them; those between the fifth and the last say how the largest
        stands to the others.
        """
        captions = row["captions"]
        told = [captions[0], captions[4], *captions[5:-1]]
        random.shuffle(told)
        return ". ".join(told) + "."
