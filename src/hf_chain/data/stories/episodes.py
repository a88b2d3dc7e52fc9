"""What can happen in a story. An episode adds its sentences, changes who has what, and notes what can be asked."""

from __future__ import annotations

from collections.abc import Callable

from hf_chain.data.stories.tale import Circle, Tale
from hf_chain.data.stories.words import (
    ANIMALS,
    COATS,
    CONTESTS,
    DAYS,
    NUMBERS,
    PET_NAMES,
    PETS,
    VISITS,
    WEATHER,
    WORK,
)

Episode = Callable[[Tale, Circle], None]


def hide(tale: Tale, circle: Circle) -> None:
    """Somebody puts a thing somewhere, another one moves it, and it is looked for."""
    draws = tale.draws
    thing = draws.one(circle.things)
    owner = circle.holders[thing]
    mover = draws.one([name for name in circle.people if name != owner])
    first, second = draws.some(tale.setting.spots, 2)
    tale.name(a=owner, b=mover, thing=thing, spot=first, other_spot=second)
    if thing in circle.hidden:
        tale.say("{a} went to get the {thing}.", "then {a} took the {thing} back.")
    tale.say(
        "{a} put the {thing} {spot} and went home to eat.",
        "{a} was tired of carrying the {thing} and left it {spot}.",
        "so that nobody would find it, {a} hid the {thing} {spot}.",
        "one morning {a} laid the {thing} {spot} and fell asleep.",
    )
    if draws.chance(0.65):
        tale.say(
            "{b} came by, picked up the {thing} and put it {other_spot}.",
            "a little later {b} found the {thing} and hid it {other_spot}.",
            "{b} thought that this was a bad place, and moved the {thing} so that it was {other_spot}.",
        )
        tale.say(
            "{a} came back and looked {spot}, but there was no {thing}.",
            "when {a} looked {spot}, the {thing} was gone.",
        )
        tale.say(
            '"Where is my {thing}?" asked {a}. "It is {other_spot}," said {b}.',
            '"Have you seen my {thing}?" {a} asked. {B} laughed and said, "Look {other_spot}!"',
            '{a} began to cry. "I am sorry," said {b}. "Your {thing} is {other_spot}."',
        )
        tale.name(spot=second)
    else:
        tale.say(
            "{b} looked for the {thing} everywhere, but not {spot}.",
            '"Where is your {thing}?" asked {b}. "It is {spot}," said {a}, "and there it stays."',
            "all day long {b} asked about the {thing}, and {a} did not say a word.",
        )
    circle.hidden.add(thing)
    tale.forget(f"holder of {thing}")
    tale.learn(
        f"spot of {thing}",
        "the {thing} was {spot}",
        "{spot}",
        "Where is the {thing} now?",
        "Where was the {thing} at the end?",
        "Where must {a} look for the {thing}?",
    )


def give(tale: Tale, circle: Circle) -> None:
    """A thing goes from hand to hand."""
    draws = tale.draws
    thing = draws.one(circle.things)
    holder = circle.holders[thing]
    tale.name(a=holder, thing=thing)
    if thing in circle.hidden:
        tale.say("{a} went to get the {thing}.", "then {a} took the {thing} back.")
        circle.hidden.remove(thing)
        tale.forget(f"spot of {thing}")
    for turn in range(draws.between(1, 3)):
        taker = draws.one([name for name in circle.people if name != holder])
        tale.say(
            "{a} gave the {thing} to {b}.",
            "{a} lent the {thing} to {b}, who had asked for it politely.",
            "{b} liked the {thing} so much that {a} gave it to {b_him}.",
            '"You may have my {thing}," said {a} to {b}.',
            "{b} took the {thing} from {a} and said thank you.",
            a=holder,
            b=taker,
        )
        if turn == 0 and draws.chance(0.5):
            tale.say(
                "{b_he} carried it everywhere and even took it to bed.",
                "{b_he} polished it until it shone.",
                "{b_he} showed it to all the neighbours.",
                "{b_he} promised to take good care of it.",
            )
        holder = taker
    circle.holders[thing] = holder
    tale.name(a=holder)
    tale.learn(
        f"holder of {thing}",
        "{a} had the {thing}",
        "{a}",
        "Who has the {thing} now?",
        "Who had the {thing} at the end?",
        "Whom must you ask for the {thing}?",
    )


