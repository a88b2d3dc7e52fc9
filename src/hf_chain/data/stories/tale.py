"""A story while it is written: the sentences so far, what is true by now, and what can be asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from hf_chain.data.stories.premise import Draws
from hf_chain.data.stories.words import BOYS, GIRLS, Setting

_SHE = ("she", "her", "her")
_HE = ("he", "his", "him")
_PRONOUNS = {**dict.fromkeys(GIRLS, _SHE), **dict.fromkeys(BOYS, _HE)}


class Fact(NamedTuple):
    """Something that is true, as a clause, and a question that it answers."""

    clause: str
    question: str
    answer: str


@dataclass
class Circle:
    """Those who a story is about, three of them, and their two things; a story in the story has a circle of its own.

    `holders` says who has a thing, `hidden` which things lie somewhere.
    """

    people: tuple[str, str, str]
    things: tuple[str, str]
    holders: dict[str, str] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)


class Tale:
    """A story while it is written.

    Args:
        draws (`Draws`): Source of all choices.
        setting (`Setting`): Where it happens.
        season (`str`): When.
        worker (`str`): Who works there.
    """

    def __init__(self, draws: Draws, setting: Setting, season: str, worker: str) -> None:
        self.draws = draws
        self.setting = setting
        self.season = season
        self.worker = worker
        self.sentences: list[str] = []
        self.facts: dict[str, Fact] = {}
        self._words: dict[str, str] = {"place": setting.place, "season": season, "worker": worker}

    def say(self, *forms: str, **words: str) -> None:
        """Add one of several sentences that mean the same.

        Args:
            forms (`str`): Templates; a first letter is made large.
            words (`str`): What fills them, here and in all that follow. `a`, `b` and
                `c` are people: `a` also gives `A`, with a large letter, and `a_he`, `a_his` and `a_him`.
        """
        self.name(**words)
        sentence = self.draws.one(forms).format_map(self._words)
        self.sentences.append(sentence[0].upper() + sentence[1:])

    def name(self, **words: str) -> None:
        """Set words that fill the templates to come."""
        self._words.update(words)
        for key in ("a", "b", "c"):
            if key in words:
                word = words[key]
                he, his, him = _PRONOUNS.get(word, _HE)
                self._words[key.upper()] = word[0].upper() + word[1:]
                self._words[f"{key}_he"] = he
                self._words[f"{key}_his"] = his
                self._words[f"{key}_him"] = him

    def learn(self, topic: str, clause: str, answer: str, *questions: str) -> None:
        """Note what is true from now on, in place of what was true of this topic.

        Args:
            topic (`str`): What it is about.
            clause (`str`): The fact, as part of a sentence; a template.
            answer (`str`): Answer of the questions; a template.
            questions (`str`): Templates that mean the same.
        """
        texts = (clause, self.draws.one(questions), answer)
        self.facts[topic] = Fact(*(text.format_map(self._words) for text in texts))

    def forget(self, topic: str) -> None:
        """Drop what is no longer true."""
        self.facts.pop(topic, None)
