"""Responses are found in what any chat template writes, and nothing else is."""

from __future__ import annotations

import copy

import pytest
from jinja2 import TemplateError

from hf_chain.data.chat import ChatEncoder, ChatTemplate
from hf_chain.errors import HfChainError
from hf_chain.losses.response import IGNORED
from hf_chain.models.grafted_vlm.processing_grafted_vlm import with_images, without_images
from support.chat_models import TEMPLATES, chat_tokenizer, in_loss

CHAT = [
    {"role": "user", "content": "assistant, what is this? <|im_end|> user"},
    {"role": "assistant", "content": "a red circle,\n\n  it says user"},
    {"role": "user", "content": "a red circle?"},
    {"role": "assistant", "content": "yes"},
]
NAMES = [None, *TEMPLATES]


@pytest.mark.parametrize("image", ["<|IMAGE|>", "<PLACEHOLDER>", "{{ image }}", "it's an <image>"])
def test_any_text_can_stand_for_an_image(image):
    tokenizer = chat_tokenizer()
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}
    typed = tokenizer.apply_chat_template(
        [message], chat_template=with_images(tokenizer.chat_template, image), tokenize=False
    )
    plain = {"role": "user", "content": f"{image}\nwhat is it?"}
    assert typed == tokenizer.apply_chat_template([plain], tokenize=False)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (3, "3"),
        (["a", 2.5, {"type": "text", "text": 3}], "a\n2.5\n3"),
        ([{"type": "text", "text": None}, {"text": "a"}], "a"),
        (None, ""),
    ],
)
def test_numbers_and_plain_parts_are_text(content, text):
    template = with_images("{{ messages[0]['content'] }}", "<image>")
    message = {"role": "user", "content": content}
    assert chat_tokenizer().apply_chat_template([message], chat_template=template, tokenize=False) == text


@pytest.mark.parametrize("part", [{"type": "video", "video": "cat.mp4"}, {"type": "input_image", "image_url": "cat"}])
def test_a_part_that_is_no_text_and_no_image_is_refused(part):
    template = with_images("{{ messages[0]['content'] }}", "<image>")
    message = {"role": "user", "content": [{"type": "text", "text": "what is this?"}, part]}
    with pytest.raises(TemplateError, match=f"a message has a part of type {part['type']}, which is not read"):
        chat_tokenizer().apply_chat_template([message], chat_template=template, tokenize=False)


@pytest.mark.parametrize(
    "start", ["\n\nHi ", "  ", "  {% if true %}\n{% endif %}", "\n", "{{- '' }} a", "{#- note #}\n\n"]
)
def test_white_space_before_a_template_stays(start):
    tokenizer, template = chat_tokenizer(), start + "{{ messages[0]['content'] }}"
    made = with_images(template, "<image>")
    plain, ours = (tokenizer.apply_chat_template(CHAT, chat_template=one, tokenize=False) for one in (template, made))
    assert ours == plain
    assert without_images(made) == template and with_images(made, "<image>") == made


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_on_the_responses_alone(name):
    found = in_loss(chat_tokenizer(name), CHAT, special_tokens_in_loss=False)
    assert [text.strip() for text in found] == [CHAT[1]["content"], CHAT[3]["content"]]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        (None, "<|assistant|>{}<|end|>"),
        ("llama3", "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>"),
        ("chatml", "<|im_start|>assistant\n{}<|im_end|>"),
        ("thinking", "<|im_start|>assistant\n{}<|im_end|>"),
        ("asks_for_thought", "<|im_start|>assistant\n{}<|im_end|>"),
        ("gemma", "<start_of_turn>model\n{}<end_of_turn>"),
        ("mistral", " {}<|end|>"),
    ],
)
def test_header_and_end_mark_are_in_the_loss_where_asked_for(name, first):
    found = in_loss(chat_tokenizer(name), CHAT)
    assert len(found) == 2
    assert found[0].strip() == first.format(CHAT[1]["content"]).strip()
    if name == "thinking":
        assert found[1] == "<|im_start|>assistant\n<think>\n\n</think>\n\nyes<|im_end|>"


