"""Captions and question–answer pairs that are true of a scene."""

from __future__ import annotations

from random import Random

from hf_chain.data.scenes.scene import Group, Scene

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")
_PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the centre", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def scene_captions(scene: Scene, random: Random) -> list[str]:
    """Describe a scene in several ways; the first caption names everything that is there.

    Args:
        scene (`Scene`): What to describe.
        random (`random.Random`): Chooses between phrasings that mean the same.

    Returns:
        `list[str]`: At least six different captions, each true.
    """
    main, groups = scene.main, list(scene.groups)
    ground = _background(scene)
    name = f"{main.color} {main.shape}"
    place = _PLACES[scene.row][scene.column]
    everything = _join([_noun(group) for group in (main, *groups)])
    joint = "of" if place.startswith(("at", "in")) else "side of"
    captions = [
        f"{everything} on {ground}",
        f"{_noun(main)} {place} {joint} {ground}",
        random.choice(("a {}", "there is a {}", "a picture of a {}")).format(name),
        f"{_NUMBERS[len(scene.objects)]} {_plural('shape', len(scene.objects))}: "
        + _join([_counted(group) for group in (main, *groups)]),
        f"{ground} with {_some(len(scene.objects))}, the largest is a {name}",
    ]
    if not groups:
        captions.append(f"a {name} alone {place}")
        return captions
    related = [(relation, group) for group in groups if (relation := relation_of(main, group)) is not None]
    for relation, group in related:
        other = f"{group.color} {group.shape}"
        captions.append(random.choice((f"a {name} {relation} a {other}", f"a {other} {_OPPOSITE[relation]} a {name}")))
    group = random.choice(groups)
    captions.append(f"{_noun(main)} {place} with {_noun(group)}" if not related else f"{_noun(group)} on {ground}")
    return captions


def scene_questions(scene: Scene, random: Random, pairs: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    """Ask about a scene.

    Args:
        scene (`Scene`): What to ask about.
        random (`random.Random`): Chooses the objects asked about.
        pairs (`tuple[tuple[str, str], ...]`): Colour and shape pairs a question may mention.

    Returns:
        `list[dict[str, str]]`: Each with `question` and a one-word `answer`.
    """
    main, groups = scene.main, scene.groups
    asked = random.choice((main, *groups))
    present = {(group.color, group.shape) for group in (main, *groups)}
    absent = random.choice([pair for pair in pairs if pair not in present])
    there = random.random() < 0.5
    color, shape = (asked.color, asked.shape) if there else absent
    questions = [
        ("what colour is the largest shape?", main.color),
        ("what is the largest shape?", main.shape),
        ("what colour is the background?", scene.background),
        ("is the background plain, striped or checked?", scene.pattern),
        ("how many shapes are there?", _NUMBERS[len(scene.objects)]),
        (f"how many {asked.color} {_plural(asked.shape, 2)} are there?", _NUMBERS[asked.count]),
        (f"is there a {color} {shape}?", "yes" if there else "no"),
    ]
    for group in groups:
        relation = relation_of(main, group)
        if relation is not None:
            true = random.random() < 0.5
            said = relation if true else _OPPOSITE[relation]
            question = f"is the {main.color} {main.shape} {said} the {group.color} {group.shape}?"
            questions.append((question, "yes" if true else "no"))
            break
    return [{"question": question, "answer": answer} for question, answer in questions]


def relation_of(main: Group, group: Group) -> str | None:
    """Return where the main object stands seen from a single other one, or `None` where a person would hesitate."""
    if group.count != 1:
        return None
    dx = main.objects[0].x - group.objects[0].x
    dy = main.objects[0].y - group.objects[0].y
    if abs(dx) > 1.5 * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) > 1.5 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def _background(scene: Scene) -> str:
    return f"a {scene.pattern} {scene.background} background"


def _noun(group: Group) -> str:
    number = "a" if group.count == 1 else _NUMBERS[group.count]
    return f"{number} {group.size} {group.color} {_plural(group.shape, group.count)}"


def _counted(group: Group) -> str:
    return f"{_NUMBERS[group.count]} {group.color} {_plural(group.shape, group.count)}"


def _some(count: int) -> str:
    return f"{_NUMBERS[count]} {_plural('shape', count)}"


def _plural(noun: str, count: int) -> str:
    if count == 1:
        return noun
    return noun + ("es" if noun.endswith("s") else "s")


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