def gather(tale: Tale, circle: Circle) -> None:
    """Two find things, put them together and give some of them away."""
    draws = tale.draws
    first, second = draws.between(2, 6), draws.between(2, 6)
    given = draws.between(1, min(5, first + second - 2))
    left = first + second - given
    a, b, c = draws.some(circle.people, 3)
    things = draws.one(tale.setting.gathered)
    tale.say(
        "{a} and {b} went out to look for {things}.",
        "the {worker} had asked {a} and {b} for some {things}.",
        "it was the right time for {things}, so {a} and {b} took a basket.",
        a=a,
        b=b,
        c=c,
        things=things,
        first=NUMBERS[first],
        second=NUMBERS[second],
        both=NUMBERS[first + second],
        given=NUMBERS[given],
        left=NUMBERS[left],
    )
    tale.say(
        "{a} found {first} {things} and {b} found {second}, so together they had {both}.",
        "{a} brought {first} {things}, {b} brought {second}, and that made {both} in the basket.",
    )
    tale.say(
        "they gave {given} of the {things} to {c}, and {left} were left.",
        "on the way home {c} got {given} of them as a present, so there were only {left} {things} left.",
        "then {given} of them fell into the water, and {left} {things} were left.",
    )
    tale.learn(
        "gathered",
        "{left} {things} were left",
        "{left}",
        "How many {things} were left?",
        "How many {things} were there at the end?",
    )


def contest(tale: Tale, circle: Circle) -> None:
    """Three compare themselves; who is first follows from two sentences."""
    draws = tale.draws
    first, second, third = draws.some(circle.people, 3)
    did, more, most, least = draws.one(CONTESTS)
    tale.say(
        "one day the three of them {did}.",
        "to find out who was {most}, {a}, {b} and {c} {did}.",
        a=first,
        b=second,
        c=third,
        did=did,
        more=more,
        most=most,
        least=least,
    )
    tale.say(
        "{a} {more} {b}, and {b} {more} {c}.",
        "{b} {more} {c}, but {a} {more} {b}.",
        "{c} lost to {b}, because {b} {more} {c}. Then {a} {more} {b}.",
    )
    tale.say(
        "so {a} was {most} and {c} was {least}.",
        "everybody clapped for {a}, who was {most} of all.",
        "{c} was {least}, but {a}, who was {most}, shook {c_his} hand.",
    )
    asked, who = ("{most}", "{a}") if draws.chance(0.5) else ("{least}", "{c}")
    tale.learn("contest", f"{who} was {asked}", who, f"Who was {asked}?", f"Which of the three friends was {asked}?")


def weather(tale: Tale, circle: Circle) -> None:
    """The weather changes, and one thing follows from the other."""
    change = tale.draws.one(WEATHER[tale.season])
    tale.say(
        "then, as so often in {season}, {came} and {ground}.",
        "on the way back {came}. Soon {ground}.",
        "suddenly {came}, and {ground}.",
        "in the afternoon {came}, so that {ground}.",
        came=change.came,
        ground=change.ground,
        body=change.body,
        remedy=change.remedy,
        a=circle.people[0],
        b=circle.people[1],
    )
    tale.say(
        "because of that {body}, so they {remedy}.",
        "{a} and {b} noticed that {body}, and they {remedy}.",
        "{body}. At last they {remedy}.",
    )
    tale.learn(
        "weather", "{body}", f"because {change.why}", "Why was it that {body}?", "Why did it happen that {body}?"
    )


