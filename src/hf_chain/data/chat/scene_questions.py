"""Questions about the rendered scenes, and scenes described in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hf_chain.data.chat.questions import Turn

# In the order in which hf_chain.data.scenes asks them; the last one only where a relation is clear.
SCENE_KINDS = ("colour", "shape", "background", "pattern", "count_all", "count", "exists", "relation")
# Objects that are counted are there, and a relation names the largest and another one: asked after what these answer.
REVEALS = {"exists": 0, "count": 2, "relation": 3}
DESCRIBE = "describe the picture."


@dataclass(frozen=True)
class SceneQuestions:
    """The questions that come with every scene; in training a description, which names every object, ends them."""

    def turns(self, row: Mapping[str, Any], random: Random, training: bool) -> list[Turn]:
        """Return all questions about a scene, with their kinds."""
        asked = zip(SCENE_KINDS, row["questions"], strict=False)
        turns = [Turn(entry["question"], entry["answer"], kind, reveals=REVEALS.get(kind, 1)) for kind, entry in asked]
        last = Turn(DESCRIBE, row["captions"][0], "caption", reveals=1 + max(REVEALS.values()))
        return [*turns, last] if training else turns

    def description(self, row: Mapping[str, Any], turns: Sequence[Turn], random: Random) -> str:
        """Describe a scene by those of its captions that together answer every question, in random order.

        The first names every object, the fifth counts them; those between the fifth and the last say how the largest
        stands to the others.
        """
        captions = row["captions"]
        told = [captions[0], captions[4], *captions[5:-1]]
        random.shuffle(told)
        return ". ".join(told) + "."
