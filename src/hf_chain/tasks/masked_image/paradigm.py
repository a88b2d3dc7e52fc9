"""Masked images as a recipe knows them: images alone, and the error of drawing what is hidden of held-out ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hf_chain.cost import masked_image_macs
from hf_chain.data.settings import ImageSettings
from hf_chain.tasks.stock_images import StockImageParadigm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_chain.evaluation import Evaluation


class MaskedImageParadigm(StockImageParadigm):
    """An encoder sees a few patches, and a small decoder draws the others; the encoder grows."""

    data_settings = ImageSettings
    primary_metrics = ("reconstruction",)
    hub_task = "image-feature-extraction"
    auto_class = "AutoModelForPreTraining"
    what = "a masked autoencoder"
    output = "logits"
    mask_is_drawn = True

    @classmethod
    def families(cls) -> frozenset[str]:
        """ViT-MAE."""
        return frozenset(("vit_mae",))

    def wrap(self, model: Any, teacher: Any) -> PreTrainedModel:
        """A `ChainMAEModel` of the same modules."""
        from hf_chain.models.chain_mae import ChainMAEModel

        return ChainMAEModel.around(model, teacher.config.hidden_size if teacher else None)

    def leftovers(self) -> Iterator[str]:
        """And the map to the teacher."""
        from hf_chain.models.chain_clip.stock_clip import TEACHER_MAPS_NAME

        yield from super().leftovers()
        yield TEACHER_MAPS_NAME

    def forward_macs(self, config: Any) -> int:
        """The encoder on the patches that are seen, the decoder on all."""
        return sum(masked_image_macs(config))

    def teacher_macs(self, config: Any) -> int:
        """The encoder alone."""
        return masked_image_macs(config)[0]

    def example(self, config: Any) -> dict[str, Any]:
        """One image."""
        import torch

        pixels = (1, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.zeros(*pixels, device="meta")}

    def evaluate(self, model: Any, processor: Any, rows: Any, trained: bool = True, **options: Any) -> Evaluation:
        """The mean error of hidden patches, under masks that rows decide."""
        from hf_chain.evaluation import evaluate_reconstruction

        return evaluate_reconstruction(model, processor, rows, **options)
