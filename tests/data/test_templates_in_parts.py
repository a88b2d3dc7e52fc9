"""Chat templates that take content in parts keep all text: in training, in prompts, in processors and exports."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoProcessor

from hf_chain.content_parts import takes_parts
from hf_chain.data.chat import ChatCollator, ChatEncoder
from hf_chain.evaluation.generate import generate_answers
from hf_chain.grafting.export_llava import export_llava
from hf_chain.losses.response import IGNORED
from hf_chain.models import from_parts
from support.chat_models import TEMPLATES, chat_tokenizer, in_loss, talk, tiny_language_model
from support.grafted_parts import image_processor, tiny_tower

LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
# Refuses plain text instead of losing it.
STRICT = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{% for part in m['content'] %}{{ part['text'] + '' }}"
    "{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TURNS = ("what is this?", "a red circle", "how large?", "large")
WRITTEN = {
    "llava": (LLAVA, "USER: {0} ASSISTANT: {1} USER: {2} ASSISTANT:"),
    "smolvlm": (
        SMOLVLM,
        "<|im_start|>User: {0}<end_of_utterance>\nAssistant: {1}<end_of_utterance>\nUser: {2}<end_of_utterance>\n"
        "Assistant:",
    ),
    "strict": (STRICT, "<|user|>{0}<|end|><|assistant|>{1}<|end|><|user|>{2}<|end|><|assistant|>"),
}
NAMES = list(WRITTEN)


def tokenizer(name: str) -> Any:
    words = copy.deepcopy(chat_tokenizer())
    words.chat_template = WRITTEN[name][0]
    return words


def vlm(name: str) -> tuple[Any, Any]:
    return from_parts(tiny_tower(), tiny_language_model(), tokenizer(name), image_processor())


def in_parts(messages: list[dict[str, str]]) -> list[dict[str, Any]]:
    """As users of vision-language models write them."""
    parts = []
    for message in messages:
        before, image, text = message["content"].rpartition("<image>\n")
        assert not before
        content = [{"type": "image"}] * bool(image) + [{"type": "text", "text": text}]
        parts.append({"role": message["role"], "content": content})
    return parts


@pytest.mark.parametrize("name", NAMES)
def test_texts_and_parts_are_written_alike_and_whole(name: str) -> None:
    _, processor = vlm(name)
    row = talk(f"<image>\n{TURNS[0]}", *TURNS[1:3], images=1)
    expected = WRITTEN[name][1].format(f"<image>\n{TURNS[0]}", *TURNS[1:3])
    for messages in (row["messages"], in_parts(row["messages"])):
        assert processor.apply_chat_template(messages, add_generation_prompt=True) == expected
    assert ChatEncoder(processor).template.prompt(row["messages"]) == expected
    image = {"type": "image", "image": row["images"][0]}
    chat = in_parts(row["messages"])
    chat[0]["content"][0] = image
    batch = processor.apply_chat_template(chat, tokenize=True, return_dict=True, add_generation_prompt=True)
    assert batch["input_ids"][0] == ChatEncoder(processor).encode_prompt(row["messages"], row["images"])


@pytest.mark.parametrize("start", ["", "\n\nHi ", "{{- '' }} a"])
@pytest.mark.parametrize("template", [*(found[0] for found in TEMPLATES.values()), LLAVA, SMOLVLM, STRICT])
def test_training_writes_what_the_processor_writes(template: str, start: str) -> None:
    """Though it leaves out of the processor's template what puts images into the text."""
    words = copy.deepcopy(chat_tokenizer())
    words.chat_template = start + template
    _, processor = from_parts(tiny_tower(), tiny_language_model(), words, image_processor())
    row = talk(f"<image>\n{TURNS[0]}", *TURNS[1:], images=1)
    rendered = ChatEncoder(processor).template.render(row["messages"]).text
    assert rendered == processor.apply_chat_template(row["messages"]) and rendered.count("<image>") == 1


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_rows_hold_questions_and_answers_and_learn_the_answers(name: str, image: bool) -> None:
    _, processor = vlm(name)
    row = talk(("<image>\n" if image else "") + TURNS[0], *TURNS[1:], images=int(image))
    batch = ChatCollator(processor)([row])
    text = processor.tokenizer.decode(batch["input_ids"][0])
    assert all(turn in text for turn in TURNS)
    learnt = processor.tokenizer.decode([n for n in batch["labels"][0] if n != IGNORED])
    assert TURNS[1] in learnt and TURNS[3] in learnt
    assert TURNS[0] not in learnt and TURNS[2] not in learnt


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_alone_writes_them_too(name: str) -> None:
    found = in_loss(tokenizer(name), talk(*TURNS)["messages"], special_tokens_in_loss=False)
    assert [text.strip() for text in found] == [TURNS[1], TURNS[3]]


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_asks_the_question(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = vlm(name)
    asked: list[str] = []
    generate = type(model).generate
    monkeypatch.setattr(
        type(model),
        "generate",
        lambda self, **inputs: (
            asked.extend(processor.tokenizer.batch_decode(inputs["input_ids"])) or generate(self, **inputs)
        ),
    )
    generate_answers(model, processor, [talk(f"<image>\n{TURNS[0]}", "red", images=1)], max_new_tokens=2)
    assert len(asked) == 1 and TURNS[0] in asked[0]


@pytest.mark.parametrize("name", NAMES)
def test_exports_and_saved_processors_write_the_same(name: str, tmp_path: Path) -> None:
    model, processor = vlm(name)
    messages = talk(TURNS[0], TURNS[1])["messages"]
    expected = processor.apply_chat_template(messages)
    processor.save_pretrained(tmp_path / "own")
    export_llava(model, processor, tmp_path / "llava")
    for form in ("own", "llava"):
        assert AutoProcessor.from_pretrained(tmp_path / form).apply_chat_template(messages) == expected
        assert AutoProcessor.from_pretrained(tmp_path / form).apply_chat_template(in_parts(messages)) == expected


def test_templates_for_text_get_text() -> None:
    assert [takes_parts(template) for template, _ in TEMPLATES.values()] == [False] * len(TEMPLATES)
    assert not takes_parts("{{ 1 / 0 }}") and not takes_parts("{% for m in messages %}{{ m.content }}{% endfor %}")
    # Takes both: texts stay texts.
    both = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}"
    assert not takes_parts(both + "{% endif %}{% endfor %}")
