"""Stories as a data set: splits that share no premise, the same in every process."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from datasets import Dataset

from hf_chain.data.randomness import sample_random
from hf_chain.data.stories.premise import Draws, Pair, sample_premise
from hf_chain.data.stories.words import HELD_OUT_PAIRS, TRAINED_PAIRS
from hf_chain.data.stories.writer import write_story
from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from hf_chain.data.text_settings import StoriesSettings

_SHARES = {"train": (0.1, 1.0), "validation": (0.05, 0.1), "test": (0.0, 0.05), "compositional": (0.0, 1.0)}
"""Which premises a split takes, by `Premise.share`."""
_HELD_OUT = tuple(sorted(HELD_OUT_PAIRS))


def stories_splits(settings: StoriesSettings, only: Collection[str] | None = None) -> dict[str, Dataset]:
    """Write the stories of the splits.

    No two splits share a premise (people, trait, place, season and things). In `compositional` every pair of a colour
    and a thing is one that the other splits never mention.

    Args:
        settings (`StoriesSettings`): Sizes and seed. A larger split begins with the stories of a smaller one.
        only (`Collection[str]`, *optional*): Names of the splits to write; all by default.

    Returns:
        `dict[str, datasets.Dataset]`: `train`, `validation`, `test` and `compositional`, with the column `text`.

    Raises:
        `HfChainError`: Where there is no split of a name.
    """
    sizes = settings.sizes()
    for split in only or ():
        if split not in sizes:
            raise HfChainError(f"split {split!r} is not in stories; it has {', '.join(sizes)}")
    wanted = [split for split in sizes if only is None or split in only]
    texts = {split: list(_stories(split, sizes[split], settings.seed)) for split in wanted}
    return {split: Dataset.from_dict({"text": rows}) for split, rows in texts.items()}


def _stories(split: str, size: int, seed: int) -> Iterator[str]:
    pairs: tuple[Pair, ...] = _HELD_OUT if split == "compositional" else TRAINED_PAIRS
    least, below = _SHARES[split]
    draws = Draws(sample_random(f"stories/{split}", seed, 0, 0))
    while size:
        premise = sample_premise(draws, pairs)
        if least <= premise.share < below:
            yield write_story(premise, draws, pairs)
            size -= 1
