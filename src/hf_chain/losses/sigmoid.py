"""SigLIP's sigmoid loss over the global batch, with several captions an image."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import softplus

from hf_chain.engine import gather, process_rank
from hf_chain.losses import contrastive
from hf_chain.losses.contrastive import Blockwise, positives_of


def sigmoid_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    logit_bias: torch.Tensor,
    caption_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Every pair of an image and a caption is judged alone: belong together, or not.

    `-(1/B) Σ_i Σ_j log sigmoid(z_ij (s x_i·y_j + b))`, with `z_ij` 1 where the pair is one and -1 elsewhere, averaged
    over the K caption sets. Each process scores its own images against the captions of all; the mean of this value
    over processes is the loss of the global batch. No more than `contrastive.LARGEST_BLOCK` logits, or one row, are
    there at once. Source: SigLIP (arXiv 2303.15343), equation 1 and algorithm 1.

    Args:
        image_embeds (`torch.Tensor`): shape `[B, D]`, L2-normalised.
        text_embeds (`torch.Tensor`): shape `[B, K, D]`, L2-normalised.
        logit_scale (`torch.Tensor`): shape `[1]`, the factor s on the cosine (not its logarithm).
        logit_bias (`torch.Tensor`): shape `[1]`, b.
        caption_ids (`torch.Tensor`, *optional*): shape `[B, K]`, int64, equal exactly where captions are equal. Every
            image then belongs to all captions of a set that equal its own; without it only to its own.

    Returns:
        `torch.Tensor`: the scalar loss, in nats an image.
    """
    all_ids = None if caption_ids is None else gather(caption_ids)
    return _Sigmoid.apply(image_embeds, gather(text_embeds), logit_scale, logit_bias, caption_ids, all_ids)


class _Sigmoid(Blockwise):
    @staticmethod
    def forward(
        ctx: Any,
        images: torch.Tensor,
        all_texts: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor,
        ids: torch.Tensor | None,
        all_ids: torch.Tensor | None,
    ) -> torch.Tensor:
        dtype = torch.promote_types(images.dtype, torch.float32)
        gradients = Blockwise.buffers(ctx, (images, all_texts, scale, bias), dtype)
        of_images, of_texts, of_scale, of_bias = gradients
        loss = torch.zeros((), dtype=dtype, device=images.device)
        (columns, sets), rows = all_texts.shape[:2], len(images)
        chunk = max(1, contrastive.LARGEST_BLOCK // columns)
        diagonal = torch.arange(rows, device=images.device) + rows * process_rank()
        for k in range(sets):
            texts = all_texts[:, k]
            for start in range(0, rows, chunk):
                part = slice(start, min(start + chunk, rows))
                positives = positives_of(ids, all_ids, k, part, diagonal)
                scaled = scale * images[part]
                logits = (scaled @ texts.T).to(dtype).add_(bias)
                # With the sign of what has to be small, -z times the logit.
                logits[positives] *= -1
                loss += softplus(logits).sum()
                # From here on, the gradient of each logit.
                logits.sigmoid_()
                logits[positives] *= -1
                if of_bias is not None:
                    of_bias += logits.sum()
                logits = logits.to(images.dtype)
                if of_images is not None or of_scale is not None:
                    of_scaled = (logits @ texts).to(dtype)
                    if of_images is not None:
                        of_images[part] += of_scaled * scale
                    if of_scale is not None:
                        of_scale += (of_scaled * images[part]).sum()
                if of_texts is not None:
                    of_texts[:, k] += logits.T @ scaled
        ctx.share = 1 / (sets * rows)
        ctx.save_for_backward(*gradients)
        return loss * ctx.share
