"""A premise as a story: an opening, episodes, an ending that remembers them, and a question that they answer."""

from __future__ import annotations

from collections.abc import Sequence

from hf_chain.data.stories.episodes import EPISODES, PLAIN
from hf_chain.data.stories.premise import Draws, Pair, Premise
from hf_chain.data.stories.tale import Circle, Fact, Tale
from hf_chain.data.stories.words import GIRLS, SETTINGS, TRAINED_PAIRS, TRAITS

_BEASTS = ("the fox", "the bear", "the crow", "the hare", "the frog", "the wolf", "the lion", "the snail")


def write_story(premise: Premise, draws: Draws, pairs: Sequence[Pair] = TRAINED_PAIRS) -> str:
    """Write a story.

    Args:
        premise (`Premise`): What it is about.
        draws (`Draws`): Chooses what happens and the words.
        pairs (`Sequence[tuple[str, str]]`): Colours and things that a story in the story may mention together.

    Returns:
        `str`: A paragraph, a line `Question: …` and a line `Answer: …`.
    """
    setting = SETTINGS[premise.setting]
    tale = Tale(draws, setting, premise.season, draws.one(setting.workers))
    thing, other = (f"{color} {noun}" for color, noun in premise.things)
    circle = Circle(premise.people, (thing, other), dict(zip((thing, other), premise.people, strict=False)))
    _open(tale, circle, premise)
    happened = [draws.one(EPISODES) for _ in range(1 + draws.chance(0.3))]
    if len(happened) == 1 and draws.chance(0.12):
        _story_in_the_story(tale, circle, pairs)
    for episode in dict.fromkeys(happened):
        episode(tale, circle)
    _end(tale, circle, premise)
    fact = draws.one(list(tale.facts.values()))
    question, answer = (text[0].upper() + text[1:] for text in (fact.question, fact.answer))
    return f"{' '.join(tale.sentences)}\nQuestion: {question}\nAnswer: {answer}."


def _open(tale: Tale, circle: Circle, premise: Premise) -> None:
    hero, friend, third = circle.people
    trait = TRAITS[premise.trait]
    tale.say(
        "once upon a time there lived a {trait} {child} called {a} {where}.",
        "{where} lived a {child} called {a}, who {known}.",
        "this is a story about {a}, a {trait} {child} who lived {where}.",
        "{a} lived {where} and {known}.",
        a=hero,
        b=friend,
        c=third,
        trait=premise.trait,
        known=trait.known,
        child="girl" if hero in GIRLS else "boy",
        where=tale.setting.where,
        thing=circle.things[0],
        other=circle.things[1],
    )
    tale.say(
        "{a_he} had a {thing}, {a_his} friend {b} had a {other}, and {c} had neither.",
        "{a_he} loved {a_his} {thing}, just as {a_his} friend {b} loved a {other}. {C} loved them both.",
        "{a_his} friends were {c} and {b}, who had a {other}. {A} had a {thing}.",
        "for {a_his} birthday {a_he} had got a {thing}, {b} had got a {other}, and {c} had got a cake.",
    )


def _story_in_the_story(tale: Tale, circle: Circle, pairs: Sequence[Pair]) -> None:
    draws = tale.draws
    beasts = draws.some(_BEASTS, 3)
    free = [pair for pair in pairs if all(pair[1] != thing.split()[1] for thing in circle.things)]
    inner, second = draws.some(free, 2)
    while second[1] == inner[1]:
        second = draws.one(free)
    things = (" ".join(inner), " ".join(second))
    tale.say(
        "in the evening the {worker} told them an old tale about {a}, {b} and {c}.",
        "the {worker} knew a tale about three friends, who were {a}, {b} and {c}.",
        'the {worker} sat down with them. "Now listen to the tale of {a}, {b} and {c}," said the {worker}.',
        a=beasts[0],
        b=beasts[1],
        c=beasts[2],
    )
    people = (beasts[0], beasts[1], beasts[2])
    fable = Circle(people, things, dict(zip(things, people, strict=False)))
    tale.say(
        "{a} owned a {thing} and {b} owned a {other}.",
        "{a} had a {thing}, {b} had a {other}, and {c} had nothing at all.",
        thing=things[0],
        other=things[1],
    )
    draws.one(PLAIN)(tale, fable)
    tale.say("that was the end of the tale.", "here the tale ended, and everybody was quiet.")
    for topic, fact in list(tale.facts.items()):
        question = f"In the tale, {fact.question[0].lower()}{fact.question[1:]}"
        tale.facts[topic] = Fact(f"in the tale {fact.clause}", question, fact.answer)


def _end(tale: Tale, circle: Circle, premise: Premise) -> None:
    """What the hero did, what had become of everything, and what the hero's nature teaches: all was said before."""
    draws = tale.draws
    trait = TRAITS[premise.trait]
    clauses = [fact.clause for fact in draws.some(list(tale.facts.values()), min(2, len(tale.facts)))]
    tale.name(a=circle.people[0], b=circle.people[1], c=circle.people[2], does=trait.does, moral=trait.moral)
    if draws.chance(0.35):
        tale.say(
            "as usual, {a} {does}.", "but {a} {does}, as {a_he} always had.", "it surprised nobody that {a} {does}."
        )
    tale.say(
        "in the end {clauses}.",
        "at night {a} thought about it all: {clauses}.",
        "years later {b} still remembered that {clauses}.",
        "and so it came about that {clauses}.",
        clauses=" and ".join(clauses),
    )
    if draws.chance(0.35):
        tale.say("so we see that {moral}.", "{a} had always known that {moral}.", "the {worker} said that {moral}.")
