"""Training cost of one member: student, teacher and evaluation, on its own and inside the chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_chain.cost.macs import clip_macs, clip_parameters
from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from transformers import CLIPConfig

BACKWARD_FORWARDS = 2
"""A backward pass costs two forwards: the gradients of the inputs and those of the weights."""


def evaluation_macs(config: CLIPConfig, images: int, texts: int, text_tokens: int | None = None) -> int:
    """MACs of encoding `images` and `texts` (captions or class prompts of `text_tokens` tokens) once.

    Args:
        config (`CLIPConfig`): The model.
        images (`int`): Images that are encoded.
        texts (`int`): Captions and class prompts that are.
        text_tokens (`int`, *optional*): Tokens in each; the whole context by default.

    Returns:
        `int`: Multiply-accumulate operations.
    """
    macs = clip_macs(config, text_tokens)
    return images * macs.image + texts * macs.text


@dataclass(frozen=True)
class MemberCost:
    """What it takes to train one member; all costs are in multiply-accumulate operations (MACs).

    Attributes:
        name (`str`): Name of the member.
        config (`CLIPConfig`): Its model.
        epochs (`float`): Epochs it is trained in the chain.
        samples_per_epoch (`int`): Images in an epoch.
        captions (`int`): Captions a step sees of each image.
        text_tokens (`int`, *optional*): Tokens in a caption; the whole context by default.
        image_token_keep (`float`): Share of patch tokens the student sees (FLIP).
        unmasked_tail (`float`): Share of the training, at its end, in which the student sees every token.
        forward_passes (`int`): Student forwards in a step: 2 when accumulating through cached features, and one more
            with gradient checkpointing.
        teacher (`CLIPConfig`, *optional*): The frozen predecessor. Live it sees the student's tokens, cached whole
            images.
        teacher_share (`float`): Share of the training in which the teacher is needed.
        cached_views (`int`, *optional*): Image views in the teacher's feature cache. `None`: the teacher runs live.
        caption_pool (`int`, *optional*): Different captions of an image that the cache holds; `captions` by default.
        evaluation_macs (`int`): All evaluations of this member, paid by the independent twin as well.
    """

    name: str
    config: CLIPConfig
    epochs: float
    samples_per_epoch: int
    captions: int = 1
    text_tokens: int | None = None
    image_token_keep: float = 1.0
    unmasked_tail: float = 0.0
    forward_passes: int = 1
    teacher: CLIPConfig | None = None
    teacher_share: float = 1.0
    cached_views: int | None = None
    caption_pool: int | None = None
    evaluation_macs: int = 0

    def __post_init__(self) -> None:
        for field in ("epochs", "samples_per_epoch", "captions", "forward_passes"):
            if getattr(self, field) <= 0:
                raise HfChainError(f"{field} of member {self.name} is {getattr(self, field)}: it must be above 0")
        for field in ("unmasked_tail", "teacher_share"):
            if not 0 <= getattr(self, field) <= 1:
                raise HfChainError(f"{field} of member {self.name} is {getattr(self, field)}: choose a share, 0 to 1")

    @property
    def parameters(self) -> int:
        """Parameters of the member."""
        return clip_parameters(self.config)

    @property
    def samples(self) -> int:
        """Images seen in the chain."""
        return round(self.epochs * self.samples_per_epoch)

    @property
    def macs_per_sample(self) -> int:
        """Student forward MACs of an image and its captions, averaged over masked and unmasked training."""
        return self._averaged(self.config)

    @property
    def text_share(self) -> float:
        """Share of the text tower in `macs_per_sample`."""
        return self.captions * clip_macs(self.config, self.text_tokens).text / self.macs_per_sample

    @property
    def training_macs(self) -> dict[str, int]:
        """`student`, `teacher` and `total` MACs of training in the chain."""
        student, teacher = self._student_macs(self.samples), self._teacher_macs()
        return {"student": student, "teacher": teacher, "total": student + teacher}

    def independent_training_macs(self, epochs: float) -> int:
        """MACs of training the same member from scratch for `epochs`: same captions and token savings, no teacher.

        Args:
            epochs (`float`): Epochs of the training from scratch.

        Returns:
            `int`: Multiply-accumulate operations.
        """
        return self._student_macs(round(epochs * self.samples_per_epoch))

    def _student_macs(self, samples: int) -> int:
        return (self.forward_passes + BACKWARD_FORWARDS) * self.macs_per_sample * samples

    def _teacher_macs(self) -> int:
        if self.teacher is None:
            return 0
        epochs = self.teacher_share * self.epochs
        if self.cached_views is None:
            return round(epochs * self.samples_per_epoch) * self._averaged(self.teacher)
        # A cache is filled on the way, so it never costs more than running live on whole images.
        macs = clip_macs(self.teacher, self.text_tokens)
        images = min(epochs, self.cached_views)
        texts = min(epochs * self.captions, self.caption_pool or self.captions)
        return round(images * self.samples_per_epoch) * macs.image + round(texts * self.samples_per_epoch) * macs.text

    def _averaged(self, config: CLIPConfig) -> int:
        masked = clip_macs(config, self.text_tokens, self.image_token_keep).per_sample(self.captions)
        whole = clip_macs(config, self.text_tokens).per_sample(self.captions)
        return masked + round(self.unmasked_tail * (whole - masked))
