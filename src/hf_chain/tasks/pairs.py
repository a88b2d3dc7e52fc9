"""What paradigms of images with captions share: rows, batches, tokenizers, evaluation and words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_chain.data.prompts import resolve_templates
from hf_chain.data.settings import DataSettings
from hf_chain.errors import HfChainError
from hf_chain.evaluation.settings import EvaluationSettings
from hf_chain.tasks.contrastive.values import check_global_batch
from hf_chain.tasks.image_data import ImageData
from hf_chain.tasks.paradigm import DataSize

if TYPE_CHECKING:
    from hf_chain.evaluation import Evaluation

CAPTIONS_LOOKED_AT = 1_000
"""Rows whose captions are compared with each other."""
TOKENIZER_SAMPLES = 100_000
"""Rows whose captions a tokenizer is trained on."""


class PairData(ImageData):
    """The data of a paradigm whose rows hold an image and captions, and how dual encoders are evaluated on them."""

    data_settings = DataSettings
    evaluation_settings = EvaluationSettings
    primary_metrics = ("zero_shot_top1", "text_to_image_r1", "image_to_text_r1")
    hub_task = "zero-shot-image-classification"

    def planned_size(self) -> DataSize:
        """With one caption for each image that is evaluated."""
        samples, images = self.planned_images()
        splits = {name: (number, number) for name, number in images.items()}
        return DataSize(samples, self.recipe.tokenizer.vocab_size, splits=splits)

    def size(self, data: Any) -> DataSize:
        """Captions of a cache are counted only where there is one."""
        from hf_chain.evaluation import evaluation_size

        splits = {name: evaluation_size(rows, **data.evaluation_options) for name, rows in data.evaluation.items()}
        return DataSize(
            samples_per_epoch=data.samples_per_epoch,
            vocab_size=len(data.processor.tokenizer),
            splits=splits,
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

    def tokenizer(self, rows: Any, context: int, needs_end: bool = True) -> Any:
        """The tokenizer that the recipe names, the published predecessor's, or one that is trained on the captions.

        Args:
            rows: the training split.
            context (`int`): its context in tokens.
            needs_end (`bool`): whether texts are read at their end mark.
        """
        from hf_chain.data import load_tokenizer, train_tokenizer

        recipe, named = self.recipe, self.recipe.tokenizer.name_or_path
        if named is not None:
            tokenizer = load_tokenizer(named, context, needs_end)
            if recipe.published is not None:
                self._check_vocabulary(recipe.published, named, len(tokenizer))
        else:
            captions = self.train_set(rows, None).all_captions(TOKENIZER_SAMPLES)
            tokenizer = train_tokenizer(captions, recipe.tokenizer.vocab_size)
        tokenizer.model_max_length = context
        return tokenizer

    def _check_vocabulary(self, predecessor: str, tokenizer: str, size: int) -> None:
        known = self.published_config(predecessor).text_config.vocab_size
        if size != known:
            raise HfChainError(
                f"tokenizer.name_or_path is {tokenizer}, which has {size} tokens, but predecessor {predecessor} knows "
                f"{known}: give the predecessor's own tokenizer"
            )

    def check_named_tokenizer(self, context: int, needs_end: bool = True) -> None:
        """Loads the tokenizer that the recipe names; a published predecessor needs one."""
        from hf_chain.data import load_tokenizer

        recipe, named = self.recipe, self.recipe.tokenizer.name_or_path
        if named is not None:
            load_tokenizer(named, context, needs_end)
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

    def leftovers(self) -> Iterator[str]:
        """And the maps to the teacher."""
        from hf_chain.models.chain_clip.stock_clip import TEACHER_MAPS_NAME

        yield from super().leftovers()
        yield TEACHER_MAPS_NAME

    def check_batch(self, where: str, batch: int) -> None:
        """An image has to have another to be told from."""
        check_global_batch(where, batch)

    def evaluate(self, model: Any, processor: Any, rows: Any, **options: Any) -> Evaluation:
        """Zero-shot classification and retrieval."""
        from hf_chain.evaluation import evaluate_clip

        return evaluate_clip(model, processor, rows, **options)

    @classmethod
    def card_values(cls, config: Any, data: Mapping[str, Any]) -> dict[str, Any]:
        """Whether it has seen rendered scenes alone."""
        return {"rendered": data.get("source") == "scenes"}
