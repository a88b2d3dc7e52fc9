"""The processor that training uses and that is saved with every member."""

from __future__ import annotations

from transformers import CLIPImageProcessorPil, CLIPProcessor, PreTrainedTokenizerBase


def build_processor(tokenizer: PreTrainedTokenizerBase, image_size: int) -> CLIPProcessor:
    """Build the processor of a member.

    Args:
        tokenizer (`transformers.PreTrainedTokenizerBase`): Tokenizer of the family.
        image_size (`int`): Height and width in pixels that the image tower takes.

    Returns:
        `transformers.CLIPProcessor`: Resizes the shorter side (bicubic), cuts the centre, normalises as CLIP does.
    """
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    return CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)
