"""Training with the sigmoid loss: pairs -> embeddings -> one judgement a pair, and the teacher's embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_chain.losses import sigmoid_loss
from hf_chain.tasks.contrastive.task import ContrastiveTask
from hf_chain.tasks.sigmoid.values import FIRST_LOGITS
from hf_chain.tasks.task import Batch, Features


class SigmoidTask(ContrastiveTask):
    """Trains a `SiglipModel` on images and their captions: contrastive training with another loss.

    Source: SigLIP (arXiv 2303.15343), CoM-PT (arXiv 2604.12391).

    Args:
        args (`ChainConfig`): arguments of the training.
    """

    trained = ("siglip",)

    def freeze_unused(self, model: PreTrainedModel) -> None:
        """Scale and bias are trained."""
        return

    def loss(self, features: Features, batch: Batch) -> torch.Tensor:
        """Sum over the captions of all processes, mean over images."""
        ids = batch["caption_ids"] if self.args.identical_captions_positive else None
        images, texts, scale = (features[name] for name in ("image_embeds", "text_embeds", "logit_scale"))
        return sigmoid_loss(images, texts, scale, features["logit_bias"], ids)

    def limits(self, model: PreTrainedModel) -> list[tuple[nn.Parameter, float]]:
        """None: scales of published SigLIPs are above 100."""
        return []

    def shown(self, features: Features) -> dict[str, torch.Tensor]:
        """The logit scale and the logit bias."""
        return {name: features[name].detach() for name in ("logit_scale", "logit_bias")}


@torch.no_grad()
def start_logits(model: Any) -> Any:
    """Gives a new `SiglipModel` the scale and the bias of the paper; those of transformers are both 0.

    With bias 0 all of the many pairs that do not belong together are judged wrongly at first, and the first steps
    correct that alone.

    Args:
        model (`SiglipModel`): a model with random weights; it is changed.

    Returns:
        `SiglipModel`: the model itself.
    """
    for parameter, value in zip((model.logit_scale, model.logit_bias), FIRST_LOGITS, strict=True):
        parameter.fill_(value)
    return model
