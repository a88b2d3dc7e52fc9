"""CLIP's softmax contrastive loss over the global batch, with several captions an image."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from hf_chain.engine import gather, process_rank

LARGEST_BLOCK = 1 << 22
"""Logits that are there at once."""


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
    each other. (UniCL, arXiv 2204.03610, has them compete in one softmax, where m equal captions leave a loss of at
    least log m.) The formula stands in docs/method.md.

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
    return _Contrast.apply(image_embeds, text_embeds, all_images, all_texts, logit_scale, caption_ids, all_ids)


class Blockwise(torch.autograd.Function):
    """A loss that is computed with its gradient, a block of rows after the other, so that no matrix of logits stays.

    Its inputs end in the ids of captions, own and all.
    """

    @staticmethod
    def buffers(ctx: Any, given: tuple[torch.Tensor, ...], dtype: torch.dtype) -> list[torch.Tensor | None]:
        """Zeros to which gradients of the first inputs are added, `None` where none is needed."""
        return [
            torch.zeros_like(tensor, dtype=dtype) if needed else None
            for tensor, needed in zip(given, ctx.needs_input_grad, strict=False)
        ]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # The mean is taken last, so that float16 has no numbers that are too small for it.
        factor = gradient * ctx.share
        return *(None if own is None else factor * own for own in ctx.saved_tensors), None, None


class _Contrast(Blockwise):
    @staticmethod
    def forward(
        ctx: Any,
        images: torch.Tensor,
        texts: torch.Tensor,
        all_images: torch.Tensor,
        all_texts: torch.Tensor,
        scale: torch.Tensor,
        ids: torch.Tensor | None,
        all_ids: torch.Tensor | None,
    ) -> torch.Tensor:
        dtype = torch.promote_types(images.dtype, torch.float32)
        gradients = Blockwise.buffers(ctx, (images, texts, all_images, all_texts, scale), dtype)
        of_images, of_texts, of_all_images, of_all_texts, of_scale = gradients
        loss = torch.zeros((), dtype=dtype, device=images.device)
        (rows, sets), chunk = texts.shape[:2], max(1, LARGEST_BLOCK // len(all_images))
        diagonal = torch.arange(rows, device=images.device) + rows * process_rank()
        for k in range(sets):
            for start in range(0, rows, chunk):
                part = slice(start, min(start + chunk, rows))
                positives = positives_of(ids, all_ids, k, part, diagonal)
                for left, columns, of_left, of_columns in (
                    (images, all_texts[:, k], of_images, None if of_all_texts is None else of_all_texts[:, k]),
                    (texts[:, k], all_images, None if of_texts is None else of_texts[:, k], of_all_images),
                ):
                    of_part = None if of_left is None else of_left[part]
                    loss += _add_block(left[part], columns, scale, positives, of_part, of_columns, of_scale)
        ctx.share = 1 / (2 * sets * rows)
        ctx.save_for_backward(*gradients)
        return loss * ctx.share


def positives_of(
    ids: torch.Tensor | None, all_ids: torch.Tensor | None, k: int, part: slice, own: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row in the block and column of every positive of caption set `k` and rows `part`, whose columns are `own`."""
    if ids is None or all_ids is None:
        return own[part] - own[part.start], own[part]
    row, column = (ids[part, k, None] == all_ids[None, :, k]).nonzero(as_tuple=True)
    return row, column


def _add_block(
    left: torch.Tensor,
    columns: torch.Tensor,
    scale: torch.Tensor,
    positives: tuple[torch.Tensor, torch.Tensor],
    of_left: torch.Tensor | None,
    of_columns: torch.Tensor | None,
    of_scale: torch.Tensor | None,
) -> torch.Tensor:
    """Sum over rows of the mean over their positives of `-log(exp(p) / (exp(p) + Σ exp(negatives)))`.

    Gradients of the sum are added to the last three.
    """
    scaled = scale * left
    logits = (scaled @ columns.T).to(torch.promote_types(left.dtype, torch.float32))
    right = logits[positives]
    # The smallest number instead of minus infinity, whose gradient is not a number in a row without negatives.
    logits[positives] = torch.finfo(logits.dtype).min
    largest = logits.amax(dim=1, keepdim=True)
    total = logits.sub_(largest).exp_().sum(dim=1)
    row = positives[0]
    share = 1 / torch.bincount(row, minlength=len(left)).to(logits.dtype)[row]
    margin = (largest[:, 0] + total.log())[row] - right
    wrong = margin.sigmoid() * share
    # From here on, the gradient of each logit.
    logits.mul_((torch.zeros_like(total).index_add_(0, row, wrong) / total)[:, None])
    logits[positives] = -wrong
    logits = logits.to(left.dtype)
    if of_left is not None or of_scale is not None:
        of_scaled = (logits @ columns).to(total.dtype)
        if of_left is not None:
            of_left += of_scaled * scale
        if of_scale is not None:
            of_scale += (of_scaled * left).sum()
    if of_columns is not None:
        of_columns += logits.T @ scaled
    return (softplus(margin) * share).sum()
