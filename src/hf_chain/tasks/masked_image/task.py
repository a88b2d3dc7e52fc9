"""Training on masked images: a few patches -> tokens -> pixels of the others, and the teacher's tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize
from transformers import PreTrainedModel, ViTMAEForPreTraining

from hf_chain.adapters import check_no_adapter
from hf_chain.arguments.checkpointing import checkpoints_activations
from hf_chain.cost import StepCost, forward_passes, masked_image_macs
from hf_chain.cost.macs import image_patches
from hf_chain.cost.steps import BACKWARD_FORWARDS
from hf_chain.distillation import LiveTeacher
from hf_chain.distillation.teacher import FeatureSource
from hf_chain.engine import builds_in_pieces
from hf_chain.errors import HfChainError
from hf_chain.models.chain_clip.stock_clip import MAP_SUFFIX
from hf_chain.models.chain_mae import ChainMAEModel, mask_noise
from hf_chain.tasks.task import Batch, Features, Handed, Task


class MaskedImageTask(Task):
    """Trains a `ViTMAEForPreTraining`, within the `ChainMAEModel` that shares its modules.

    The loss is that of the stock class: the squared error of the pixels of hidden patches, which are normed where the
    configuration says `norm_pix_loss`. Which patches are hidden depends on the seed, the step and the image's row, so
    that any number of processes and a resumed training hide the same. The teacher's encoder sees the patches that the
    student sees, and hands on the tokens that it makes of them. Predictions for `compute_metrics` are pixels
    `[N, patches, pixels]` and the mask `[N, patches]`, and labels the images.
    Source: MAE (arXiv 2111.06377), CoM-PT (arXiv 2604.12391).

    Args:
        args (`ChainConfig`): arguments of the training.
    """

    evaluator = "reconstruction"
    collator = "ImageCollator(image_processor)"
    inputs = ("pixel_values", "noise")
    labels = "pixel_values"
    additive = True

    def teacher(self, given: Any, student: nn.Module) -> FeatureSource:
        """A `ViTMAEForPreTraining` of the same patches, or another source of its tokens."""
        if isinstance(given, ViTMAEForPreTraining):
            if isinstance(student, ViTMAEForPreTraining):
                _check_same(given.config, student.config)
            return TokensTeacher(given)
        if not hasattr(given, "embedding_size"):
            raise HfChainError(f"the teacher is a {type(given).__name__}: give a ViTMAEForPreTraining")
        source: FeatureSource = given
        return source

    def wrap(self, model: nn.Module, teacher: FeatureSource | None) -> PreTrainedModel:
        """The `ChainMAEModel` around a `ViTMAEForPreTraining`, or the one that is given."""
        if isinstance(model, ChainMAEModel):
            return model
        if type(model) is not ViTMAEForPreTraining:
            raise HfChainError(f"the model to train is a {type(model).__name__}: give a ViTMAEForPreTraining")
        if not builds_in_pieces():
            check_no_adapter(model, "this ViTMAEForPreTraining")
        return ChainMAEModel.around(model, getattr(teacher, "embedding_size", None))

    def added(self, model: PreTrainedModel) -> tuple[dict[str, nn.Parameter], str]:
        """The map to the teacher's width."""
        maps = {name: weight for name, weight in model.named_parameters() if self.is_beside(name)}
        return maps, "leave optimizers out"

    def step_cost(self, model: PreTrainedModel, teacher: PreTrainedModel | None, data: Any, steps: int) -> StepCost:
        """The student's encoder on the patches that are seen and its decoder on all; the teacher's encoder."""
        args = self.args
        again = bool(args.gradient_checkpointing) or checkpoints_activations(model)
        student = (BACKWARD_FORWARDS + forward_passes(None, again)) * sum(masked_image_macs(model.config))
        taught = masked_image_macs(teacher.config)[0] if teacher is not None else 0
        return self.cost(student, taught, steps)

    # One batch

    @property
    def columns(self) -> list[str]:
        """Images, and which they are."""
        return ["pixel_values", "image_ids"]

    def drawn(self, model: PreTrainedModel, batch: Batch, step: int, steps: int) -> dict[str, torch.Tensor]:
        """The noise that says which patches are seen."""
        images, pixels = batch["image_ids"].tolist(), batch["pixel_values"]
        noise = mask_noise(images, image_patches(model.config), self.args.seed, step)
        return {"noise": noise.to(pixels.device)}

    def fixed(self, model: PreTrainedModel, batch: Batch) -> dict[str, torch.Tensor]:
        """The noise of an evaluation, that of `evaluate_reconstruction`."""
        noise = mask_noise(batch["image_ids"].tolist(), image_patches(model.config))
        return {"noise": noise.to(batch["pixel_values"].device)}

    def loss(self, features: Features, batch: Batch) -> torch.Tensor:
        """The stock model's."""
        return features["loss"]

    def handed(self, features: Features) -> Handed:
        """The tokens of patches that are seen, in the teacher's width."""
        return (features["tokens_for_teacher"],)

    def feature_loss(self, student: Handed, teacher: Handed) -> torch.Tensor:
        """Mean squared distance of unit tokens, 2 (1 - cos)."""
        return (student[0] - teacher[0]).square().sum(-1).mean()

    def predictions(self, features: Features, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Pixels and mask."""
        return features["logits"], features["mask"]

    # What engine and files have to know

    def is_beside(self, name: str) -> bool:
        """The map to the teacher is."""
        return MAP_SUFFIX in name

    def load_beside(self, model: PreTrainedModel, folder: str) -> None:
        """Reads the map to the teacher."""
        model.load_teacher_map(folder)


class TokensTeacher(LiveTeacher):
    """A frozen `ViTMAEForPreTraining`, whose decoder is not run.

    Args:
        model (`ViTMAEForPreTraining`): the predecessor.
    """

    def __init__(self, model: ViTMAEForPreTraining) -> None:
        super().__init__(model)
        self.embedding_size: int = model.config.hidden_size

    @torch.no_grad()
    def features(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """L2-normalised tokens of the patches that `noise` shows, shape `[B, seen patches, D]`, float32."""
        output = self.model.vit(pixel_values=batch["pixel_values"], noise=batch["noise"])
        return (normalize(output.last_hidden_state[:, 1:].float(), dim=-1),)


def _check_same(teacher: Any, student: Any) -> None:
    """Refuses a teacher that sees other patches than the student."""
    for field in ("image_size", "patch_size", "num_channels", "mask_ratio"):
        has, needs = getattr(teacher, field), getattr(student, field)
        if has != needs:
            raise HfChainError(f"the teacher has {field}={has} and the model {needs}: both see the same patches")
