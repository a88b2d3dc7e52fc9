"""Random crops and flips of a training image."""

from __future__ import annotations

from random import Random

from PIL import Image

from hf_chain.data.settings import AugmentationSettings


def augment(image: Image.Image, settings: AugmentationSettings, random: Random) -> Image.Image:
    """Crop and mirror an image at random.

    The crop is a square and is not resized here: the processor resizes it once, exactly as it will for users.

    Args:
        image (`PIL.Image.Image`): The image, mode `RGB`.
        settings (`AugmentationSettings`): What may happen to it.
        random (`random.Random`): Generator of this sample.

    Returns:
        `PIL.Image.Image`: The changed image.
    """
    if settings.crop_scale is not None:
        share = random.uniform(*settings.crop_scale)
        side = max(1, round(share**0.5 * min(image.size)))
        left = random.randint(0, image.width - side)
        top = random.randint(0, image.height - side)
        image = image.crop((left, top, left + side, top + side))
    if settings.horizontal_flip and random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image