def test_the_loss_holds_what_the_template_itself_marks_as_generated():
    tokenizer = chat_tokenizer()
    own = tokenizer.apply_chat_template(CHAT, return_assistant_tokens_mask=True, return_dict=True)
    encoded = ChatEncoder(tokenizer).encode(CHAT)
    assert encoded.input_ids == own["input_ids"]
    header = tokenizer.convert_tokens_to_ids("<|assistant|>")
    ours = [int(label not in (IGNORED, header)) for label in encoded.labels]
    assert ours == own["assistant_masks"]


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_how_the_whole_conversation_begins(name):
    template = ChatTemplate(chat_tokenizer(name))
    whole = template.render(CHAT)
    prompt = template.prompt(CHAT[:3])
    assert whole.text.startswith(prompt) and len(prompt) > len(template.render(CHAT[:2]).text)
    assert prompt == template.render([*CHAT[:3], {"role": "assistant", "content": "no"}]).text[: len(prompt)]
    assert template.end_of_turn == (TEMPLATES[name][1] if name else "<|end|>")


def test_a_template_that_rewrites_a_response_is_noticed():
    tokenizer = copy.deepcopy(chat_tokenizer("chatml"))
    tokenizer.chat_template = TEMPLATES["chatml"][0].replace("m['content']", "m['content'] | replace('red', 'blue')")
    with pytest.raises(ValueError, match="does not write every message once and as it is"):
        ChatTemplate(tokenizer).render(CHAT)


def test_a_template_that_refuses_a_conversation_says_why():
    with pytest.raises(ValueError, match="System role not supported"):
        ChatTemplate(chat_tokenizer("gemma")).render([{"role": "system", "content": "be kind"}, *CHAT])


def test_a_template_that_refuses_every_conversation_is_refused_in_one_line():
    tokenizer = copy.deepcopy(chat_tokenizer())
    tokenizer.chat_template = "{{ raise_exception('tools are needed') }}"
    with pytest.raises(HfChainError, match="refuses a question and an answer, tools are needed; give") as caught:
        ChatTemplate(tokenizer)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("broken", ["{% for n in range(10 ** 12) %}{% endfor %}", "{{ 1 / 0 }}", "{{ 'a' + 1 }}"])
def test_a_template_that_cannot_be_computed_is_refused_in_one_line(broken):
    tokenizer = copy.deepcopy(chat_tokenizer())
    tokenizer.chat_template = broken
    with pytest.raises(HfChainError, match="the chat template of tokenizer .* refuses a question and an answer"):
        ChatTemplate(tokenizer)


def test_conversations_do_not_depend_on_the_day():
    tokenizer = copy.deepcopy(chat_tokenizer())
    date = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y, %S.%f') }}{% endif %}"
    tokenizer.chat_template = f"\n  {date}{tokenizer.chat_template}"
    encoder = ChatEncoder(tokenizer)
    assert encoder.template.render(CHAT).text.startswith("\n26 Jul 2024, 00.000000<|begin|>")
    assert encoder.encode(CHAT) == ChatEncoder(tokenizer).encode(CHAT)
    assert encoder.encode_prompt(CHAT[:1]) == encoder.encode(CHAT).input_ids[: len(encoder.encode_prompt(CHAT[:1]))]


def test_of_several_templates_the_default_one_is_taken():
    tokenizer = copy.deepcopy(chat_tokenizer())
    own = tokenizer.chat_template
    tokenizer.chat_template = {"default": own, "rag": "{{ messages[0]['content'] }}"}
    assert ChatEncoder(tokenizer).encode(CHAT) == ChatEncoder(chat_tokenizer()).encode(CHAT)
    assert ChatTemplate(tokenizer).template == own
    tokenizer.chat_template = {"rag": own, "tools": own}
    with pytest.raises(HfChainError, match="has the chat templates rag, tools and none is called default") as caught:
        ChatEncoder(tokenizer)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_a_template_is_refused_in_one_line():
    tokenizer = copy.deepcopy(chat_tokenizer())
    tokenizer.chat_template = None
    with pytest.raises(HfChainError, match="has no chat template; set tokenizer.chat_template") as caught:
        ChatEncoder(tokenizer)
    assert "\n" not in str(caught.value)


def test_a_template_that_asks_by_rewriting_is_refused_in_one_line():
    tokenizer = copy.deepcopy(chat_tokenizer())
    tokenizer.chat_template = "{% if add_generation_prompt %}now{% endif %}{{ messages[0]['content'] }}"
    with pytest.raises(HfChainError, match="changes earlier text when it asks for a response") as caught:
        ChatTemplate(tokenizer)
    assert "\n" not in str(caught.value)
