"""Draws `scenes.png`, the contact sheet of docs/data.md: `python docs/images/make_scenes.py`."""

from __future__ import annotations

from pathlib import Path
from random import Random

from PIL import Image

from hf_chain.data.scenes.renderer import render
from hf_chain.data.scenes.scene import HELD_OUT_PAIRS, TRAINED_PAIRS, sample_scene

COLUMNS, SIDE, GAP = 7, 160, 10
ROWS = (("train", TRAINED_PAIRS), ("compositional", tuple(sorted(HELD_OUT_PAIRS))))


def main() -> None:
    """Draw a row of scenes a split, on a transparent ground."""
    step = SIDE + GAP
    sheet = Image.new("RGBA", (COLUMNS * step - GAP, len(ROWS) * step - GAP), (0, 0, 0, 0))
    for row, (split, pairs) in enumerate(ROWS):
        random = Random(f"contact sheet/{split}")
        for column in range(COLUMNS):
            sheet.paste(render(sample_scene(random, pairs), SIDE), (column * step, row * step))
    sheet.save(Path(__file__).with_name("scenes.png"), optimize=True)


if __name__ == "__main__":
    main()
