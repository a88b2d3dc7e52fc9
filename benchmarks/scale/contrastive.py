"""CPU time and peak memory of the contrastive loss and its gradient, against the plain loss without equal captions.

    python benchmarks/scale/contrastive.py

Row 23 of docs/benchmarks/scale.md. The plain loss is CLIP's, one cross-entropy a caption set. Memory is what the
kernel's count of the process's largest resident size grows by, each way in a process of its own. Linux only.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from paired import cpu_seconds, ratio
from results import add_row
from torch.nn.functional import cross_entropy, normalize, softplus

from hf_chain.losses import contrastive_loss

BATCHES = (256, 1024, 4096, 8192)
BATCH, SETS, WIDTH = 4096, 2, 256
WAYS = ("plain", "all captions differ", "four of each", "100 captions", "before")
SMALLEST_WITH_MEMORY = 1024
"""Batch; smaller ones find their memory in what the process has already."""


def main() -> None:
    """Measures each batch and adds the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(peak(arguments.memory[0], int(arguments.memory[1])))
        return
    curves: dict[str, dict[int, float]] = {f"{what}, {way}": {} for what in ("time", "memory") for way in WAYS[1:]}
    for size in BATCHES:
        seconds = cpu_seconds({way: step(way, size) for way in WAYS}, rounds=max(2, 8192 // size))
        for way in WAYS[1:]:
            curves[f"time, {way}"][size] = ratio(seconds, way, "plain")
        if size >= SMALLEST_WITH_MEMORY:
            memory = {way: peak_of(way, size) for way in WAYS}
            for way in WAYS[1:]:
                curves[f"memory, {way}"][size] = memory[way] / memory["plain"]
    worst = max(curve[BATCH] for name, curve in curves.items() if "before" not in name)
    before = f"time {curves['time, before'][BATCH]:.3g}, memory {curves['memory, before'][BATCH]:.3g}"
    add_row(
        23,
        f"contrastive loss with equal captions as positives, batch {BATCH:,}, {SETS} caption sets; the largest of time"
        " and memory",
        "times the plain loss",
        "batch",
        curves,
        worst,
        "≤ 1.2 ×",
        "python benchmarks/scale/contrastive.py",
        before=before,
    )


def step(way: str, size: int) -> Callable[[], None]:
    """The loss and its gradient for a random batch."""
    generator = torch.Generator().manual_seed(0)
    images = normalize(torch.randn(size, WIDTH, generator=generator), dim=-1).requires_grad_()
    texts = normalize(torch.randn(size, SETS, WIDTH, generator=generator), dim=-1).requires_grad_()
    scale = torch.tensor([20.0], requires_grad=True)
    distinct = {"four of each": size // 4, "100 captions": 100}.get(way)
    ids = torch.arange(size * SETS).view(size, SETS)
    if distinct:
        ids = torch.randint(distinct, (size, SETS), generator=generator)

    def run() -> None:
        if way == "plain":
            loss = plain(images, texts, scale)
        elif way == "before":
            loss = before(images, texts, scale, ids)
        else:
            loss = contrastive_loss(images, texts, scale, ids)
        loss.backward()
        images.grad = texts.grad = scale.grad = None

    return run


def plain(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """CLIP's loss (arXiv 2103.00020, figure 3)."""
    diagonal = torch.arange(len(images))
    losses = []
    for k in range(texts.shape[1]):
        image_logits, text_logits = scale * images @ texts[:, k].T, scale * texts[:, k] @ images.T
        losses.append((cross_entropy(image_logits, diagonal) + cross_entropy(text_logits, diagonal)) / 2)
    return torch.stack(losses).mean()


def before(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """As hf_chain had it before, with whole matrices of logits and of positives."""

    def half(logits: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
        negatives = logits.masked_fill(positive, torch.finfo(logits.dtype).min).logsumexp(dim=1, keepdim=True)
        return ((softplus(negatives - logits) * positive).sum(dim=1) / positive.sum(dim=1)).mean()

    losses = []
    for k in range(texts.shape[1]):
        positive = ids[:, k, None] == ids[None, :, k]
        image_logits, text_logits = scale * images @ texts[:, k].T, scale * texts[:, k] @ images.T
        losses.append((half(image_logits, positive) + half(text_logits, positive)) / 2)
    return torch.stack(losses).mean()


def peak_of(way: str, size: int) -> int:
    """Peak of a way in a process of its own."""
    command = [sys.executable, __file__, "--memory", way, str(size)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def peak(way: str, size: int) -> int:
    """By how many kB a step makes the process larger."""
    run = step(way, size)
    step(way, 8)()
    start = largest_resident()
    run()
    return largest_resident() - start


def largest_resident() -> int:
    """Largest size of this process so far in kB; other than `ru_maxrss` not that of the one that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "VmHWM is not in /proc/self/status"
    return int(found[1])


if __name__ == "__main__":
    main()
