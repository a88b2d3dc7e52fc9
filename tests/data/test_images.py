"""Images of any mode become the RGB image a person would expect, wherever they are read."""

from __future__ import annotations

import base64
import io
import os
import socket

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from transformers import CLIPImageProcessorPil

from hf_chain.data import DataSettings, ImageTextDataset, check_quality
from hf_chain.data.chat import ChatDataSettings
from hf_chain.data.chat.rows import read_sample
from hf_chain.evaluation.embed import _read_image
from hf_chain.images import decode_image, to_rgb
from support.grafted_parts import tiny_parts

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def stored(image, form="PNG", **options):
    return {"bytes": encoded(image, form, **options), "path": None}


def half(mode, clear, solid):
    """Two pixels wide and high: the left column of one value, the right of another."""
    image = Image.new(mode, (2, 2), clear)
    for y in range(2):
        image.putpixel((1, y), solid)
    return image


def palette(clear):
    image = half("P", 0, 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    return encoded(image, transparency=clear) if clear is not None else encoded(image)


def animated():
    frames = [half("RGB", RED, BLACK), half("RGB", BLACK, RED)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def turned():
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down: left is right
    return encoded(half("RGB", BLACK, RED), "PNG", exif=exif)


GREY = (128, 128, 128)
CASES = {
    "RGBA": (encoded(half("RGBA", (0, 0, 0, 0), (255, 0, 0, 255))), WHITE, RED),
    "half transparent": (encoded(half("RGBA", (255, 0, 0, 255), (0, 0, 0, 127))), RED, GREY),
    "LA": (encoded(half("LA", (0, 0), (0, 255))), WHITE, BLACK),
    "RGB with one clear colour": (encoded(half("RGB", BLACK, RED), transparency=BLACK), WHITE, RED),
    "palette": (palette(None), BLACK, RED),
    "palette with a clear colour": (palette(0), WHITE, RED),
    "palette with alpha": (palette(bytes([0, 255])), WHITE, RED),
    "16 bits": (encoded(half("I;16", 0, 257 * 128)), BLACK, GREY),
    "16 bits with a clear grey": (encoded(half("I;16", 0, 257 * 128), transparency=0), WHITE, GREY),
    "32 bits that hold 16": (encoded(half("I", 0, 257 * 128), "TIFF"), BLACK, GREY),
    "32 bits": (encoded(half("I", -100_000, 100_000), "TIFF"), BLACK, WHITE),
    "float from 0 to 1": (encoded(half("F", 0, 128 / 255), "TIFF"), BLACK, GREY),
    "float from 0 to 255": (encoded(half("F", 0, 128), "TIFF"), BLACK, GREY),
    "float of any range": (encoded(half("F", -3, 700), "TIFF"), BLACK, WHITE),
    "CMYK": (encoded(half("CMYK", (0, 255, 255, 0), (0, 0, 0, 255)), "TIFF"), RED, BLACK),
    "black and white": (encoded(half("1", 0, 1)), BLACK, WHITE),
    "grey": (encoded(half("L", 0, 128)), BLACK, GREY),
    "animated": (animated(), RED, BLACK),
    "turned": (turned(), RED, BLACK),
}


def columns(image):
    assert image.mode == "RGB"
    return [image.getpixel((x, 0)) for x in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_an_image_is_read_in_the_same_way_everywhere(case, tmp_path):
    """Training, evaluation, chat and the saved processor see the very same pixels."""
    content, left, right = CASES[case]
    path = tmp_path / "picture"
    path.write_bytes(content)
    found = decode_image({"bytes": content, "path": None})
    assert np.abs(np.subtract(columns(found), [left, right])).max() <= 1
    for value in (content, str(path), {"bytes": None, "path": str(path)}, Image.open(path), path.as_uri()):
        assert columns(decode_image(value)) == columns(found)
    rows = Dataset.from_dict({"image": [str(path)], "text": ["a"]}).cast_column("image", ImageFeature())
    pairs = ImageTextDataset(rows, DataSettings(source="folder", caption_column="text"))
    evaluated = rows.cast_column("image", ImageFeature(decode=False))
    chat = {"messages": [], "images": [{"path": str(path), "bytes": None}]}
    for image in (pairs[0]["image"], _read_image(evaluated, "image", 0, None), *read_sample(chat).images):
        assert columns(image) == columns(found)


@pytest.fixture(scope="module")
def processor():
    return tiny_parts()[1]


@pytest.mark.parametrize("case", CASES)
def test_a_saved_processor_reads_as_training_does(case, processor, tmp_path):
    content = CASES[case][0]
    path = tmp_path / "picture"
    path.write_bytes(content)
    expected = processor(text="a <image>", images=decode_image(content), return_tensors="pt")["pixel_values"]
    for image in (str(path), Image.open(path), content, base64.b64encode(content).decode(), [[str(path)]]):
        found = processor(text=["a <image>"], images=image, return_tensors="pt")["pixel_values"]
        assert torch.equal(found, expected)


@pytest.mark.parametrize("case", CASES)
def test_the_stock_processor_of_a_member_agrees_but_for_what_the_documentation_names(case):
    size = {"height": 2, "width": 2}
    stock = CLIPImageProcessorPil(size={"shortest_edge": 2}, crop_size=size)
    content = CASES[case][0]
    found, expected = (
        stock(image, return_tensors="pt")["pixel_values"]
        for image in (Image.open(io.BytesIO(content)), decode_image(content))
    )
    named = "16" in case or case in ("turned", "float from 0 to 1")
    assert torch.equal(found, expected) is not named


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
def test_arrays_of_any_depth(dtype):
    top = {np.uint8: 255, np.uint16: 65535, np.float32: 1.0, bool: True}[dtype]
    assert decode_image(np.full((3, 4), top, dtype)).getpixel((3, 2)) == WHITE
    assert decode_image(np.array([[[top, 0, 0]]], dtype)).getpixel((0, 0)) == RED
    assert decode_image(np.array([[[0, 0, 0, 0]]], dtype)).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_processor_reads_arrays_of_any_depth(dtype, processor):
    top = {np.uint8: 255, np.uint16: 65535, np.float32: 1.0}[dtype]
    photo = np.zeros((20, 28, 3), dtype)
    photo[:, :14] = top
    found, expected = (
        processor(text="a <image>", images=image, return_tensors="pt")["pixel_values"]
        for image in (photo, decode_image(photo))
    )
    assert torch.equal(found, expected)
    assert found.max() > 1 > -1 > found.min()


def test_arrays_that_are_not_rescaled_stay_as_they_are(processor):
    photo = np.full((20, 28, 3), 0.5, np.float32)
    found = processor(text="a <image>", images=photo, do_rescale=False, do_normalize=False, return_tensors="pt")
    assert found["pixel_values"].unique().tolist() == pytest.approx([0.5], abs=0.01)


def test_float_images_with_nan_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        to_rgb(Image.fromarray(np.full((2, 2), np.nan, np.float32)))


def test_cmyk_photographs():
    image = Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK")
    pixel = decode_image(stored(image, "JPEG", quality=95)).getpixel((8, 8))
    assert np.abs(np.array(pixel) - (200, 40, 90)).max() <= 6


def test_upright_by_its_exif_orientation():
    image, exif = Image.new("RGB", (8, 4)), Image.Exif()
    exif[0x0112] = 6
    content = encoded(image, "JPEG", exif=exif)
    assert decode_image(content).size == decode_image(Image.open(io.BytesIO(content))).size == (4, 8)


@pytest.mark.parametrize(
    "value", [None, {"bytes": b"", "path": None}, {"bytes": None, "path": None}, "no/such.png", 3, "x" * 10_000]
)
def test_what_is_no_image_raises_in_few_words(value):
    with pytest.raises((OSError, ValueError)):
        decode_image(value)


@pytest.mark.parametrize(("value", "words"), [(b"<html>", "it is no image of a known format"), (b"", "it is empty")])
def test_what_a_file_holds_instead_of_an_image_is_said_without_places_in_memory(value, words):
    with pytest.raises(ValueError, match=f"^{words}$"):
        decode_image(value)
    with pytest.raises(ValueError, match="it has 3 × 0 pixels"):
        decode_image(np.zeros((0, 3, 3), dtype=np.uint8))


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    # Its address may not be long.
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    kinds = {"pipe": "named pipe", "link": "named pipe", "socket": "socket", ".": "folder", "/dev/zero": "device"}
    for name, kind in kinds.items():
        for path in (str(tmp_path / name), (tmp_path / name).as_uri()):
            with pytest.raises(ValueError, match=f"it is a {kind}, no regular file"):
                decode_image(path)


def test_a_row_whose_image_is_a_pipe_is_a_bad_row(tmp_path, pictures):
    pictures[1].unlink()
    os.mkfifo(pictures[1])
    rows = Dataset.from_dict({"image": [str(path) for path in pictures], "text": ["a"] * 8})
    settings = DataSettings(source="folder", caption_column="text", max_bad_share=0.5)
    assert list(check_quality(rows.cast_column("image", ImageFeature()), settings)) == [0, 2, 3, 4, 5, 6, 7]


def test_the_pixel_limit_holds_before_an_image_is_decoded(pictures, caplog):
    settings = DataSettings(source="folder", caption_column="text", max_image_pixels=24 * 16, max_bad_share=0.5)
    rows = Dataset.from_dict({"image": [str(path) for path in pictures], "text": ["a"] * 8})
    rows = rows.cast_column("image", ImageFeature())
    assert list(check_quality(rows, settings)) == [0, 1, 2, 3, 4]
    assert "it has 25 × 16 = 400 pixels, more than max_image_pixels 384" in caplog.text
    assert list(check_quality(rows, settings.model_copy(update={"max_image_pixels": 400}))) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="max_image_pixels"):
        read_sample({"messages": [], "images": [{"path": str(pictures[7]), "bytes": None}]}, 100)
    assert ChatDataSettings(max_image_pixels=100).max_image_pixels == 100


def test_a_strip_that_a_processor_would_make_gigabytes_of_is_refused():
    assert decode_image(encoded(Image.new("RGB", (1, 1_000)))).size == (1, 1_000)
    with pytest.raises(ValueError, match="it has 1 × 1001 pixels, one side more than 1,000 times the other"):
        decode_image(encoded(Image.new("RGB", (1, 1_001))))


def test_a_bomb_is_refused_and_a_larger_limit_lets_it_through():
    # A bitmap header that promises 40,000 × 40,000 pixels.
    bomb = bytearray(encoded(Image.new("1", (8, 8)), "BMP"))
    bomb[18:26] = (40_000).to_bytes(4, "little") * 2
    with pytest.raises(ValueError, match="1,600,000,000 pixels, more than max_image_pixels 178,956,970"):
        decode_image(bytes(bomb))
    with pytest.raises(OSError, match="truncated"):
        decode_image(bytes(bomb), max_pixels=2_000_000_000)
    assert Image.MAX_IMAGE_PIXELS is not None
