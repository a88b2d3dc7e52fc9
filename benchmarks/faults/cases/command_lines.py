"""Command lines: missing, unknown and impossible arguments, and what is typed in a chat."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from cases import BASE, Case, chain_recipe

CLIP, TARGET = f"{BASE}/clip", f"{BASE}/target"
LINES: list[tuple[str, tuple[str, ...], str]] = [
    ("an unknown command", ("trian",), "trian"),
    ("an option nobody has", ("plan", "recipe.yaml", "--fast"), "fast"),
    ("plan without a recipe", ("plan",), "recipe"),
    ("plan of two recipes", ("plan", "recipe.yaml", "recipe.yaml"), "argument"),
    ("plan of no file", ("plan", "nowhere.yaml"), "nowhere.yaml"),
    ("plan of a folder", ("plan", BASE), "base"),
    ("plan of an empty name", ("plan", ""), "recipe|cannot be read"),
    ("plan of a name with a NUL", ("plan", "a\0b"), "recipe|cannot be read|null"),
    ("plan with speed in words", ("plan", "recipe.yaml", "--tflops", "fast"), "tflops"),
    ("plan with negative speed", ("plan", "recipe.yaml", "--tflops", "-1"), "tflops"),
    ("plan with no speed", ("plan", "recipe.yaml", "--tflops", "0"), "tflops"),
    ("plan with endless speed", ("plan", "recipe.yaml", "--tflops", "nan"), "tflops"),
    ("--set without a value", ("plan", "recipe.yaml", "--set", "seed"), "seed"),
    ("--set without a place", ("plan", "recipe.yaml", "--set", "=3"), "=3"),
    ("--set of nothing", ("plan", "recipe.yaml", "--set", ""), "="),
    ("--set of a member nobody knows", ("plan", "recipe.yaml", "--set", "members.huge.epochs=3"), "huge"),
    ("--set through a number", ("plan", "recipe.yaml", "--set", "seed.x=3"), "seed"),
    ("--set of dots", ("plan", "recipe.yaml", "--set", "...=3"), "="),
    ("--set of an unknown field", ("plan", "recipe.yaml", "--set", "data.colour=red"), "colour"),
    ("--set to half a list", ("plan", "recipe.yaml", "--set", "data.test_splits=["), "test_splits"),
    ("--set of all members", ("plan", "recipe.yaml", "--set", "members=3"), "members"),
    ("--seed in words", ("run", "recipe.yaml", "--seed", "one"), "seed"),
    ("--seed below zero", ("run", "recipe.yaml", "--seed", "-1"), "seed"),
    ("--output-dir of nothing", ("run", "recipe.yaml", "--output-dir", ""), "output_dir|output-dir"),
    ("--output-dir in a file", ("run", "recipe.yaml", "--output-dir", "recipe.yaml/runs"), "recipe.yaml"),
    ("--hub-prefix without a user", ("run", "recipe.yaml", "--push-to-hub", "--hub-prefix", "x"), "prefix"),
    ("--push-to-hub to nowhere", ("run", "recipe.yaml", "--push-to-hub"), "prefix"),
    ("eval without a recipe", ("eval", CLIP), "recipe"),
    ("eval of no model", ("eval", "./nowhere", "--recipe", "recipe.yaml"), "nowhere"),
    ("eval of a graft with a chain's recipe", ("eval", f"{BASE}/grafted", "--recipe", "recipe.yaml"), "graft"),
    ("eval of a recipe", ("eval", "recipe.yaml", "--recipe", "recipe.yaml"), "recipe.yaml"),
    ("grow without a size", ("grow", CLIP, "out"), "size|width|depth"),
    ("grow of no model", ("grow", "./nowhere", "out", "--vision-width", "64"), "nowhere"),
    ("grow into what exists", ("grow", CLIP, BASE, "--vision-width", "64"), "base"),
    ("grow into a file", ("grow", CLIP, "recipe.yaml/out", "--vision-width", "64"), "recipe.yaml"),
    ("grow to no width", ("grow", CLIP, "out", "--vision-width", "0"), "vision-width"),
    ("grow to a width in words", ("grow", CLIP, "out", "--vision-width", "wide"), "vision-width"),
    ("grow to half a head", ("grow", CLIP, "out", "--vision-width", "40"), "40|head"),
    ("grow to what is smaller", ("grow", CLIP, "out", "--vision-width", "16"), "16|smaller"),
    ("grow to what it is", ("grow", CLIP, "out", "--vision-width", "32"), "32|size|same"),
    ("grow to negative depth", ("grow", CLIP, "out", "--text-depth", "-3"), "text-depth"),
    ("grow to a smaller embedding", ("grow", CLIP, "out", "--embedding", "8"), "8|embedding|projection"),
    ("grow by an operator nobody has", ("grow", CLIP, "out", "--vision-width", "64", "--operator", "magic"), "magic"),
    ("grow with a seed beyond numpy", ("grow", CLIP, "out", "--vision-width", "64", "--seed", str(2**64)), "seed"),
    ("push of no folder", ("push", "runs/nowhere"), "nowhere"),
    ("push of a model", ("push", CLIP), "ledger"),
    ("push of a run without a prefix", ("push", f"{BASE}/run"), "prefix"),
    ("push to a name with spaces", ("push", f"{BASE}/run", "--prefix", "a b/c"), "prefix"),
    ("report of no folder", ("report", "runs/nowhere"), "nowhere"),
    ("report of a file", ("report", "recipe.yaml"), "recipe.yaml"),
    ("report with no baseline", ("report", "run", "--baseline", "runs/nowhere"), "nowhere"),
    ("surrogate without a folder", ("surrogate", TARGET), "output"),
    ("surrogate of layers backwards", ("surrogate", TARGET, "out", "--replaced", "4-2", "--method", "inherit"), "4-2"),
    (
        "surrogate of layers that are not there",
        ("surrogate", TARGET, "out", "--replaced", "2-99", "--method", "inherit"),
        "99",
    ),
    ("surrogate of layers in words", ("surrogate", TARGET, "out", "--replaced", "most"), "most"),
    ("surrogate of no layers", ("surrogate", TARGET, "out", "--replaced", ""), "replaced|''|layers"),
    ("surrogate of every layer", ("surrogate", TARGET, "out", "--replaced", "0-5"), "0-5|layer"),
    (
        "surrogate of layers twice",
        ("surrogate", TARGET, "out", "--replaced", "1-3,2-4", "--method", "inherit"),
        "1-3|2-4|overlap",
    ),
    (
        "surrogate by a method nobody has",
        ("surrogate", TARGET, "out", "--replaced", "2-4", "--method", "magic"),
        "magic",
    ),
    ("surrogate fitted on nothing", ("surrogate", TARGET, "out", "--replaced", "2-4"), "data"),
    ("surrogate fitted on no file", ("surrogate", TARGET, "out", "--replaced", "2-4", "--data", "./no.txt"), "no.txt"),
    ("surrogate with a budget of euros", ("surrogate", TARGET, "out", "--budget", "euros=5"), "euros"),
    (
        "surrogate with no translators",
        ("surrogate", TARGET, "out", "--replaced", "2-4", "--translators", "0"),
        "translators",
    ),
    (
        "surrogate with more translators than layers",
        ("surrogate", TARGET, "out", "--replaced", "2-4", "--translators", "9", "--method", "inherit"),
        "9|translators",
    ),
    ("graft without a target", ("graft", f"{BASE}/joined"), "target"),
    ("graft of a revision of a folder", ("graft", f"{BASE}/joined", TARGET, "out", "--revision", "v9"), "v9|revision"),
    ("export to an unknown format", ("export", f"{BASE}/grafted", "out", "--format", "onnx"), "onnx"),
    ("chat with no model", ("chat", "./nowhere"), "nowhere"),
    ("chat with a picture that is not there", ("chat", f"{BASE}/grafted", "--image", "gone.png"), "gone.png"),
    ("chat with no tokens", ("chat", f"{BASE}/grafted", "--max-new-tokens", "0"), "max-new-tokens"),
]
_QUICK = ("chat", f"{BASE}/grafted", "--max-new-tokens", "2")
TYPED: list[tuple[str, bytes]] = [
    ("bytes that are no text", b"caf\xe9 \xff\xfe\nbye?\n"),
    ("nothing", b""),
    ("empty lines", b"\n\n \nhello\n"),
    ("a NUL", b"a\0b\n"),
    ("a line of a hundred thousand letters", b"long " * 20_000 + b"\n"),
    ("a picture in quotes", b"/image 'my picture.png'\nwhat is it?\n"),
    ("a picture with escaped spaces", b"/image my\\ picture.png\nwhat is it?\n"),
    ("a picture in double quotes", b'/image "my picture.png"\nwhat is it?\n'),
]
"""Typed in a chat, which has to end well; a picture that is shown must be found."""


def cases() -> Iterator[Case]:
    """All of this table."""
    for name, command, words in LINES:
        yield Case("command lines", name, "refused", words, command, _prepared)
    for name, typed in TYPED:
        lost = "no file|cannot"
        yield Case("command lines", f"chat, {name}", "right", "", _QUICK, _prepared, typed=typed, unless=lost)
    for name, folder in (("brackets", "a[1]"), ("a star", "a*b"), ("a question mark", "what?"), ("spaces", "my runs")):
        command = ("run", "recipe.yaml", "--output-dir", folder)
        check = _whole(folder)
        yield Case("command lines", f"a folder with {name}", "right", command=command, write=_prepared, check=check)
        grow = ("grow", f"{folder}/clip", f"{folder}/out", "--vision-width", "64")
        yield Case("command lines", f"grow in a folder with {name}", "right", command=grow, write=_folder(folder))
    backslash = ("run", "recipe.yaml", "--output-dir", "a\\b")
    yield Case("command lines", "a folder with a backslash", "refused", r"\\|backslash", backslash, _prepared)


def _prepared(folder: Path) -> None:
    from PIL import Image

    chain_recipe({})(folder)
    shutil.copytree(folder / BASE / "run", folder / "run")
    Image.new("RGB", (20, 16), "red").save(folder / "my picture.png")


def _folder(name: str) -> Callable[[Path], None]:
    return lambda folder: None if shutil.copytree(folder / BASE / "clip", folder / name / "clip") else None


def _whole(name: str) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        for file in ("01-tiny/model.safetensors", "02-small/model.safetensors", "report/index.html"):
            if not (folder / name / "tiny" / file).is_file():
                raise ValueError(f"{file} is not there")
        if list((folder / name).rglob("checkpoint-*")):
            raise ValueError("checkpoints were left")

    return check
