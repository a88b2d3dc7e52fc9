"""CPU time of building a surrogate into a folder, against copying its slices into memory and from there into a file.

    python benchmarks/scale/surrogate.py

Row 24 of docs/benchmarks/scale.md. A manifest holds the SHA-256 of what was written, so the copy is hashed too; beside
`HF_CHAIN_VERIFY=size`, neither is. SHA-256 of as many bytes in memory, and the look for NaN and infinity in them, are
measured alone. Needs 5 GB of disk; its files are in the page cache.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch
from paired import cpu_seconds, ratio
from results import BENCHMARKS, add_row
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.utils import logging

from hf_chain import files, loaded_weights
from hf_chain.grafting.ranges import kept_layers, parse_ranges
from hf_chain.grafting.surrogate import build_surrogate

sys.path.insert(0, str(BENCHMARKS))
import surrogate_memory

WIDTHS = (512, 1024, 1536)
LAYERS, REPLACED = 24, surrogate_memory.REPLACED
HASHED, SIZES_ALONE, COPIED, COPIED_ALONE, SHA256, FINITE, BEFORE = (
    "surrogate",
    "surrogate, sizes alone",
    "copy",
    "copy, not hashed",
    "SHA-256 alone",
    "look for NaN alone",
    "surrogate, before",
)

NOTE = (
    "With sizes alone in its manifest a surrogate takes {alone:.2f} × the copy that is not hashed. With SHA-256 it"
    " takes {hashed:.2f} × that copy, and cannot take less than {least:.2f} ×, as SHA-256 of as many bytes in memory"
    " takes {hashing:.2f} × alone. What is left to save is reading the file once more for it, 0.07 CPU s a GB."
    " A writer of our own would have to stand in for transformers', or the file be mapped, and where a disk fails"
    " under a mapped file the process ends without a word; neither was done. The noise is that of writing to the page"
    " cache, and 0.06 s are the same for every size."
)


def main() -> None:
    """Measures each size and adds the row."""
    logging.disable_progress_bar()
    ways = (HASHED, COPIED, SIZES_ALONE, COPIED_ALONE, SHA256, FINITE, BEFORE)
    curves: dict[str, dict[int, float]] = {name: {} for name in ways}
    for width in WIDTHS:
        with tempfile.TemporaryDirectory() as folder:
            surrogate_memory.SIZES |= {
                "hidden_size": width,
                "intermediate_size": 4 * width,
                "num_hidden_layers": LAYERS,
                "num_attention_heads": width // 64,
            }
            surrogate_memory._write_target(Path(folder, "target"))
            size = copy(Path(folder), hashed=False)
            weights = torch.empty(size // 2, dtype=torch.bfloat16).normal_(std=0.02)
            seconds = cpu_seconds(
                {
                    HASHED: lambda at=folder: build(Path(at)),
                    COPIED: lambda at=folder: copy(Path(at), hashed=True),
                    SIZES_ALONE: lambda at=folder: build(Path(at), verify="size"),
                    COPIED_ALONE: lambda at=folder: copy(Path(at), hashed=False),
                    SHA256: lambda held=weights: hashlib.sha256(held.view(torch.uint8).numpy()).digest(),
                    FINITE: lambda held=weights: loaded_weights.is_finite(held),
                    BEFORE: lambda at=folder: build_before(Path(at)),
                },
                rounds=5,
            )
        for name, curve in curves.items():
            curve[round(size / 1e6)] = statistics.median(seconds[name]) * 1e9 / size
        alone = ratio(seconds, SIZES_ALONE, COPIED_ALONE)
        print(f"{size / 1e6:.0f} MB: {ratio(seconds, HASHED, COPIED):.2f}, not hashed {alone:.2f}")
    hashing = ratio(seconds, SHA256, COPIED_ALONE)
    add_row(
        24,
        f"a surrogate of {round(size / 1e6)} MB, against copying its slices",
        "CPU s a GB of the surrogate",
        "MB",
        curves,
        ratio(seconds, HASHED, COPIED),
        "≤ 1.5 ×",
        "python benchmarks/scale/surrogate.py",
        before=f"{ratio(seconds, BEFORE, COPIED):.3g}",
        note=NOTE.format(alone=alone, hashed=ratio(seconds, HASHED, COPIED_ALONE), least=1 + hashing, hashing=hashing),
    )


def build(folder: Path, verify: str = "sha256") -> None:
    """Cuts the surrogate into a folder."""
    with mock.patch.dict(os.environ, HF_CHAIN_VERIFY=verify):
        build_surrogate(folder / "target", REPLACED, output_dir=folder / "surrogate")
    shutil.rmtree(folder / "surrogate")


def build_before(folder: Path) -> None:
    """As it was: sums in float32 copied what is in half precision, and each block of a hash was memory of its own."""

    def is_finite(tensor: torch.Tensor) -> bool:
        return math.isfinite(tensor.detach().sum(dtype=torch.float32))

    def sha256(paths: list[Path]) -> str:
        digest = hashlib.sha256()
        for path in paths:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    with mock.patch.object(loaded_weights, "is_finite", is_finite), mock.patch.object(files, "_sha256", sha256):
        build(folder)


def copy(folder: Path, hashed: bool) -> int:
    """Reads the slices that a surrogate keeps, writes them, and returns their bytes."""
    index = json.loads((folder / "target/model.safetensors.index.json").read_text(encoding="utf-8"))
    kept = set(kept_layers(parse_ranges(REPLACED), LAYERS, 1))
    tensors = {}
    for shard in sorted(set(index["weight_map"].values())):
        with safe_open(folder / "target" / shard, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                layer = re.search(r"layers\.(\d+)\.", name)
                if layer is None or int(layer[1]) in kept:
                    tensors[name] = file.get_tensor(name).clone()
    path = folder / "model.safetensors"
    save_file(tensors, path)
    if hashed:
        files.file_sha256(path)
    path.unlink()
    return sum(tensor.nbytes for tensor in tensors.values())


if __name__ == "__main__":
    main()
