"""Contrastive training of CLIP as a recipe knows it: pairs of images and captions, two towers, zero-shot metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
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
from hf_chain.data.prompts import resolve_templates
from hf_chain.data.settings import DataSettings
from hf_chain.errors import HfChainError
from hf_chain.evaluation.settings import EvaluationSettings
from hf_chain.tasks.contrastive.values import check_global_batch
from hf_chain.tasks.image_data import ImageData
from hf_chain.tasks.paradigm import EVALUATIONS, DataSize

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, PreTrainedModel

    from hf_chain.evaluation import Evaluation

CAPTIONS_LOOKED_AT = 1_000
"""Rows whose captions are compared with each other."""
TOKENIZER_SAMPLES = 100_000
"""Rows whose captions a tokenizer is trained on."""
PLANNED_IDS = 0, 1
"""First and last token of a caption in a configuration that only serves to count MACs."""


class ContrastiveParadigm(ImageData):
    """Images are told apart by their captions, over the global batch."""

    data_settings = DataSettings
    evaluation_settings = EvaluationSettings
    primary_metrics = ("zero_shot_top1", "text_to_image_r1", "image_to_text_r1")
    hub_task = "zero-shot-image-classification"
    card = "clip_card.md.jinja"

    @classmethod
    def families(cls) -> frozenset[str]:
        """CLIP alone."""
        return frozenset(("clip",))

    # Data

    def planned_size(self) -> DataSize:
        """With one caption for each image that is evaluated."""
        samples, images = self.planned_images()
        return DataSize(samples, self.recipe.tokenizer.vocab_size, evaluated=images, evaluated_texts=images)

    def size(self, data: Any) -> DataSize:
        """Captions of a cache are counted only where there is one."""
        from hf_chain.evaluation import evaluation_size

        sizes = [evaluation_size(split, **data.evaluation_options) for split in data.evaluation.values()]
        return DataSize(
            samples_per_epoch=data.samples_per_epoch,
            vocab_size=len(data.processor.tokenizer),
            evaluated=sum(images for images, _ in sizes),
            evaluated_texts=sum(texts for _, texts in sizes),
            distinct_captions=len(set(data.train.all_captions())) if self.recipe.cache_teacher_features else None,
        )

    def train_set(self, rows: Any, processor: Any, report_file: Path | None = None) -> Any:
        """`ImageTextDataset`, or `ImageTextStream`; each process reports the bad rows that it meets."""
        from hf_chain.data import ImageTextDataset, ImageTextStream

        kind: Any = ImageTextStream if self.recipe.data.streaming else ImageTextDataset
        return kind(rows, self.recipe.data, seed=self.recipe.seed, report_file=report_file)

    def collator(self, processor: Any) -> Any:
        """Makes batches with the processor's own image processor and tokenizer."""
        from hf_chain.data import ImageTextCollator

        return ImageTextCollator(processor)

    def new_processor(self, rows: Any) -> CLIPProcessor:
        """With the tokenizer that the recipe names, or one that is trained on the captions."""
        from hf_chain.data import build_processor, load_tokenizer, train_tokenizer

        recipe, named = self.recipe, self.recipe.tokenizer.name_or_path
        if named is not None:
            tokenizer = load_tokenizer(named, recipe.model.max_text_tokens)
            if recipe.published is not None:
                self._check_vocabulary(recipe.published, named, len(tokenizer))
        else:
            captions = self.train_set(rows, None).all_captions(TOKENIZER_SAMPLES)
            tokenizer = train_tokenizer(captions, recipe.tokenizer.vocab_size)
        tokenizer.model_max_length = recipe.model.max_text_tokens
        return build_processor(tokenizer, recipe.model.image_size)

    def _check_vocabulary(self, predecessor: str, tokenizer: str, size: int) -> None:
        known = self.published_config(predecessor).text_config.vocab_size
        if size != known:
            raise HfChainError(
                f"tokenizer.name_or_path is {tokenizer}, which has {size} tokens, but predecessor {predecessor} knows "
                f"{known}: give the predecessor's own tokenizer"
            )

    def check_processor(self) -> None:
        """Loads the tokenizer that the recipe names; a published predecessor needs one."""
        from hf_chain.data import load_tokenizer

        recipe, named = self.recipe, self.recipe.tokenizer.name_or_path
        if named is not None:
            load_tokenizer(named, recipe.model.max_text_tokens)
        elif recipe.published is not None:
            raise HfChainError(
                f"predecessor {recipe.published} has a vocabulary of its own: set tokenizer.name_or_path to "
                f"{recipe.published} too"
            )

    def look_at(self, train: Any, processor: Any) -> None:
        """Warns of captions that are all alike, or that the tokenizer cannot tell apart."""
        from hf_chain.data.tokenizer import check_readings
        from hf_chain.evaluation.embed import warn_if_alike

        captions = list(train.all_captions(CAPTIONS_LOOKED_AT))
        warn_if_alike("the training data", captions)
        check_readings(captions, processor.tokenizer)

    def evaluation_options(self, evaluation: Mapping[str, Any]) -> dict[str, Any]:
        """Columns, class names and prompts, as `evaluate_clip` takes them."""
        from hf_chain.data import class_names

        data, wanted = self.recipe.data, self.recipe.evaluation
        named = data.label_column is not None and wanted.zero_shot is not False
        captioned = data.caption_column is not None and wanted.retrieval is not False
        names = class_names(next(iter(evaluation.values())), data) if named and evaluation else None
        return {
            "image_column": data.image_column,
            "caption_column": data.caption_column if captioned else None,
            "label_column": data.label_column if named else None,
            "class_names": names,
            "prompt_templates": wanted.prompt_templates or resolve_templates(data.prompt_templates),
            "batch_size": wanted.batch_size,
            "max_samples": wanted.max_samples,
            "max_image_pixels": data.max_image_pixels,
        }

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

    def leftovers(self) -> Iterator[str]:
        """And the maps to the teacher."""
        from hf_chain.models.chain_clip.stock_clip import TEACHER_MAPS_NAME

        yield from super().leftovers()
        yield TEACHER_MAPS_NAME

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
            evaluation_macs=EVALUATIONS * clip_evaluation_macs(config, size.evaluated, size.evaluated_texts),
        )

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

    def check_batch(self, where: str, batch: int) -> None:
        """An image has to have another to be told from."""
        check_global_batch(where, batch)

    # Evaluation and words

    def evaluate(self, model: Any, processor: Any, rows: Any, **options: Any) -> Evaluation:
        """Zero-shot classification and retrieval."""
        from hf_chain.evaluation import evaluate_clip

        return evaluate_clip(model, processor, rows, **options)

    def shape(self, member: Any, config: Any) -> dict[str, str]:
        """Of image tower and text tower."""
        towers = {"image tower": member.vision, "text tower": member.text}
        return {name: f"{tower.hidden_size} × {tower.num_hidden_layers}" for name, tower in towers.items()}

    @classmethod
    def card_values(cls, config: Any, data: Mapping[str, Any]) -> dict[str, Any]:
        """Whether it has seen rendered scenes alone."""
        return {"rendered": data.get("source") == "scenes"}


def _shapes(member: Any) -> tuple[Any, Any, int | None]:
    return member.vision, member.text, member.projection_dim
