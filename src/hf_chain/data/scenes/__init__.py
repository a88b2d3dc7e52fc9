"""Rendered scenes of coloured shapes with captions and questions: a data set that needs no download."""

from __future__ import annotations

from hf_chain.data.scenes.renderer import build_scenes, scenes_of_split
from hf_chain.data.scenes.scene import HELD_OUT_PAIRS, Scene, sample_scene, scene_captions, scene_questions

__all__ = [
    "HELD_OUT_PAIRS",
    "Scene",
    "build_scenes",
    "sample_scene",
    "scene_captions",
    "scene_questions",
    "scenes_of_split",
]
