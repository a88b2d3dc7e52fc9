"""Paradigms of stock dual encoders: both towers by the fields of their configuration, embeddings that are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from hf_chain.cost import MemberCost, TowerMACs, dual_encoder_macs, forward_passes
from hf_chain.errors import HfChainError
from hf_chain.families import BEHIND_PADDING, family_of
from hf_chain.tasks.pairs import PairData
from hf_chain.tasks.paradigm import DataSize
from hf_chain.tasks.stock import StockParadigm, width_by_layers

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
                if (parameter := getattr(model, name, None)) is not None:
                    parameter.fill_(value)
        return model

    def wrap(self, model: Any, teacher: Any) -> PreTrainedModel:
        """A `ChainDualEncoder` of the same modules."""
        from hf_chain.models.dual_encoder import ChainDualEncoder

        size = family_of(teacher.config).embedding_size(teacher.config) if teacher else None
        return ChainDualEncoder.around(model, size)

    def _config(self, member: Any, decided: Mapping[str, Any]) -> Any:
        """Of towers that take images of a fixed size, and texts as long as captions."""
        config: Any = super()._config(member, decided)
        if getattr(config.vision_config, "image_size", None) is None:
            raise HfChainError(
                f"model.vision.model_type is {config.vision_config.model_type!r}, which takes lists of patches: use "
                "one that takes images of a fixed size"
            )
        wanted, places = getattr(self.recipe.model, "max_text_tokens", None) or 1, _places(config.text_config)
        if wanted > places:
            raise HfChainError(
                f"model.max_text_tokens is {wanted}, and the text tower has places for {max(0, places)} tokens: set "
                f"model.text.max_position_embeddings to {config.text_config.max_position_embeddings - places + wanted}"
            )
        return config

    # Data

    def _text_tokens(self, config: Any) -> int:
        """Tokens of a caption, padding included."""
        return getattr(self.recipe.model, "max_text_tokens", None) or _places(config.text_config)

    def _tokenizer_needs(self) -> tuple[int, bool]:
        """The context in tokens, and whether texts are read at their end mark: BERT and its like read their first."""
        config = self.checked_config(self.recipe.members[0])
        family = family_of(config)
        return self._text_tokens(config), not family.reads_padding and family.fixed is None

    def new_processor(self, rows: Any) -> Any:
        """SigLIP's, with a tokenizer whose padding is read, or for any two towers CLIP's image processor."""
        from hf_chain.data import padded_processor, towers_processor

        context, needs_end = self._tokenizer_needs()
        tokenizer = self.tokenizer(rows, context, needs_end)
        config = self.checked_config(self.recipe.members[0])
        if family_of(config).reads_padding:
            return padded_processor(tokenizer, config.vision_config.image_size)
        return towers_processor(tokenizer, config.vision_config.image_size, needs_end)

    def check_processor(self) -> None:
        """Tries the tokenizer that the recipe names."""
        self.check_named_tokenizer(*self._tokenizer_needs())

    # Cost

    def _macs(self, config: Any) -> TowerMACs:
        return dual_encoder_macs(config, self._text_tokens(config))

    def forward_macs(self, config: Any) -> int:
        """An image and its captions."""
        return self._macs(config).per_sample(self.recipe.data.captions_per_image)

    def evaluation_macs(self, config: Any, size: DataSize) -> int:
        """Images, captions and prompts, each once."""
        macs = self._macs(config)
        return size.evaluated * macs.image + size.evaluated_texts * macs.text

    def member_cost(
        self, member: Any, config: Any, teacher: Any, size: DataSize, training: Mapping[str, Any], batch_size: int
    ) -> MemberCost:
        """Micro-batches are embedded twice, as every pair of the batch counts; a cache keeps each caption once."""
        cost = super().member_cost(member, config, teacher, size, training, batch_size)
        macs, captions, cache = self._macs(config), self.recipe.data.captions_per_image, 0
        if teacher is not None and self.recipe.cache_teacher_features:
            of_teacher, texts = self._macs(teacher), size.distinct_captions
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
            "input_ids": torch.zeros(captions, self._text_tokens(config), dtype=torch.long, device="meta"),
        }

    # Words

    def shape(self, member: Any, config: Any) -> dict[str, str]:
        """Of image tower and text tower."""
        return tower_shapes(config)

    @classmethod
    def card_values(cls, config: Any, data: Mapping[str, Any]) -> dict[str, Any]:
        """The task of its loss, the stock class, the shapes of its towers and how its texts are read."""
        family = family_of(config)
        own = {"auto_class": cls.auto_class, "embedding": family.embedding_size(config), "scores": cls.scores}
        own |= {"towers": tower_shapes(config), "reads_padding": family.reads_padding}
        return super().card_values(config, data) | own


def _places(text: Any) -> int:
    """Tokens that a text tower has positions for."""
    return int(text.max_position_embeddings) - (text.pad_token_id + 1 if text.model_type in BEHIND_PADDING else 0)


def tower_shapes(config: Any) -> dict[str, str]:
    """Width × layers of image tower and text tower, or what stages have of either.

    Args:
        config (`PreTrainedConfig`): of a dual encoder.
    """
    shapes, family = {}, family_of(config)
    for name, part in (("image tower", "vision_config"), ("text tower", "text_config")):
        blocks = [stream for stream in family.streams if stream.part == part and stream.block]
        tower = getattr(config, part)
        # A tower that stays as it is has no streams of its own.
        whole = f"{tower.hidden_size} × {tower.num_hidden_layers}"
        shapes[name] = width_by_layers(blocks, config) if blocks else whole
    return shapes
