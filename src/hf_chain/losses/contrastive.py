"""CLIP's softmax contrastive loss over the global batch, with several captions an image."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from hf_chain.losses.gather import gather, process_rank


def contrastive_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    caption_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Symmetric cross-entropy between images and captions, averaged over the K caption sets.

    Each process scores its own rows against the gathered batch; the mean of this value over processes is the loss of
    the global batch. Source: CLIP (arXiv 2103.00020, figure 3); the mean over caption sets is that of CoM-PT (arXiv
    2604.12391); captions that are identical share the probability mass as in UniCL (arXiv 2204.03610, equation 3).

    Args:
        image_embeds (`torch.Tensor`): shape `[B, D]`, L2-normalised.
        text_embeds (`torch.Tensor`): shape `[B, K, D]`, L2-normalised.
        logit_scale (`torch.Tensor`): shape `[1]`, the factor on the cosine (not its logarithm).
        caption_ids (`torch.Tensor`, *optional*): shape `[B, K]`, int64, equal exactly where captions are equal. Equal
            captions in a set then count as positives of each other; without it only the diagonal is positive.

    Returns:
        `torch.Tensor`: the scalar loss, in nats.
    """
    all_images, all_texts = gather(image_embeds), gather(text_embeds)
    all_ids = None if caption_ids is None else gather(caption_ids)
    rows = image_embeds.shape[0]
    diagonal = torch.arange(rows, device=image_embeds.device) + rows * process_rank()

    losses = []
    for k in range(text_embeds.shape[1]):
        targets = diagonal
        if caption_ids is not None and all_ids is not None:
            same = (caption_ids[:, k, None] == all_ids[None, :, k]).to(image_embeds.dtype)
            targets = same / same.sum(dim=1, keepdim=True)
        image_logits = logit_scale * image_embeds @ all_texts[:, k].T
        text_logits = logit_scale * text_embeds[:, k] @ all_images.T
        losses.append((cross_entropy(image_logits, targets) + cross_entropy(text_logits, targets)) / 2)
    return torch.stack(losses).mean()
