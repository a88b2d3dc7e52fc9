"""Contrastive training of CLIP as a recipe knows it: pairs of images and captions, two towers, zero-shot metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_chain.arguments.precision import uses_bfloat16
from hf_chain.cost import (
    MemberCost,
    MemoryEstimate,
    clip_evaluation_macs,
    clip_macs,
    clip_member,
    clip_memory,
    clip_parameters,
    forward_passes,
)
from hf_chain.families import VISION_TEXT
from hf_chain.tasks.pairs import PairData
from hf_chain.tasks.paradigm import EVALUATIONS, DataSize, Paradigm
from hf_chain.tasks.stock_pairs import StockPairs

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, PreTrainedModel

PLANNED_IDS = 0, 1
"""First and last token of a caption in a configuration that only serves to count MACs."""


class ContrastiveParadigm(PairData):
    """Images are told apart by their captions, over the global batch."""

    card = "clip_card.md.jinja"

    @classmethod
    def families(cls) -> frozenset[str]:
        """CLIP, and dual encoders that are built of the fields of their configuration."""
        return frozenset(("clip", "siglip", VISION_TEXT))

    @classmethod
    def of(cls, family: str) -> type[Paradigm]:
        """The paradigm of stock classes, for all but CLIP."""
        return cls if family == "clip" else StockContrastiveParadigm

    # Data

    def new_processor(self, rows: Any) -> CLIPProcessor:
        """Of CLIP's image processor and a tokenizer that CLIP can read."""
        from hf_chain.data import build_processor

        model = self.recipe.model
        return build_processor(self.tokenizer(rows, model.max_text_tokens), model.image_size)

    def check_processor(self) -> None:
        """Tries the tokenizer that the recipe names."""
        self.check_named_tokenizer(self.recipe.model.max_text_tokens)

    # Models

    def planned_config(self, member: Any, size: DataSize) -> Any:
        """Without torch."""
        return self.recipe.model.counted(*_shapes(member), size.vocab_size, *PLANNED_IDS)

    def checked_config(self, member: Any) -> CLIPConfig:
        """Right in every shape, without a tokenizer."""
        return self.recipe.model.clip_config(*_shapes(member), self.recipe.tokenizer.vocab_size, *PLANNED_IDS)

    def config(self, member: Any, data: Any) -> CLIPConfig:
        """With the special tokens of the run's tokenizer."""
        tokens = data.processor.tokenizer
        return self.recipe.model.clip_config(*_shapes(member), len(tokens), tokens.bos_token_id, tokens.eos_token_id)

    def published_config(self, name: str) -> CLIPConfig:
        """Of a published CLIP."""
        from hf_chain.models.chain_clip.published import load_clip_config

        return load_clip_config(name)

    def new(self, config: Any) -> CLIPModel:
        """A `CLIPModel`."""
        from transformers import CLIPModel

        return CLIPModel(config)

    def load(self, name: str, config: Any) -> CLIPModel:
        """A `CLIPModel`, read at the end token of `config`."""
        from hf_chain.models.chain_clip.published import load_clip

        return load_clip(name, self.recipe.model.attn_implementation, config.text_config.eos_token_id)

    def load_with_processor(self, name: str) -> tuple[CLIPModel, CLIPProcessor]:
        """A published CLIP, or a member."""
        from hf_chain.models.chain_clip.published import load_clip_with_processor

        return load_clip_with_processor(name)

    def wrap(self, model: Any, teacher: Any) -> PreTrainedModel:
        """A `ChainCLIPModel` of the same modules."""
        from hf_chain.models import ChainCLIPModel

        return ChainCLIPModel.from_clip(model, teacher.config.projection_dim if teacher else None)

    # Cost

    def counts(self, config: Any) -> tuple[int, int]:
        """Of an image and its captions."""
        return clip_parameters(config), clip_macs(config).per_sample(self.recipe.data.captions_per_image)

    def member_cost(
        self, member: Any, config: Any, teacher: Any, size: DataSize, training: Mapping[str, Any], batch_size: int
    ) -> MemberCost:
        """Both towers, on every caption that a step sees."""
        data, keep = self.recipe.data, training.get("image_token_keep", 1.0)
        return clip_member(
            name=member.name,
            config=config,
            epochs=member.epochs,
            samples_per_epoch=size.samples_per_epoch,
            batch_size=batch_size,
            streamed=data.streaming,
            captions=data.captions_per_image,
            image_token_keep=keep,
            unmasked_tail=training.get("unmasked_tail", 0.1) if keep < 1 else 0.0,
            forward_passes=forward_passes(
                training.get("micro_batch_size"), training.get("gradient_checkpointing", False)
            ),
            teacher=teacher,
            teacher_share=training.get("feature_loss_until", 1.0),
            cached_views=max(1, data.image_views) if self.recipe.cache_teacher_features else None,
            cached_captions=size.distinct_captions,
            evaluation_macs=EVALUATIONS * self.evaluation_macs(config, size),
        )

    def evaluation_macs(self, config: Any, size: DataSize) -> int:
        """Images, captions and prompts, each once."""
        return clip_evaluation_macs(config, size.evaluated, size.evaluated_texts)

    def memory(self, config: Any, teacher: Any, training: Mapping[str, Any]) -> MemoryEstimate:
        """Of one micro-batch."""
        return clip_memory(
            config,
            training.get("micro_batch_size") or training.get("per_device_train_batch_size", 8),
            captions=self.recipe.data.captions_per_image,
            image_token_keep=training.get("image_token_keep", 1.0),
            bf16=uses_bfloat16(training.get("bf16", False)),
            teacher=teacher,
        )

    # Words

    def shape(self, member: Any, config: Any) -> dict[str, str]:
        """Of image tower and text tower."""
        towers = {"image tower": member.vision, "text tower": member.text}
        return {name: f"{tower.hidden_size} × {tower.num_hidden_layers}" for name, tower in towers.items()}


def _shapes(member: Any) -> tuple[Any, Any, int | None]:
    return member.vision, member.text, member.projection_dim


class StockContrastiveParadigm(StockPairs):
    """The same of other dual encoders."""

    first_logits = (math.log(1 / 0.07), 0.0)
    scores = ".softmax(dim=-1)"

    @classmethod
    def families(cls) -> frozenset[str]:
        """As above."""
        return ContrastiveParadigm.families()