def pet(tale: Tale, circle: Circle) -> None:
    """An animal gets lost and is found by its voice."""
    draws = tale.draws
    kind = draws.one(PETS)
    animal = ANIMALS[kind]
    coat, name = draws.one(COATS), draws.one(PET_NAMES)
    finder = draws.one(circle.people[1:])
    tale.say(
        "{a} had a {coat} {kind} called {pet}, who loved to {likes}.",
        "everybody there knew {pet}, the {coat} {kind} that belonged to {a}.",
        "{a} never went anywhere without {pet}, a {coat} {kind}.",
        a=circle.people[0],
        b=finder,
        kind=kind,
        coat=coat,
        pet=name,
        sound=animal.sound,
        food=animal.food,
        likes=animal.likes,
        haunt=animal.haunt,
    )
    tale.say(
        "one evening the {kind} did not come home, and {a} could not sleep.",
        "but one day {pet} was nowhere to be seen.",
        '"Help!" cried {a}. "My {coat} {kind} is gone!"',
    )
    tale.say(
        "then {b} heard some {sound}, and there was {pet}, {haunt}.",
        "{b} listened for {sound} and found {pet} {haunt}.",
        "it was {b} who heard the {sound}: the {kind} sat {haunt}.",
    )
    tale.say(
        "{a} gave {pet} {food}, and the {coat} {kind} was happy again.",
        "for supper the {kind} got {food}.",
        "{b} brought {food}, because that is what every {kind} likes best.",
    )
    key, answer, question = draws.one(
        (
            ("the {kind} was {coat}", "{coat}", "What colour was the {kind}?"),
            ("the {kind} was called {pet}", "{pet}", "What was the name of the {kind}?"),
            ("{b} found the {kind}", "{b}", "Who found the {kind}?"),
            ("the {kind} ate {food}", "{food}", "What did the {kind} eat?"),
        )
    )
    tale.learn("pet", key, answer, question)


def work(tale: Tale, circle: Circle) -> None:
    """A worker is helped and gives something back."""
    craft = WORK[tale.worker]
    helper, other = tale.draws.some(circle.people, 2)
    tale.say(
        "near the {place} there was a {worker} who {does}.",
        "their neighbour was a {worker}, who {does}.",
        "there was also a {worker}. All the people knew that the {worker} {does}.",
        a=helper,
        b=other,
        does=craft.does,
        needs=craft.needs,
        home=craft.home,
        gift=craft.gift,
    )
    tale.say(
        '"I need more {needs}," the {worker} said. {a} ran to fetch the {needs}, and {b} stayed beside the {home}.',
        "{a} helped to carry the {needs}, while {b} cleaned the {home}.",
        "{a} went to get {needs}, and {b} kept an eye on the {home}.",
    )
    tale.say(
        "for this the {worker} gave {a} {gift}.",
        '"Thank you, {a}," said the {worker}. "Here is {gift} for you."',
        "in the evening {a} went home with {gift}.",
    )
    tale.learn("work", "{a} got {gift} from the {worker}", "{a}", "Who helped the {worker} and got {gift}?")


def wait(tale: Tale, circle: Circle) -> None:
    """Something comes some days from now; the day follows."""
    draws = tale.draws
    today, days = draws.between(0, 6), draws.between(2, 5)
    event, verb, past = draws.one(VISITS)
    tale.say(
        'it was {today}. "In {days} days {event} will {verb}," said {a}.',
        'on {today} {a} heard the news. "In {days} days {event} will {verb}!"',
        '"How long is it until {event} will {verb}?" {b} asked on {today}. "Only {days} days," said {a}.',
        a=circle.people[0],
        b=circle.people[1],
        today=DAYS[today],
        days=NUMBERS[days],
        event=event,
        verb=verb,
        past=past,
        then=DAYS[(today + days) % 7],
        tomorrow=DAYS[(today + 1) % 7],
    )
    if draws.chance(0.5):
        tale.say(
            "{tomorrow} was the longest day of all.",
            "on {tomorrow} nobody could think of anything else.",
            "they slept badly, and on {tomorrow} they counted the hours.",
        )
    tale.say(
        "when {then} came, {event} {past}, and everyone was there.",
        "on {then} they put on their best clothes, and {event} {past}.",
        "at last it was {then} and {event} {past}.",
    )
    tale.learn(
        "day",
        "{event} {past} on {then}",
        "on {then}",
        "On which day did {event} {verb}?",
        "When did {event} {verb}?",
    )


PLAIN: tuple[Episode, ...] = (hide, give, gather, contest)
"""Episodes that can also happen to animals, in a story in the story."""
EPISODES: tuple[Episode, ...] = (hide, hide, give, give, gather, contest, weather, pet, work, wait)
"""Episodes of the friends, those of things twice as often."""
