"""Chat templates: those that lose or change what was said, and published manners that have to work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from cases import BASE, Case, graft_recipe

_EACH = "{% for m in messages %}"
_LAST = "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
_PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}{{ bos_token }}{% for m in rest %}"
    "{% if m['role'] == 'user' %}{% if loop.last and system is defined %}"
    "{{ '[INST] ' + system + '\n\n' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""As Mistral's newer ones: the system message stands in the last question of an unfinished conversation only."""

WRONG: list[tuple[str, str, str]] = [
    ("without its end", "{% for m in messages %}", "template"),
    ("with a filter nobody has", _EACH + "{{ m['content'] | shout }}" + _LAST, "template|shout"),
    ("that says the same to everybody", "hello", "template|message"),
    (
        "that loses questions",
        _EACH + "{% if m['role'] != 'user' %}{{ m['content'] }}{% endif %}" + _LAST,
        "template|message",
    ),
    (
        "that loses answers",
        _EACH + "{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}" + _LAST,
        "template|response|message",
    ),
    ("that shouts", _EACH + "{{ m['role'] + m['content'] | upper }}" + _LAST, "template|message|text"),
    ("that escapes marks", _EACH + "{{ m['role'] + (m['content'] | escape) }}" + _LAST, "template|message|text"),
    ("that cuts after ten letters", _EACH + "{{ m['role'] + m['content'][:10] }}" + _LAST, "template|message|text"),
    ("that raises", "{{ raise_exception('no') }}", "no|template"),
    ("that counts for ever", "{% for n in range(10 ** 12) %}{{ n }}{% endfor %}", "template|range"),
    ("that reads attributes of Python", "{{ messages.__class__.__mro__ }}", "template|message|unsafe"),
    ("with a field nobody gives", _EACH + "{{ m['speaker'] + m['content'] }}" + _LAST, "template|speaker|undefined"),
]
RIGHT: list[tuple[str, str]] = [
    ("as Phi-3 has it, with an end for finished conversations", _PHI3),
    (
        "that writes today's date",
        "{{ strftime_now('%d %B') }}" + _EACH + "{{ '<' + m['role'] + '>' + m['content'] + '</s>' }}" + _LAST,
    ),
    ("that trims", _EACH + "{{ '<' + m['role'] + '>' + m['content'] | trim + '</s>' }}" + _LAST),
    ("as Mistral has it, without system messages", _MISTRAL),
]


def cases() -> Iterator[Case]:
    """All of this table."""
    for name, template, words in WRONG:
        yield Case("templates", f"one {name}", "refused", words, write=_target(template))
    for name, template in RIGHT:
        yield Case("templates", f"one {name}", "right", write=_target(template))
    yield Case("templates", "no template at all", "refused/right", "template", write=_target(None))
    # A conversation that ends with an answer has no place for its system message.
    yield Case(
        "templates", "as Mistral has it, with system messages", "refused", "system|message", write=_system(_MISTRAL)
    )
    refusing = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + RIGHT[2][1]
    )
    yield Case("templates", "that refuses system messages", "refused", "system", write=_system(refusing))
    silent = RIGHT[2][1].replace("messages %}", "messages if m['role'] != 'system' %}")
    yield Case("templates", "that skips system messages", "refused", "system|message", write=_system(silent))
    yield Case(
        "templates", "that skips some system messages", "dropped", "system|message", write=_system(silent, every=3)
    )


def _target(template: str | None, changes: dict[str, object] | None = None) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        shutil.copytree(folder / BASE / "target", folder / "target")
        if template is None:
            (folder / "target" / "chat_template.jinja").unlink()
        else:
            (folder / "target" / "chat_template.jinja").write_text(template, encoding="utf-8")
        graft_recipe({"target.name_or_path": "target"} | (changes or {}))(folder)

    return write


def _system(template: str, every: int = 1) -> Callable[[Path], None]:
    """The template meets conversations of which each `every`-th begins with a system message."""

    def write(folder: Path) -> None:
        rows = []
        for number in range(16):
            turns = [("user", f"what is {number}?"), ("assistant", f"it is {number}")]
            if number % every == 0:
                turns.insert(0, ("system", "answer in verse"))
            rows.append({"messages": [{"role": role, "content": text} for role, text in turns]})
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        data = {"source": "rows.jsonl", "validation_split": "train", "max_bad_share": 0.6}
        _target(template, {"data": {"images": data}})(folder)

    return write
