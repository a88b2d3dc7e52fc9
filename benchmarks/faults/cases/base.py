"""The models, the run and the pictures that cases begin with, made once by the product itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from cases import chain_recipe

ROWS = 20
"""Of the small data sets of `write_pictures`."""


def make_base(folder: Path) -> None:
    """Writes everything into `folder`.

    `run` is a finished chain whose pushes are given up after two seconds, `clip` its last member, `target` a random
    Llama that chats, `tower` a vision tower, `joined` the tower on a surrogate of the target, `grafted` on the target.
    """
    from hf_chain.cli import main  # noqa: F401
    from hf_chain.commands.run import RunArguments, launch
    from support.graft_recipes import write_grafted, write_target
    from support.grafted_parts import image_processor, tiny_tower

    folder.mkdir(parents=True)
    chain_recipe({"output_dir": str(folder), "hub": {"timeout": 2}})(folder)
    run = launch(RunArguments(str(folder / "recipe.yaml"), []))
    (folder / "recipe.yaml").unlink()
    run.rename(folder / "run")
    shutil.copytree(folder / "run" / "02-small", folder / "clip")
    write_target(folder / "target")
    for part in (tiny_tower(), image_processor()):
        part.save_pretrained(folder / "tower")
    write_grafted(folder / "joined", folder / "target")
    from hf_chain.commands.graft import graft_folder

    graft_folder(str(folder / "joined"), str(folder / "target"), folder / "grafted")


def write_pictures(folder: Path, odd: dict[str, object] | None = None, rows: int = ROWS) -> None:
    """Writes pictures with captions and labels as JSON lines, of which row 3 has other values.

    Args:
        folder (`Path`): gets the pictures and `train.jsonl`.
        odd (`dict`, *optional*): other values of row 3; `...` as a value takes the column away.
        rows (`int`): number of rows.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(rows):
        Image.new("RGB", (20, 16), (12 * number, 90, 30)).save(folder / f"{number:02d}.png")
        row: dict[str, object] = {"image": f"{number:02d}.png", "text": f"picture {number}", "label": number % 2}
        lines.append(row | (odd or {}) if number == 3 else row)
    (folder / "train.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
