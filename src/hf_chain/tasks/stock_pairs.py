"""Paradigms of stock dual encoders: both towers by the fields of their configuration, embeddings that are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from hf_chain.cost import MemberCost, dual_encoder_macs, forward_passes
from hf_chain.families import family_of
from hf_chain.tasks.pairs import PairData
from hf_chain.tasks.paradigm import DataSize
from hf_chain.tasks.stock import StockParadigm

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class StockPairs(PairData, StockParadigm):
    """What softmax and sigmoid have in common for dual encoders other than CLIP."""

    auto_class = "AutoModel"
    card = "dual_card.md.jinja"
    first_logits: ClassVar[tuple[float, float]]
    """Logarithm of the logit scale, and the logit bias, of a model that is trained from scratch."""
    scores: ClassVar[str]
    """What a card makes of logits."""

    # Models

    def decided(self, size: DataSize, data: Any = None) -> dict[str, Any]:
        """Vocabulary and marks of the text tower."""
        fields: dict[str, Any] = {"vocab_size": size.vocab_size}
        if data is not None:
            tokens = data.processor.tokenizer
            fields |= {name: getattr(tokens, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        return {"text": fields}

    def new(self, config: Any) -> PreTrainedModel:
        """With the logit scale and bias that trainings start from; those of transformers are 0."""
        import torch

        model: Any = super().new(config)
        with torch.no_grad():
            for name, value in zip(("logit_scale", "logit_bias"), self.first_logits, strict=True):
                getattr(model, name).fill_(value)
        return model

    def wrap(self, model: Any, teacher: Any) -> PreTrainedModel:
        """A `ChainDualEncoder` of the same modules."""
        from hf_chain.models.dual_encoder import ChainDualEncoder

        size = family_of(teacher.config).embedding_size(teacher.config) if teacher else None
        return ChainDualEncoder.around(model, size)

    # Data

    @property
    def _context(self) -> int:
        config = self.checked_config(self.recipe.members[0])
        return int(config.text_config.max_position_embeddings)

    def new_processor(self, rows: Any) -> Any:
        """SigLIP's image processor, and a tokenizer whose padding is read."""
        from hf_chain.data import padded_processor

        config = self.checked_config(self.recipe.members[0])
        return padded_processor(self.tokenizer(rows, self._context, True), config.vision_config.image_size)

    def check_processor(self) -> None:
        """Tries the tokenizer that the recipe names."""
        self.check_named_tokenizer(self._context, True)

    # Cost

    def forward_macs(self, config: Any) -> int:
        """An image and its captions."""
        return dual_encoder_macs(config).per_sample(self.recipe.data.captions_per_image)

    def evaluation_macs(self, config: Any, size: DataSize) -> int:
        """Images, captions and prompts, each once."""
        macs = dual_encoder_macs(config)
        return size.evaluated * macs.image + size.evaluated_texts * macs.text

    def member_cost(
        self, member: Any, config: Any, teacher: Any, size: DataSize, training: Mapping[str, Any], batch_size: int
    ) -> MemberCost:
        """Micro-batches are embedded twice, as every pair of the batch counts; a cache keeps each caption once."""
        cost = super().member_cost(member, config, teacher, size, training, batch_size)
        macs, captions, cache = dual_encoder_macs(config), self.recipe.data.captions_per_image, 0
        if teacher is not None and self.recipe.cache_teacher_features:
            of_teacher, texts = dual_encoder_macs(teacher), size.distinct_captions
            texts = captions * size.samples_per_epoch if texts is None else texts
            cache = self.cached_views * size.samples_per_epoch * of_teacher.image + texts * of_teacher.text
        details = {"macs_per_image": macs.image, "macs_per_caption": macs.text, "captions": captions}
        return replace(
            cost,
            cache_macs=cache,
            forward_passes=forward_passes(
                training.get("micro_batch_size"), training.get("gradient_checkpointing", False)
            ),
            details=details | {"text_share": captions * macs.text / macs.per_sample(captions)},
        )

    def example(self, config: Any) -> dict[str, Any]:
        """An image and its captions."""
        import torch

        vision, captions = config.vision_config, self.recipe.data.captions_per_image
        side = vision.image_size
        return {
            "pixel_values": torch.zeros(1, vision.num_channels, side, side, device="meta"),
            "input_ids": torch.zeros(
                captions, config.text_config.max_position_embeddings, dtype=torch.long, device="meta"
            ),
        }

    # Words

    def shape(self, member: Any, config: Any) -> dict[str, str]:
        """Of image tower and text tower."""
        towers = {"image tower": config.vision_config, "text tower": config.text_config}
        return {name: f"{tower.hidden_size} × {tower.num_hidden_layers}" for name, tower in towers.items()}

    @classmethod
    def card_values(cls, config: Any, data: Mapping[str, Any]) -> dict[str, Any]:
        """The task of its loss, the stock class and the size of its embeddings."""
        size = family_of(config).embedding_size(config)
        own = {"auto_class": cls.auto_class, "embedding": size, "scores": cls.scores}
        return super().card_values(config, data) | own
