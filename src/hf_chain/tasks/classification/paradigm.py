"""Image classification as a recipe knows it: labelled images, top-1 and top-5 on held-out ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from hf_chain.cost import classifier_macs
from hf_chain.data.settings import ImageSettings
from hf_chain.errors import HfChainError
from hf_chain.tasks.classification.values import other_classes
from hf_chain.tasks.paradigm import DataSize
from hf_chain.tasks.stock_images import StockImageParadigm

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from hf_chain.evaluation import Evaluation


HEAD = "classifier"
"""Name of the head in all of these families."""


class LabelledImageSettings(ImageSettings):
    """Source, columns and augmentation of labelled images."""

    label_column: str = Field("label", description="Column that holds the class number of an image.")


class ClassificationParadigm(StockImageParadigm):
    """Images are told by their class."""

    data_settings: ClassVar[type[ImageSettings]] = LabelledImageSettings
    primary_metrics = ("top1",)
    hub_task = "image-classification"
    auto_class = "AutoModelForImageClassification"
    what = "an image classifier"
    output = "logits"

    @classmethod
    def families(cls) -> frozenset[str]:
        """Vision models with a class head."""
        return frozenset(("vit", "deit", "dinov2", "dinov2_with_registers", "swin", "swinv2", "convnext"))

    def planned_size(self) -> DataSize:
        """Classes as `model.num_labels` says, or as they are in the data."""
        known = (self.recipe.model.model_extra or {}).get("num_labels")
        classes = known or len(self._names(self.splits(["train"])["train"]))
        return replace(super().planned_size(), classes=classes)

    def checked_config(self, member: Any) -> PreTrainedConfig:
        """With the classes of the data."""
        return self.planned_config(member, self.planned_size())

    def size(self, data: Any) -> DataSize:
        """And the classes."""
        return replace(super().size(data), classes=len(self._names(data.train.dataset)))

    def _names(self, rows: Any) -> list[str]:
        """Names of the classes of a split; where nothing gives them, as transformers calls such."""
        from hf_chain.data.readers import reader_of

        names = reader_of(self.recipe.data, rows.features).names_by_class
        if names is not None:
            return [name for name, *_ in names]
        if not hasattr(rows, "unique"):
            raise HfChainError("data.class_names is not set: a stream does not say how many classes it has")
        return [f"LABEL_{number}" for number in range(1 + max(rows.unique(self.recipe.data.label_column)))]

    def decided(self, size: DataSize, data: Any = None) -> dict[str, Any]:
        """The classes, with their names once the data are there."""
        if data is None:
            return {"num_labels": size.classes}
        names = dict(enumerate(self._names(data.train.dataset)))
        return {"id2label": names, "label2id": {name: number for number, name in names.items()}}

    def check_predecessor(self, name: str, published: Any, config: Any) -> None:
        """Logits of other classes teach nothing."""
        if other_classes(published, config):
            self._check_untaught(name, published, config)

    def _check_untaught(self, name: str, published: Any, config: Any) -> None:
        first = self.recipe.members[0]
        if self.recipe.is_taught(first):
            raise HfChainError(
                f"members.{first.name} would be taught by {name}, which has {published.num_labels} classes, and not "
                f"those of the data, {config.num_labels}: set feature_loss_weight: 0 in its training, and it begins "
                "with that model's weights and a new head"
            )

    def load(self, name: str, config: Any = None) -> PreTrainedModel:
        """A published one without a head, or with one for other classes than `config`, gets a new one for those."""
        from hf_chain.loaded_weights import check_loaded

        model, found = self._read(name)
        head = {weight for weight in found["missing_keys"] if weight.startswith(f"{HEAD}.")}
        published = config is not None and name == self.recipe.published
        new = published and bool(head or other_classes(model.config, config))
        if new:
            self._check_untaught(name, model.config, config)
            _give_head(model, config, self.recipe.seed)
            found = {**found, "missing_keys": set(found["missing_keys"]) - head}
        check_loaded(model, found, name, left_out=lambda weight: new and "pooler." in weight)
        return model

    def forward_macs(self, config: Any) -> int:
        """Encoder and head."""
        return sum(classifier_macs(config))

    def example(self, config: Any) -> dict[str, Any]:
        """One image and its class."""
        import torch

        size = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
        pixels = torch.zeros(1, config.num_channels, size, size, device="meta")
        return {"pixel_values": pixels, "labels": torch.zeros(1, dtype=torch.long, device="meta")}

    def evaluate(self, model: Any, processor: Any, rows: Any, trained: bool = True, **options: Any) -> Evaluation:
        """Top-1 and top-5."""
        from hf_chain.evaluation import evaluate_classifier

        return evaluate_classifier(model, processor, rows, label_column=self.recipe.data.label_column, **options)


def _give_head(model: Any, config: Any, seed: int) -> None:
    """A new head, for the classes of `config`."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = torch.nn.Linear(getattr(model, HEAD).in_features, config.num_labels)
        torch.nn.init.normal_(head.weight, std=config.initializer_range)
        torch.nn.init.zeros_(head.bias)
    setattr(model, HEAD, head)
    model.num_labels, model.config.problem_type = config.num_labels, config.problem_type
    model.config.id2label, model.config.label2id = config.id2label, config.label2id
