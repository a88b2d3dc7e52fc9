"""Configuration of the CLIP model that is trained in a chain."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.clip.configuration_clip import CLIPConfig


@strict
class ChainCLIPConfig(CLIPConfig):
    """A `CLIPConfig` that also knows the embedding size of the teacher.

    Args:
        teacher_projection_dim (`int`, *optional*): the teacher's embedding size where it differs from
            `projection_dim`; the model then maps its embeddings to that size for the feature loss.
    """

    model_type = "chain_clip"

    teacher_projection_dim: int | None = None


AutoConfig.register(ChainCLIPConfig.model_type, ChainCLIPConfig, exist_ok=True)
