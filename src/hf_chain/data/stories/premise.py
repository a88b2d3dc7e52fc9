"""What a story is about, drawn before a word of it is written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from hf_chain.data.stories.words import NAMES, SEASONS, SETTINGS, TRAINED_PAIRS, TRAITS

T = TypeVar("T")

Pair = tuple[str, str]
"""Colour and thing."""


class Draws:
    """Choices of a story.

    Only `random.Random.random` is promised to give the same numbers in every version of Python, so all comes from it.
    """

    def __init__(self, random: Random) -> None:
        self._number = random.random

    def chance(self, share: float) -> bool:
        """Return true in this share of the cases."""
        return self._number() < share

    def between(self, least: int, most: int) -> int:
        """Return a whole number, both ends included."""
        return least + int(self._number() * (most - least + 1))

    def one(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[int(self._number() * len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """Return this many different items, in any order."""
        left = list(items)
        return [left.pop(int(self._number() * len(left))) for _ in range(count)]


@dataclass(frozen=True)
class Premise:
    """Three friends, the hero first, with a thing each but the last; where, when, and what happens.

    `setting` is a row of `SETTINGS`; a thing is a colour and a noun.
    """

    people: tuple[str, str, str]
    trait: str
    setting: int
    season: str
    things: tuple[Pair, Pair]

    @property
    def description(self) -> str:
        """Everything the premise says: stories of equal descriptions belong to the same split."""
        things = (f"{color} {thing}" for color, thing in self.things)
        return "; ".join([*self.people, self.trait, SETTINGS[self.setting].place, self.season, *things])

    @property
    def share(self) -> float:
        """A number in [0, 1) that depends on the description only, by which a story belongs to one split for ever."""
        digest = hashlib.blake2b(self.description.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64


def sample_premise(draws: Draws, pairs: Sequence[Pair] = TRAINED_PAIRS) -> Premise:
    """Draw a premise.

    Args:
        draws (`Draws`): Source of all choices.
        pairs (`Sequence[tuple[str, str]]`): Colours and things the story may mention together.
    """
    hero, friend, third = draws.some(NAMES, 3)
    thing, other = draws.some(pairs, 2)
    while other[1] == thing[1]:
        other = draws.one(pairs)
    return Premise(
        (hero, friend, third),
        draws.one(tuple(TRAITS)),
        draws.between(0, len(SETTINGS) - 1),
        draws.one(SEASONS),
        (thing, other),
    )
