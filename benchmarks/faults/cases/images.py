"""Pictures of every kind: what each shows is known, and every reader has to see just that."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cases import BASE, Case, chain_recipe
from cases.base import write_pictures
from cases.rows import EVAL

SIZE = (24, 16)
RED, WHITE, BLUE = (220, 30, 40), (255, 255, 255), (20, 40, 210)


def _two_halves(left: Any, right: Any, mode: str = "RGB", size: tuple[int, int] = SIZE) -> Any:
    from PIL import Image

    picture = Image.new(mode, size, left)
    picture.paste(right, (size[0] // 2, 0, *size))
    return picture


def _saved(kind: str, **options: Any) -> Callable[[Any], bytes]:
    def save(picture: Any) -> bytes:
        file = io.BytesIO()
        picture.save(file, kind, **options)
        return file.getvalue()

    return save


def _array(kind: str, values: tuple[float, float]) -> Any:
    import numpy as np
    from PIL import Image

    grey = np.full((SIZE[1], SIZE[0]), values[0], dtype=kind)
    grey[:, SIZE[0] // 2 :] = values[1]
    return Image.fromarray(grey)


def _palette(transparent: bool) -> bytes:
    picture = _two_halves(RED, WHITE).quantize(4)
    options = {"transparency": picture.getpixel((SIZE[0] - 1, 0))} if transparent else {}
    return _saved("PNG", **options)(picture)


def _turned(orientation: int) -> bytes:
    from PIL import Image

    back = {3: 180, 6: 90, 8: 270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = _two_halves(RED, BLUE).rotate(back[orientation], expand=True)
    return _saved("PNG", exif=exif)(picture)


def _animation() -> bytes:
    return _saved("GIF", save_all=True, append_images=[_two_halves(BLUE, RED)])(_two_halves(RED, BLUE))


GREY = ((64, 64, 64), (192, 192, 192))
READ: dict[str, tuple[Callable[[], bytes], tuple[Any, Any]]] = {
    "transparent": (lambda: _saved("PNG")(_two_halves((*RED, 255), (0, 0, 0, 0), "RGBA")), (RED, WHITE)),
    "half transparent": (lambda: _saved("PNG")(_two_halves((*RED, 255), (0, 0, 0, 128), "RGBA")), (RED, (127,) * 3)),
    "grey and transparent": (lambda: _saved("PNG")(_two_halves((64, 255), (0, 0), "LA")), (GREY[0], WHITE)),
    "a palette": (lambda: _palette(False), (RED, WHITE)),
    "a palette with a transparent colour": (lambda: _palette(True), (RED, WHITE)),
    "a WebP with transparency": (
        lambda: _saved("WEBP", lossless=True, exact=True)(_two_halves((*RED, 255), (0, 0, 0, 0), "RGBA")),
        (RED, WHITE),
    ),
    "grey of 16 bits": (lambda: _saved("PNG")(_array("uint16", (64 << 8, 192 << 8))), GREY),
    "grey of 32 bits": (lambda: _saved("TIFF")(_array("int32", (64 << 8, 192 << 8))), GREY),
    "fractions up to one": (lambda: _saved("TIFF")(_array("float32", (64 / 255, 192 / 255))), GREY),
    "fractions up to 255": (lambda: _saved("TIFF")(_array("float32", (64, 192))), GREY),
    "black and white": (lambda: _saved("PNG")(_two_halves(0, 1, "1")), ((0, 0, 0), WHITE)),
    "grey": (lambda: _saved("PNG")(_two_halves(64, 192, "L")), GREY),
    "inks": (lambda: _saved("TIFF")(_two_halves((0, 255, 255, 0), (0, 0, 0, 0), "CMYK")), ((255, 0, 0), WHITE)),
    "turned to the right": (lambda: _turned(6), (RED, BLUE)),
    "turned to the left": (lambda: _turned(8), (RED, BLUE)),
    "upside down": (lambda: _turned(3), (RED, BLUE)),
    "an animation": (_animation, (RED, BLUE)),
    "a bitmap": (lambda: _saved("BMP")(_two_halves(RED, BLUE)), (RED, BLUE)),
    "one pixel high": (lambda: _saved("PNG")(_two_halves(RED, BLUE, size=(600, 1))), (RED, BLUE)),
}
"""Bytes of a picture, and the colours of its left and its right half."""
STOCK = (
    "grey of 16 bits",
    "grey of 32 bits",
    "fractions up to one",
    "turned to the right",
    "turned to the left",
    "upside down",
)
"""What the processor saved with a member, which is transformers' own, does not read so; docs/data.md says it."""
READERS = ("training", "evaluation", "the saved processor", "the grafted processor", "chat rows")


