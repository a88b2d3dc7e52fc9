"""The frozen predecessor as a teacher, and the loss between its features and those of the member."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from transformers import PreTrainedModel

from hf_chain.cost import dual_encoder_macs
from hf_chain.families import family_of
from hf_chain.loaded_weights import require_finite
from hf_chain.models.dual_encoder import image_embeddings, text_embeddings
from hf_chain.models.token_dropping import dropped_tokens


class TeacherFeatures(NamedTuple):
    """L2-normalised teacher embeddings of a batch, float32."""

    image: torch.Tensor
    """Shape `[B, D]`."""
    text: torch.Tensor
    """Shape `[B, K, D]`."""


class FeatureSource(Protocol):
    """Whatever gives the teacher's features of a batch: a live model or a cache of them."""

    def features(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Teacher features of `batch` (the collator's dictionary), each with a leading batch axis."""


class LiveTeacher(ABC):
    """A model in evaluation mode whose parameters take no gradient.

    A cache keeps what `stored` gives of every row of the data, and `handed` makes features of it.

    Args:
        model (`PreTrainedModel`): the predecessor. It is frozen and widened to float32 in place: a type of its own
            would not fit autocast.

    Raises:
        HfChainError: when its weights are not finite.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    """Columns of a batch that `stored` reads; without any, nothing can be cached."""

    def __init__(self, model: Any) -> None:
        require_finite(model, "the teacher")
        self.model = model.float().eval().requires_grad_(False)

    @abstractmethod
    def features(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """What the teacher hands on of a batch, each with a leading batch axis and without gradient."""

    def stored(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """What a cache keeps of a batch, with a leading batch axis."""
        raise NotImplementedError(f"{type(self).__name__} has no `reads`, so nothing of it is stored")

    def stored_shape(self, dataset: Any) -> tuple[int, ...]:
        """Shape of what is stored of a row."""
        raise NotImplementedError(f"{type(self).__name__} has no `reads`, so nothing of it is stored")

    def handed(self, stored: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The features of a batch from what is stored of it."""
        return (stored,)

    def storing_macs(self, dataset: Any) -> int:
        """MACs of a row as it is stored."""
        raise NotImplementedError(f"{type(self).__name__} has no `reads`, so nothing of it is stored")

    def handing_macs(self, dataset: Any) -> int:
        """MACs of a row that a cache leaves to be done at every step."""
        return 0


class Teacher(LiveTeacher):
    """A frozen dual encoder.

    Args:
        model (`PreTrainedModel`): the predecessor, a `CLIPModel` or a `SiglipModel`.
    """

    reads = ("pixel_values",)

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self.embedding_size = family_of(model.config).embedding_size(model.config)

    @torch.no_grad()
    def features(self, batch: dict[str, torch.Tensor]) -> TeacherFeatures:
        """Runs the teacher on `pixel_values` `[B, 3, H, W]` and `input_ids` `[B, K, L]`.

        Where the batch has `kept_tokens` `[B, T]`, the teacher sees the image tokens that the student sees.
        """
        with dropped_tokens(self.model.vision_model, batch.get("kept_tokens")):
            image = self.image_features(batch["pixel_values"])
        return TeacherFeatures(image, self.text_features(batch))

    def stored(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Image embeddings; captions are kept apart, as rows share them."""
        return self.image_features(batch["pixel_values"])

    def stored_shape(self, dataset: Any) -> tuple[int, ...]:
        """One embedding."""
        return (self.embedding_size,)

    def storing_macs(self, dataset: Any) -> int:
        """Of an image."""
        return dual_encoder_macs(self.model.config).image

    @torch.no_grad()
    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """L2-normalised image embeddings, shape `[B, D]`."""
        return image_embeddings(self.model, pixel_values)

    @torch.no_grad()
    def text_features(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """L2-normalised caption embeddings, shape `[B, K, D]`, of `input_ids` `[B, K, L]` and its mask, if any."""
        return text_embeddings(self.model, batch["input_ids"], batch.get("attention_mask"))


def weights_hash(model: torch.nn.Module) -> str:
    """SHA-256 over names, shapes and values of all parameters, as a hexadecimal string."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


REFERENCE_SIZE = 512
"""Embedding size at which the published weight α = 500 was used; the mean over D makes α grow with D."""


def feature_loss(
    student_image: torch.Tensor,
    student_text: torch.Tensor,
    teacher_image: torch.Tensor,
    teacher_text: torch.Tensor,
) -> torch.Tensor:
    """Distance between the student's and the teacher's embeddings, image tower plus text tower.

    The mean squared error over D of L2-normalised embeddings, multiplied by D / 512: a weight α then means the same at
    every embedding size, `α · (2/512) · (1 − cos)` a tower. Source: CoM-PT (arXiv 2604.12391, feature space transfer).

    Args:
        student_image (`torch.Tensor`): shape `[B, D]`, L2-normalised, mapped to the teacher's D where sizes differ.
        student_text (`torch.Tensor`): shape `[B, K, D]`, likewise.
        teacher_image (`torch.Tensor`): shape `[B, D]`, L2-normalised, without gradient.
        teacher_text (`torch.Tensor`): shape `[B, K, D]`, likewise.

    Returns:
        `torch.Tensor`: the scalar loss, before its weight.
    """
    scale = teacher_image.shape[-1] / REFERENCE_SIZE
    image = (student_image - teacher_image).square().mean()
    text = (student_text - teacher_text).square().mean()
    return scale * (image + text)
