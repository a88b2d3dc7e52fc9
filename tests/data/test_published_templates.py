"""Chat templates written as published families write theirs: what is learnt, token for token, and what is refused."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken

from hf_chain.data.chat import ChatEncoder, ChatTemplate, train_chat_tokenizer
from hf_chain.errors import HfChainError
from hf_chain.losses.response import IGNORED
from support.chat_models import TEXT, in_loss

MARKS = (
    *("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "<|endoftext|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>"),
    *("<start_of_turn>", "<end_of_turn>", "<｜User｜>", "<｜Assistant｜>", "<｜end｜>"),
)

MISTRAL_V3 = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}"
    "{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}{{- '<s>' }}"
    "{%- for m in turns %}"
    "{%- if m['role'] == 'user' %}{%- if loop.last and system is defined %}"
    "{{- '[INST] ' + system + '\\n\\n' + m['content'] + '[/INST]' }}{%- else %}"
    "{{- '[INST] ' + m['content'] + '[/INST]' }}{%- endif %}"
    "{%- elif m['role'] == 'assistant' %}{{- ' ' + m['content'] + '</s>' }}"
    "{%- else %}{{- raise_exception('Only user and assistant roles are supported') }}{%- endif %}{%- endfor %}"
)
MISTRAL_SYSTEM = (
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST]' + m['content'] + '[/INST]' }}"
    "{% elif m['role'] == 'system' %}{{ '[SYSTEM_PROMPT]' + m['content'] + '[/SYSTEM_PROMPT]' }}"
    "{% else %}{{ m['content'] + '</s>' }}{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ '<|endoftext|>' }}{% endif %}"
)
PHI3_FIRST = (
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '<|user|>\n' + m['content'] + '<|end|>\n<|assistant|>\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ '<s>' }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN2 = (
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    " + m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = '<s>' + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
DEEPSEEK = (
    "{% set ns = namespace(system='') %}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{% set ns.system = m['content'] %}{% endif %}{% endfor %}{{ '<s>' + ns.system }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{% elif m['role'] == 'assistant' %}"
    "{% set content = m['content'].split('</think>')[-1] if '</think>' in m['content'] else m['content'] %}"
    "{{ '<｜Assistant｜>' + content + '<｜end｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)

PUBLISHED = {
    "mistral v3": (MISTRAL_V3, "{}</s>"),
    "mistral with system": (MISTRAL_SYSTEM, "{}</s>"),
    "phi-3": (PHI3, "<|assistant|>\n{}<|end|>"),
    "phi-3, header first": (PHI3_FIRST, "{}<|end|>"),
    "gemma": (GEMMA, "<start_of_turn>model\n{}<end_of_turn>"),
    "qwen2": (QWEN2, "<|im_start|>assistant\n{}<|im_end|>"),
    "llama-3": (LLAMA3, "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>"),
    "deepseek": (DEEPSEEK, "<｜Assistant｜>{}<｜end｜>"),
}
"""A template, and how a response is learnt."""

TURNS = [
    {"role": "user", "content": "what is the largest shape?"},
    {"role": "assistant", "content": "a red circle"},
    {"role": "user", "content": "how many shapes are there?"},
    {"role": "assistant", "content": "four"},
]
SYSTEM = {"role": "system", "content": "one two three"}
WRITE_SYSTEM = ("mistral with system", "phi-3", "qwen2", "llama-3", "deepseek")


def tokenizer_with(template, plain=()):
    """A tokenizer of all marks but those in `plain`, which are many tokens then."""
    tokenizer = train_chat_tokenizer([{"messages": [{"content": TEXT}]}], 400, 512)
    marks = [AddedToken(mark, special=True, normalized=False) for mark in MARKS if mark not in plain]
    tokenizer.add_tokens(marks, special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


def learnt(tokenizer, messages, **options):
    """What is in the loss, without the white space that some tokenizers hang onto a word."""
    return [text.strip() for text in in_loss(tokenizer, messages, **options)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_tokens_are_the_templates_and_the_labels_the_responses(name):
    template, form = PUBLISHED[name]
    tokenizer = tokenizer_with(template)
    own = tokenizer.apply_chat_template(TURNS, tokenize=True, return_dict=True)["input_ids"]
    assert ChatEncoder(tokenizer).encode(TURNS).input_ids == own
    assert learnt(tokenizer, TURNS) == [form.format(turn["content"]) for turn in TURNS[1::2]]
    content = learnt(tokenizer, TURNS, special_tokens_in_loss=False)
    assert content == [turn["content"] for turn in TURNS[1::2]]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_prompt_is_how_training_begins(name):
    encoder = ChatEncoder(tokenizer_with(PUBLISHED[name][0]))
    for turns in (TURNS[:2], TURNS):
        prompt, encoded = encoder.encode_prompt(turns[:-1]), encoder.encode(turns)
        assert encoded.input_ids[: len(prompt)] == prompt and 0 <= encoded.answer - len(prompt) <= 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_system_message_is_written_or_the_row_is_bad(name):
    encoder = ChatEncoder(tokenizer_with(PUBLISHED[name][0]))
    if name in WRITE_SYSTEM:
        encoded = encoder.encode([SYSTEM, *TURNS])
        assert SYSTEM["content"] in encoder.tokenizer.decode(encoded.input_ids)
        assert sum(label != IGNORED for label in encoded.labels) == sum(
            label != IGNORED for label in encoder.encode(TURNS).labels
        )
        return
    problem = "System role not supported" if name == "gemma" else "leaves out message 0, of role 'system'"
    with pytest.raises(ValueError, match=problem):
        encoder.encode([SYSTEM, *TURNS])


def test_a_prompt_without_one_of_the_messages_is_refused():
    encoder = ChatEncoder(tokenizer_with(PHI3_FIRST))
    with pytest.raises(ValueError, match="leaves out message 0, of role 'system'"):
        encoder.encode_prompt([SYSTEM, TURNS[0]])


def test_a_template_that_writes_the_last_turns_alone_is_noticed():
    encoder = ChatEncoder(tokenizer_with(QWEN2.replace("for m in messages", "for m in messages[-2:]")))
    assert encoder.encode(TURNS[:2]).input_ids
    with pytest.raises(ValueError, match="leaves out message 0, of role 'user'"):
        encoder.encode(TURNS)


def test_a_thought_that_the_template_strips_makes_a_bad_row():
    encoder = ChatEncoder(tokenizer_with(DEEPSEEK))
    thought = {"role": "assistant", "content": "<think>two and two</think>four"}
    with pytest.raises(ValueError, match="does not write every message once and as it is"):
        encoder.encode([TURNS[0], thought])


@pytest.mark.parametrize("plain", [(), ("<|endoftext|>",)])
@pytest.mark.parametrize("finish", ["<|endoftext|>", "<|endoftext|>\n", "</s>", "THE END"])
def test_what_only_finished_conversations_have_is_no_changed_text(finish, plain):
    """Also where it begins with the characters that asking begins with, and is no single token."""
    tokenizer = tokenizer_with(PHI3.replace("<|endoftext|>", finish), plain)
    template = ChatTemplate(tokenizer)
    assert template.end_of_turn == "<|end|>"
    assert template.render(TURNS).text.endswith(f"four<|end|>\n{finish}")
    assert template.prompt(TURNS[:3]).endswith("shapes are there?<|end|>\n<|assistant|>\n")
    assert learnt(tokenizer, TURNS) == ["<|assistant|>\na red circle<|end|>", "<|assistant|>\nfour<|end|>"]


def test_earlier_text_that_changes_is_still_refused():
    rewrites = PHI3.replace(
        "m['content']", "(m['content'] if not add_generation_prompt else m['content'] | upper + '!')"
    )
    with pytest.raises(HfChainError, match="changes earlier text when it asks for a response"):
        ChatTemplate(tokenizer_with(rewrites))
