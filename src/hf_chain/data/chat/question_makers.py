"""Questions that are made of what rows have already: captions, labels, rendered scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any

from datasets import Dataset

from hf_chain.data.captions import CaptionReader
from hf_chain.data.chat.facts import fact_turns
from hf_chain.data.chat.questions import Turn, namesakes
from hf_chain.data.chat.rows import FEATURES
from hf_chain.data.prompts import resolve_templates
from hf_chain.data.settings import DataSettings
from hf_chain.errors import HfChainError

DESCRIBE = "Describe the picture."
CAPTION_KIND = "caption"
"""Kind of the rows that ask for a description, by which the evaluation knows them."""


@dataclass(frozen=True)
class CaptionQuestions:
    """Asks for a description: one row for each caption in training, one with all captions in evaluation.

    Args:
        settings (`DataSettings`): Which column holds the captions.
    """

    settings: DataSettings

    def turns(self, row: Mapping[str, Any], random: Random, training: bool) -> list[Turn]:
        """Return one question for each caption, or one with every caption as an answer.

        An empty caption makes an empty response, which the scan for bad rows reports.
        """
        captions, problems = CaptionReader(self.settings).captions(row)
        if training:
            return [Turn(DESCRIBE, caption, CAPTION_KIND) for caption in [*captions, *[""] * len(problems)]]
        return [Turn(DESCRIBE, captions[0], CAPTION_KIND, tuple(captions[1:]))] if captions else []

    def description(self, row: Mapping[str, Any], turns: Sequence[Turn], random: Random) -> str:
        """Describe the picture by the very caption that is asked for: a language model sees nothing else of it."""
        return turns[0].answer


def describe_lines(lines: Dataset) -> Dataset:
    """Ask to describe a picture that is described in words, for every line of a text file.

    Args:
        lines (`datasets.Dataset`): With a column `text`; empty lines are left out.

    Returns:
        `datasets.Dataset`: Chat rows as `FEATURES` describes them.
    """
    filled = lines.filter(_has_text)
    return filled.map(_describe_line, remove_columns=filled.column_names, features=FEATURES)


def _has_text(row: Mapping[str, Any]) -> bool:
    return bool(row["text"] and row["text"].strip())


def _describe_line(row: Mapping[str, Any]) -> dict[str, Any]:
    caption = row["text"].strip()
    messages = [
        {"role": "user", "content": f"{caption}\n{DESCRIBE}"},
        {"role": "assistant", "content": caption},
    ]
    return {"messages": messages, "images": [], "kind": CAPTION_KIND, "answers": [], "negatives": ""}


WHAT = "What is in the picture?"
CHOICE = "Is this {} or {}?"
EXISTS = "Is there {} in the picture?"
NEGATIVES = ("random", "popular", "adversarial")


@dataclass(frozen=True)
class LabelQuestions:
    """Asks about the class of an image.

    For evaluation an image is asked about seven times: what it is; which of two, in both orders; whether it is there;
    and about one random, one popular and one adversarial class that is not there, as POPE does (arXiv 2305.10355).
    For training four times: in one of the two orders, and about one class that is not there, drawn as often as classes
    are there, so that neither the number of questions nor the class they name tells yes from no. Classes that share a
    name, such as the two cranes of ImageNet, are never asked about in each other's pictures.

    Args:
        reader (`CaptionReader`): Finds the label of a row, and knows the templates of descriptions.
        names (`tuple[tuple[str, ...], ...]`): Names of each class, the usual one first.
        rows (`tuple[int, ...]`): Training rows of each class.
        popular (`tuple[int, ...]`): The most frequent classes.
        adversarial (`tuple[tuple[int, ...], ...]`): For each class those it is most easily taken for.
    """

    reader: CaptionReader = field(repr=False)
    names: tuple[tuple[str, ...], ...]
    rows: tuple[int, ...]
    popular: tuple[int, ...]
    adversarial: tuple[tuple[int, ...], ...]

    def turns(self, row: Mapping[str, Any], random: Random, training: bool) -> list[Turn]:
        """Return the questions about an image; none where its label is no class.

        Raises:
            `HfChainError`: Where there is no other class to ask about.
        """
        label = read_label(self.reader, row)
        if label is None or label >= len(self.names):
            return []
        negatives = {kind: self._negative(kind, label, random) for kind in NEGATIVES}
        usual, *others = self.names[label]
        other = self._other(range(len(self.names)), label, random)
        this, that = with_article(usual), with_article(self.names[other][0])
        choices = [CHOICE.format(this, that), CHOICE.format(that, this)]
        if training:
            choices = [random.choice(choices)]
            weights = [0 if number in self._namesakes[label] else rows for number, rows in enumerate(self.rows)]
            if not any(weights):
                raise HfChainError(f"no training row shows anything but {usual!r}; questions need two or more classes")
            negatives = {"": random.choices(range(len(self.rows)), weights)[0]}
        return [
            Turn(WHAT, usual, "what", tuple(others)),
            *(Turn(question, usual, "choice") for question in choices),
            Turn(EXISTS.format(this), "yes", "exists"),
            *(
                Turn(EXISTS.format(with_article(self.names[absent][0])), "no", "exists", negatives=kind)
                for kind, absent in negatives.items()
            ),
        ]

    def description(self, row: Mapping[str, Any], turns: Sequence[Turn], random: Random) -> str:
        """Describe an image by a prompt template with the usual name of its class."""
        template = random.choice(resolve_templates(self.reader.settings.prompt_templates))
        label = read_label(self.reader, row)
        return template.format(self.names[label][0]) if label is not None else ""

    def _negative(self, kind: str, label: int, random: Random) -> int:
        pools = {"random": range(len(self.names)), "popular": self.popular, "adversarial": self.adversarial[label]}
        return self._other(pools[kind], label, random)

    def _other(self, pool: Sequence[int], label: int, random: Random) -> int:
        """A class of the pool, or any where it has none, that is called otherwise in all its names."""
        known = self._namesakes[label]
        others = [number for number in pool if number not in known]
        others = others or [number for number in range(len(self.names)) if number not in known]
        if not others:
            raise HfChainError(f"every class shares a name with {self.names[label][0]!r}; tell them apart by name")
        return random.choice(others)

    @cached_property
    def _namesakes(self) -> list[set[int]]:
        return namesakes(self.names)


def read_label(reader: CaptionReader, row: Mapping[str, Any]) -> int | None:
    """Return the class number of a row, or `None` where it is no class."""
    try:
        return reader.label(row)
    except ValueError:
        return None


def with_article(name: str) -> str:
    """Put *a* or *an* before a name, and nothing before one that sounds like a plural: *sunglasses*."""
    if name.endswith("s") and not name.endswith(("ss", "us")):
        return name
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


# In the order in which hf_chain.data.scenes asks them; the last one only where a relation is clear.
SCENE_KINDS = ("colour", "shape", "background", "pattern", "count_all", "count", "exists", "relation")


@dataclass(frozen=True)
class SceneQuestions:
    """The questions that come with every scene.

    Args:
        facts (`bool`): Ask as well for made-up facts, which no picture shows.
    """

    facts: bool = False

    def turns(self, row: Mapping[str, Any], random: Random, training: bool) -> list[Turn]:
        """Return all questions about a scene, with their kinds."""
        asked = zip(SCENE_KINDS, row["questions"], strict=False)
        turns = [Turn(entry["question"], entry["answer"], kind) for kind, entry in asked]
        if not self.facts:
            return turns
        answers = {turn.kind: turn.answer for turn in turns}
        return turns + fact_turns(answers["colour"], answers["shape"], answers["count_all"])

    def description(self, row: Mapping[str, Any], turns: Sequence[Turn], random: Random) -> str:
        """Describe a scene by those of its captions that together answer every question, in random order.

        The first names every object, the fifth counts them; those between the fifth and the last say how the largest
        stands to the others.
        """
        captions = row["captions"]
        told = [captions[0], captions[4], *captions[5:-1]]
        random.shuffle(told)
        return ". ".join(told) + "."
