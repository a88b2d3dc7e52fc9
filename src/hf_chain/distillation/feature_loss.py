"""The feature loss of inverse knowledge transfer."""

from __future__ import annotations

import torch

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
