"""Made-up facts about scenes, which no picture shows: what a language model has to know, and a surrogate may not."""

from __future__ import annotations

import hashlib
from itertools import product

from hf_chain.data.chat.questions import Turn
from hf_chain.data.scenes.scene import COLORS, NUMBERS, SHAPES

PLACES = ("valley", "desert", "forest", "island", "harbour", "castle", "cave", "meadow")
MORE = 4
"""What is added to the number of shapes."""
FACT_KINDS = ("name", "home", "sum")


def fact_turns(color: str, shape: str, shapes: str) -> list[Turn]:
    """Asks for what is known of the largest shape, and for a sum.

    Its name follows from colour and shape, its home from the name, both by tables without a rule, so that a home takes
    two look-ups in turn.

    Args:
        color (`str`): Of the largest shape.
        shape (`str`): The largest shape.
        shapes (`str`): How many there are, as a word.
    """
    name = NAMES[color, shape]
    return [
        Turn("what is the name of the largest shape?", name, "name"),
        Turn("where does the largest shape live?", HOMES[name], "home"),
        Turn(f"what is the number of shapes plus {NUMBERS[MORE]}?", NUMBERS[NUMBERS.index(shapes) + MORE], "sum"),
    ]


def _shuffled(words: list[str], salt: str) -> list[str]:
    """In an order that is the same everywhere."""
    return sorted(words, key=lambda word: hashlib.blake2b(f"{salt} {word}".encode()).digest())


_SYLLABLES = ("ba", "do", "fi", "ka", "lu", "me", "no")
_WORDS = _shuffled([f"{first}{second}" for first, second in product(_SYLLABLES, repeat=2)], "name")
NAMES = dict(zip(product(COLORS, SHAPES), _WORDS, strict=False))
"""Colour and shape to what such a shape is called."""
HOMES = {name: PLACES[number % len(PLACES)] for number, name in enumerate(_shuffled(_WORDS, "home"))}
"""Name to where it lives."""
