"""Random numbers of one sample, independent of workers, processes and global generators."""

from __future__ import annotations

from random import Random


def sample_random(purpose: str, seed: int, turn: int, row: int | str) -> Random:
    """Return the generator of one sample.

    Args:
        purpose (`str`): What is drawn, so that captions and images do not share numbers.
        seed (`int`): Seed of the run.
        turn (`int`): Epoch, or view where views repeat.
        row (`int` or `str`): Row number, or a content hash where rows have no number.

    Returns:
        `random.Random`: The same generator for the same arguments in every process.
    """
    return Random(f"{purpose}/{seed}/{turn}/{row}")
