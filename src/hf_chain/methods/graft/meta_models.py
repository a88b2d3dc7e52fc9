"""The models of a recipe without their weights: what can be planned and checked before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from hf_chain.adapters import check_model_files
from hf_chain.data.chat.template import train_chat_tokenizer
from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import num_layers, text_config
from hf_chain.grafting.cut import CHOOSING, check_budget, is_affordable
from hf_chain.grafting.layer_config import surrogate_config
from hf_chain.grafting.lineage import SurrogateLineage, read_lineage, write_lineage
from hf_chain.grafting.ranges import LayerRange, check_ranges, kept_layers, parse_ranges, translator_layers
from hf_chain.grafting.recut import check_larger
from hf_chain.grafting.trained_layers import carried_layers, trained_weights
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.encoder_source import chain_recipe, finished_encoder
from hf_chain.methods.graft.parts_of_recipe import NewTargetSettings
from hf_chain.methods.graft.recipe import DecoderName, GraftRecipe, GraftStageSettings
from hf_chain.models.grafted_vlm import GraftedVLMConfig, GraftedVLMForConditionalGeneration
from hf_chain.models.grafted_vlm.assembly import image_processor_of, processed_size
from hf_chain.models.grafted_vlm.language_models import named_errors
from hf_chain.models.grafted_vlm.vision_towers import tower_stream
from hf_chain.trainer.lora import attach_lora
from hf_chain.trainer.part_aliases import decoder_of
from hf_chain.trainer.parts import Part, freeze_all_but, resolve_parts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

ASSUMED_START = 0.55
"""Where a range is assumed to begin before it is chosen: about there it does in the paper's targets (arXiv 2505.22664,
0.50 to 0.61 of the depth)."""


@dataclass
class MetaModels:
    """Configurations of target, surrogate and encoder, and models of them on torch's meta device.

    Args:
        recipe (`GraftRecipe`): the recipe. Models on the Hub are asked for their configuration only.
        vocab_size (`int`, *optional*): of a target that is yet to be trained; the most it may be by default.
    """

    recipe: GraftRecipe
    vocab_size: int | None = None
    _models: dict[tuple[DecoderName, tuple[LayerRange, ...] | None], GraftedVLMForConditionalGeneration] = field(
        default_factory=dict, init=False, repr=False
    )

    @cached_property
    def target(self) -> PreTrainedConfig:
        """The target's configuration.

        Raises:
            HfChainError: when it cannot be read, or grafting does not know its family.
        """
        settings = self.recipe.target
        if settings.new is not None:
            return new_target_config(settings.new, self.vocab_size or settings.new.vocab_size)
        config = _config("target", str(settings.name_or_path), revision=settings.revision)
        text_config(config)
        return config

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The target's tokenizer; `None` when it is yet to be trained."""
        settings = self.recipe.target
        if settings.new is not None:
            return None
        with named_errors("tokenizer of target", settings.name_or_path):
            return AutoTokenizer.from_pretrained(settings.name_or_path, revision=settings.revision)

    @cached_property
    def vision(self) -> PreTrainedConfig:
        """The encoder's configuration.

        Raises:
            HfChainError: when it cannot be read, or its family is not known.
        """
        name = finished_encoder(self.recipe)
        if name is None:
            chain = chain_recipe(self.recipe)
            config: Any = chain.paradigm.checked_config(chain.members[0])
        else:
            config = _config("encoder", name)
        config = getattr(config, "vision_config", config)
        tower_stream(config)
        return config

    @property
    def weight_bytes(self) -> int:
        """Bytes of a weight as the models are loaded."""
        named = self.recipe.target.dtype
        dtype = (self.text("target").dtype or torch.float32) if named == "auto" else getattr(torch, named)
        return int(dtype.itemsize)

    @property
    def cut_is_assumed(self) -> bool:
        """Whether a criterion has yet to choose the cut."""
        return self.recipe.surrogate.replaced in CHOOSING and not self._surrogate_folder.exists()

    @cached_property
    def ranges(self) -> tuple[LayerRange, ...]:
        """The replaced ranges: as named, as they were chosen, or assumed.

        Raises:
            HfChainError: when they do not fit the target.
        """
        settings, layers = self.recipe.surrogate, num_layers(self.target)
        if settings.replaced not in CHOOSING:
            return check_ranges(parse_ranges(settings.replaced), layers, settings.translators)
        if not self.cut_is_assumed:
            return read_lineage(AutoConfig.from_pretrained(self._surrogate_folder)).replaced
        budget = settings.limit
        check_budget(self.target, settings.replaced, budget, settings.translators)
        last = layers - 2
        for first in range(min(round(ASSUMED_START * layers), last - settings.translators), -1, -1):
            span = LayerRange(first, last)
            if is_affordable(self.target, budget, kept_layers((span,), layers, settings.translators)):
                break
        return (span,)

    def ranges_of(self, stage: GraftStageSettings) -> tuple[LayerRange, ...]:
        """What the surrogate replaces by the time of a stage.

        Raises:
            HfChainError: when a larger surrogate does not fit the target, or replaces what a smaller one kept.
        """
        ranges, layers, translators = self.ranges, num_layers(self.target), self.recipe.surrogate.translators
        for one in self.recipe.stages:
            if one.replaced is not None:
                larger = check_ranges(parse_ranges(one.replaced), layers, translators)
                if not (ranges is self.ranges and self.cut_is_assumed):
                    check_larger(larger, ranges)
                ranges = larger
            if one == stage:
                return ranges
        return self.ranges

    def text(self, decoder: DecoderName, ranges: tuple[LayerRange, ...] | None = None) -> PreTrainedConfig:
        """The decoder's configuration, on the target or on the surrogate: the first, or one that replaces `ranges`."""
        if decoder == "target":
            return text_config(self.target)
        ranges = self.ranges if ranges is None else ranges
        layers, translators = num_layers(self.target), self.recipe.surrogate.translators
        kept = kept_layers(ranges, layers, translators)
        config = surrogate_config(self.target, {layer: number for number, layer in enumerate(kept)})
        stand_in = translator_layers(ranges, layers, translators)
        write_lineage(config, SurrogateLineage("target", None, layers, ranges, kept, stand_in, translators))
        return config

    def model(self, text: PreTrainedConfig) -> GraftedVLMForConditionalGeneration:
        """A new model on a decoder, without weights.

        Raises:
            HfChainError: when encoder and decoder make no model.
        """
        settings = self.recipe.model.model_dump(exclude={"image_token"})
        config = GraftedVLMConfig(vision_config=self.vision, text_config=text, **settings)
        if (encoder := finished_encoder(self.recipe)) is not None:
            config.image_size = processed_size(image_processor_of(encoder), config)
        with torch.device("meta"):
            return GraftedVLMForConditionalGeneration(config)

    def parts(self, stage: GraftStageSettings) -> tuple[GraftedVLMForConditionalGeneration, tuple[Part, ...]]:
        """The model of a stage, frozen as it is trained, and its trained parts.

        Raises:
            HfChainError: when a part is not in the model, or a graft would leave it behind.
        """
        training, uses_lora = self.recipe.training_of(stage), "lora" in stage.parts
        ranges = self.ranges_of(stage) if stage.decoder == "surrogate" else None
        text, decoder = self.text(stage.decoder, ranges), (stage.decoder, ranges)
        if uses_lora:
            model = self.model(text)
        else:
            if decoder not in self._models:
                self._models[decoder] = self.model(text)
            model = self._models[decoder]
        try:
            if uses_lora:
                attach_lora(decoder_of(model), training.get("lora"))
            parts = resolve_parts(model, stage.parts, training.get("learning_rate", 5e-5))
            freeze_all_but(model, parts)
            carried_layers(decoder_of(model), trained_weights(decoder_of(model)))
        except HfChainError as error:
            raise HfChainError(f"stage {stage.name}: {error}") from error
        return model, parts

    @cached_property
    def carries_layers(self) -> bool:
        """Whether the graft carries layers along that are trained on the surrogate."""
        for stage in self.recipe.stages:
            decoder = decoder_of(self.parts(stage)[0])
            if carried_layers(decoder, trained_weights(decoder)):
                return True
        return False

    @property
    def _surrogate_folder(self) -> Path:
        number = 2 if self.recipe.target.new is not None else 1
        return self.recipe.run_dir / f"{number:02d}-surrogate"


