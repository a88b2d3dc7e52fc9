"""CLIP's softmax contrastive loss over the global batch, with several captions an image."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, softplus

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
    2604.12391).

    Where captions are identical, every image of the caption is a positive of it: the loss of a row is the mean over
    its positives of the cross-entropy of that positive against all negatives, so that positives do not compete with
    each other. (Sharing the target equally among identical captions, as UniCL does, would change nothing: their logits
    are equal, and the mean of the cross-entropies is the same.)

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
        image_logits = logit_scale * image_embeds @ all_texts[:, k].T
        text_logits = logit_scale * text_embeds[:, k] @ all_images.T
        if caption_ids is None or all_ids is None:
            pair = cross_entropy(image_logits, diagonal) + cross_entropy(text_logits, diagonal)
        else:
            positive = caption_ids[:, k, None] == all_ids[None, :, k]
            pair = _cross_entropy_of_positives(image_logits, positive) + _cross_entropy_of_positives(
                text_logits, positive
            )
        losses.append(pair / 2)
    return torch.stack(losses).mean()


def _cross_entropy_of_positives(logits: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Mean over rows and their positives of `-log(exp(p) / (exp(p) + Σ exp(negatives)))`; of one: cross-entropy."""
    # The smallest number instead of minus infinity, whose gradient is not a number in a row without negatives.
    negatives = logits.masked_fill(positive, torch.finfo(logits.dtype).min).logsumexp(dim=1, keepdim=True)
    loss = softplus(negatives - logits) * positive
    return (loss.sum(dim=1) / positive.sum(dim=1)).mean()
