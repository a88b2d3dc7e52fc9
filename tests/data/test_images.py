"""Images of any mode become the RGB image a person would expect."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from hf_chain.data.images import decode_image, to_rgb


def stored(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def test_sixteen_bit_grey_keeps_its_shades():
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16)[None].repeat(4, 0)
    image = decode_image(stored(Image.fromarray(ramp)))
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image)[0, :, 0].astype(int) - ramp[0] // 257).max() <= 1


def test_transparency_lies_over_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    decoded = decode_image(stored(image))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]


def test_a_palette_keeps_colours_and_transparency():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    plain = decode_image(stored(palette))
    assert [plain.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (200, 100, 50)]
    clear = decode_image(stored(palette, transparency=0))
    assert [clear.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 50)]


@pytest.mark.parametrize(("mode", "value", "expected"), [("L", 77, (77, 77, 77)), ("1", 1, (255, 255, 255))])
def test_grey_and_black_and_white(mode, value, expected):
    assert decode_image(stored(Image.new(mode, (4, 4), value))).getpixel((1, 1)) == expected


def test_cmyk_photographs():
    image = Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK")
    pixel = decode_image(stored(image, "JPEG", quality=95)).getpixel((8, 8))
    assert np.abs(np.array(pixel) - (200, 40, 90)).max() <= 6


def test_float_images_and_their_nan():
    assert to_rgb(Image.fromarray(np.full((2, 2), 0.5, np.float32))).getpixel((0, 0)) == (127, 127, 127)
    with pytest.raises(ValueError, match="NaN"):
        to_rgb(Image.fromarray(np.full((2, 2), np.nan, np.float32)))


def test_upright_by_its_exif_orientation():
    image, exif = Image.new("RGB", (8, 4)), Image.Exif()
    exif[0x0112] = 6
    assert decode_image(stored(image, "JPEG", exif=exif)).size == (4, 8)


@pytest.mark.parametrize(
    "value", [None, {"bytes": b"", "path": None}, {"bytes": None, "path": None}, "no/such.png", 3]
)
def test_what_is_no_image_raises(value):
    with pytest.raises((OSError, ValueError)):
        decode_image(value)