def _config(what: str, name: str, **loading: Any) -> PreTrainedConfig:
    check_model_files(name, **loading)
    with named_errors(what, name):
        return AutoConfig.from_pretrained(name, **loading)


TOKENIZER_ROWS = 5_000
"""Conversations of each source that the tokenizer is trained on."""


def new_tokenizer(settings: NewTargetSettings, conversations: Conversations) -> PreTrainedTokenizerFast:
    """Trains the tokenizer; the same one for the same recipe."""
    rows = conversations.sample(settings.data, TOKENIZER_ROWS)
    return train_chat_tokenizer(rows, settings.vocab_size, settings.max_length)


def new_target_config(settings: NewTargetSettings, vocab_size: int, **marks: Any) -> LlamaConfig:
    """The configuration of a small Llama.

    Args:
        settings (`NewTargetSettings`): its sizes.
        vocab_size (`int`): entries of its tokenizer.
        marks: ids of the tokenizer's special tokens, such as `eos_token_id`.
    """
    heads = settings.hidden_size // settings.head_size
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size or 3 * settings.hidden_size,
        num_hidden_layers=settings.num_hidden_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=settings.max_length,
        # The usual 0.02 suits widths in the thousands: narrow models take far longer to learn to look things up.
        initializer_range=settings.hidden_size**-0.5,
        tie_word_embeddings=True,
        **marks,
    )