def _bomb(width: int, height: int) -> bytes:
    """A PNG of some bytes that says it has very many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 999))
        + chunk(b"IEND", b"")
    )


BROKEN: dict[str, Callable[[], bytes]] = {
    "of no bytes": lambda: b"",
    "of zeros": lambda: bytes(500),
    "cut short": lambda: _saved("PNG")(_two_halves(RED, BLUE, size=(200, 200)))[:-90],
    "a JPEG cut short": lambda: _saved("JPEG")(_two_halves(RED, BLUE, size=(200, 200)))[:400],
    "with a bit flipped": lambda: (lambda data: data[:60] + bytes([data[60] ^ 4]) + data[61:])(
        _saved("PNG")(_two_halves(RED, BLUE))
    ),
    "a page of the web": lambda: b"<!doctype html><html><body>Not found</body></html>",
    "an SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
    "a PDF": lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "a film": lambda: b"\x00\x00\x00\x18ftypmp42" + bytes(200),
    "of fractions that are NaN": lambda: _saved("TIFF")(_array("float32", (float("nan"), 1))),
    "of fractions without end": lambda: _saved("TIFF")(_array("float32", (0, float("inf")))),
    "of two billion pixels": lambda: _bomb(50_000, 40_000),
    "of no width": lambda: _bomb(0, 10),
}


def cases() -> Iterator[Case]:
    """All of this table."""
    for name, (make, halves) in READ.items():
        readers = [reader for reader in READERS if reader != "the saved processor" or name not in STOCK]
        check = partial(_all_see, halves=halves, readers=readers)
        yield Case("images", name, "right", command=EVAL, write=_picture(make), check=check)
    for name, make in BROKEN.items():
        yield Case("images", f"a file {name}", "dropped", "03.png", write=_picture(make))
        yield Case("images", f"eval, a file {name}", "dropped", "03.png", EVAL, _picture(make))
    for name, place in (("a named pipe", os.mkfifo), ("a link to itself", lambda path: path.symlink_to(path.name))):
        yield Case("images", name, "dropped", "03.png", write=_placed(place))
        yield Case("images", f"eval, {name}", "dropped", "03.png", EVAL, _placed(place))


def _picture(make: Callable[[], bytes]) -> Callable[[Path], None]:
    return _placed(lambda path: path.write_bytes(make()))


def _placed(place: Callable[[Path], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_pictures(folder / "rows")
        picture = folder / "rows" / "03.png"
        picture.unlink()
        place(picture)
        data = {
            "source": "rows/train.jsonl",
            "caption_column": "text",
            "validation_split": "train",
            "max_bad_share": 0.5,
        }
        chain_recipe({"data": data}, scenes=False)(folder)

    return write


def _all_see(folder: Path, halves: tuple[Any, Any], readers: list[str]) -> None:
    """Every reader sees the picture as one in plain red, green and blue."""
    import torch
    from PIL import Image

    path, plain = folder / "rows" / "03.png", folder / "plain.png"
    with Image.open(path) as picture:
        size = picture.size if picture.getexif().get(0x0112, 1) < 5 else picture.size[::-1]
    _two_halves(*halves, size=size).save(plain)
    os.chdir(folder)
    for reader in readers:
        seen, wanted = (_pixels(reader, file) for file in (path, plain))
        # A palette and the half of 255 may be a step off.
        if seen.shape != wanted.shape or not torch.allclose(seen, wanted, atol=0.03):
            raise ValueError(
                f"{reader} sees {seen.flatten()[[0, -1]].tolist()}, not {wanted.flatten()[[0, -1]].tolist()}"
            )


def _pixels(reader: str, path: Path) -> Any:
    """What a vision tower gets of the picture at `path`."""
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature
    from PIL import Image
    from transformers import AutoProcessor

    from hf_chain.data import DataSettings, ImageTextCollator, ImageTextDataset

    clip = AutoProcessor.from_pretrained(f"{BASE}/clip")
    features = Features({"image": ImageFeature(), "text": Value("string")})
    rows = Dataset.from_dict({"image": [str(path)] * 2, "text": ["one", "two"]}, features=features)
    if reader == "training":
        dataset = ImageTextDataset(rows, DataSettings(source="x", caption_column="text"), seed=0)
        return ImageTextCollator(clip)([dataset[0]])["pixel_values"]
    if reader == "the saved processor":
        return clip(images=Image.open(path), return_tensors="pt")["pixel_values"]
    if reader == "evaluation":
        return _seen_in_evaluation(rows, clip)
    from hf_chain.data.chat.rows import read_sample
    from hf_chain.models import GraftedVLMProcessor

    grafted = GraftedVLMProcessor.from_pretrained(f"{BASE}/grafted")
    picture = Image.open(path) if reader == "the grafted processor" else read_sample(_chat_row(path)).images[0]
    return grafted(text="<image>", images=[picture], return_tensors="pt")["pixel_values"]


def _chat_row(path: Path) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "<image>"}], "images": [{"path": str(path), "bytes": None}]}


def _seen_in_evaluation(rows: Any, processor: Any) -> Any:
    from transformers import CLIPModel

    from hf_chain.evaluation import evaluate_clip

    model, seen = CLIPModel.from_pretrained(f"{BASE}/clip"), []
    model.vision_model.embeddings.register_forward_pre_hook(lambda module, given: seen.append(given[0][:1]))
    evaluate_clip(model, processor, rows, image_column="image", caption_column="text")
    return seen[0]
