"""Random wordings around an image, so that the model does not learn one phrase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from hf_chain.data.chat.rows import IMAGE_PLACEHOLDER

IMAGE_PROMPTS = (
    "<image>",
    "Image: <image>",
    "Picture: <image>",
    "Photo: <image>",
    "Here is an image: <image>",
    "Here is a picture: <image>",
    "This is the image: <image>",
    "This is the picture to look at: <image>",
    "Look at this image: <image>",
    "Look at this picture: <image>",
    "Take a look: <image>",
    "See the image here: <image>",
    "The image is shown here: <image>",
    "The picture in question: <image>",
    "The image that belongs to this: <image>",
    "I have an image for you: <image>",
    "I am sending you a picture: <image>",
    "You are given an image: <image>",
    "You can see a picture here: <image>",
    "Attached is an image: <image>",
    "An image is attached. <image>",
    "A picture comes with this message. <image>",
    "Please consider the following image. <image>",
    "Please study this picture first. <image>",
    "The following is about this image. <image>",
    "Use this picture for what follows. <image>",
    "<image> This is the image.",
    "<image> The picture above is what this is about.",
    "<image> Keep this image in mind.",
    "<image> Look at it closely.",
)
"""Thirty wordings, each with one `<image>`."""


def wrap_images(messages: Sequence[Mapping[str, str]], image_token: str, random: Random) -> list[dict[str, str]]:
    """Put one of the wordings around every image of a conversation.

    Args:
        messages (`Sequence[Mapping[str, str]]`): With the image token where the images are.
        image_token (`str`): What stands for an image.
        random (`random.Random`): Generator of this sample.
    """
    wrapped = []
    for message in messages:
        before, *after = message["content"].split(image_token)
        wordings = (random.choice(IMAGE_PROMPTS).replace(IMAGE_PLACEHOLDER, image_token) for _ in after)
        content = before + "".join(wording + text for wording, text in zip(wordings, after, strict=True))
        wrapped.append({"role": message["role"], "content": content})
    return wrapped
