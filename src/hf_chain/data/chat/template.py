"""Where the responses stand in what a chat template writes, for any template.

Every content is replaced by a mark, the marked conversation is rendered once, and the text between the marks is what
the template itself writes. The rendering of the real conversation is checked against it, so that a template that
rewrites a response, or leaves a message out, is noticed. Templates that write the date write one and the same:
training, remembered lengths and evaluation must not depend on the day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from os.path import commonprefix
from typing import Any

from jinja2 import TemplateError
from tokenizers import decoders
from transformers import PreTrainedTokenizerFast

from hf_chain.content_parts import in_parts, takes_parts
from hf_chain.data.chat.rows import IMAGE_PLACEHOLDER
from hf_chain.data.text_tokenizer import learn_bytes
from hf_chain.errors import HfChainError, reason

PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SPECIAL_TOKENS = (PAD, BEGIN, END, *_ROLES, IMAGE_PLACEHOLDER)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_chat_tokenizer(
    rows: Iterable[Mapping[str, Any]], vocab_size: int = 2048, max_length: int = 512
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on conversations and give it a chat template.

    Any text can be written: every byte has a token. The image placeholder has one too, so that a language model that
    was trained with it keeps its vocabulary when it is grafted.

    Args:
        rows (`Iterable[Mapping]`): Chat rows; only their messages are read.
        vocab_size (`int`, *optional*, defaults to 2048): Most entries; a small corpus may fill fewer.
        max_length (`int`, *optional*, defaults to 512): Context length in tokens.

    Returns:
        `transformers.PreTrainedTokenizerFast`: The same one for the same rows in every process.

    Raises:
        `HfChainError`: Where the vocabulary is too small for bytes and marks, or there is no text.
    """
    # A word is the same token where it begins an answer and inside a sentence.
    tokenizer = learn_bytes(_texts(rows), vocab_size, SPECIAL_TOKENS, "messages_column", add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _texts(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        for message in row["messages"]:
            yield message["content"].replace(IMAGE_PLACEHOLDER, "")


Messages = Sequence[Mapping[str, str]]

TODAY = date(2024, 7, 26)
"""The date of all conversations; Llama's templates fall back on it too."""

_DATE_PARTS = ["-d", "-m", *"aAbBcdfHIjmMpSuUwWxXyYzZ"]
# transformers hands no functions to templates, so this one is written in their language. It ends with a line of its
# own, which the template's first line needs to keep its white space.
_STRFTIME_NOW = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('%{part}', '{TODAY.strftime('%' + part)}')" for part in _DATE_PARTS)
    + " }}{%- endmacro %}\n"
)

# Private-use characters: no text holds them, and no template strips them.
_MARK = "\ue000{}\ue001"
_MARKED = re.compile("\ue000(\\d+)\ue001")

REFUSALS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError)
"""What a template raises: itself, or what it computes, such as the sandbox's `OverflowError` for a long range."""


@dataclass(frozen=True)
class Response:
    """Character positions of one response: its turn with header and end mark, and its content alone."""

    turn_start: int
    start: int
    end: int
    turn_end: int


@dataclass(frozen=True)
class RenderedChat:
    """The text of a conversation as the model sees it, and where the responses stand in it."""

    text: str
    responses: tuple[Response, ...]


class ChatTemplate:
    """Renders conversations with a tokenizer's chat template and finds the responses in the text.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Has a chat template.
        template (`str` or `dict[str, str]`, *optional*): A template in place of the tokenizer's own; of several the
            one called `default`.

    Templates that take the content of a message in parts, such as those of LLaVA-1.5 and SmolVLM, get it as one part.

    Raises:
        `HfChainError`: Where there is no template, it refuses a question with its answer, or it changes earlier text
            when it asks for a response.
    """

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        self.tokenizer = tokenizer
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        self.template = _default(template or tokenizer.chat_template, name)
        if "strftime_now" in self.template:
            self.template = _STRFTIME_NOW + self.template
        question = {"role": "user", "content": _MARK.format(0)}
        answered = [question, {"role": "assistant", "content": _MARK.format(1)}]
        self._in_parts = takes_parts(self.template)
        try:
            asked, asking = self._apply([question]), self._apply([question], add_generation_prompt=True)
            whole = self._apply(answered)
        except REFUSALS as error:
            raise HfChainError(
                f"the chat template of tokenizer {name} refuses a question and an answer, {reason(error)}; give "
                "another template"
            ) from error
        self._finish = self._only_when_finished(asked, asking, whole)
        asked = asked.removesuffix(self._finish)
        if not asking.startswith(asked):
            raise HfChainError(
                f"the chat template of tokenizer {name} changes earlier text when it asks for a response; mend its "
                "add_generation_prompt"
            )
        # A template may ask for a thought that no response has; it is not asked for here.
        header = max(len(asked), len(commonprefix([asking, whole])))
        self._surplus = len(asking) - header
        self._header = asking[len(asked) : header]
        self._parts: dict[tuple[str, ...], list[str]] = {}

    def _only_when_finished(self, asked: str, asking: str, whole: str) -> str:
        """What a template writes behind every conversation that asks for nothing, such as Phi-3's end of text."""
        start = len(commonprefix([asked, asking]))
        # What follows instead may begin with the same characters, but not within a token.
        for token in self.tokenizer.get_added_vocab():
            within = range(max(start - len(token) + 1, 0), start)
            here = (offset for offset in within if any(text.startswith(token, offset) for text in (asked, asking)))
            start = next(here, start)
        finish, common = asked[start:], len(commonprefix([asking, whole]))
        return finish if _MARK.format(0) in asked[:start] and common > start and whole.endswith(finish) else ""

    @cached_property
    def _ending(self) -> str:
        return self._marked(("user", "assistant"))[-1].removesuffix(self._finish)

    @property
    def end_of_turn(self) -> str:
        """What the template writes after a response, without white space; empty where it writes nothing."""
        return self._ending.strip()

    def prompt(self, messages: Messages) -> str:
        """Render a conversation up to where the model is to answer: the beginning of what `render` makes of it.

        Raises:
            `ValueError`: Where the template refuses the conversation, or leaves a message out.
        """
        self._check_all_written(messages, self._marked(_roles(messages), add_generation_prompt=True))
        text = self._render(messages, add_generation_prompt=True)
        return text[: len(text) - self._surplus]

    def render(self, messages: Messages) -> RenderedChat:
        """Render a whole conversation.

        Args:
            messages (`Sequence[Mapping[str, str]]`): With `role` and stripped `content`.

        Raises:
            `ValueError`: Where the template refuses the conversation, leaves a message out, or does not write one as
                it is given.
        """
        text = self._render(messages)
        parts = self._marked(_roles(messages))
        self._check_all_written(messages, parts)
        responses, offset = [], len(parts[0])
        matches = text.startswith(parts[0])
        for before, number, after in zip(parts[:-1:2], map(int, parts[1::2]), parts[2::2], strict=True):
            content = messages[number]["content"]
            matches = matches and text.startswith(content + after, offset)
            if messages[number]["role"] == "assistant":
                header = self._header_length(before)
                tail = len(commonprefix([after, self._ending]).rstrip())
                end = offset + len(content)
                responses.append(Response(offset - header, offset, end, end + tail))
            offset += len(content) + len(after)
        if not matches or offset != len(text) or len(parts) != 2 * len(messages) + 1:
            raise ValueError("the chat template does not write every message once and as it is")
        return RenderedChat(text, tuple(responses))

    def _header_length(self, before: str) -> int:
        """Length of the header at the end of the text before a response, with what a template adds behind it."""
        offset = before.rfind(self._header) if self._header else -1
        if offset >= 0:
            return len(before) - offset
        # A template may write more before the last response, such as an empty thought that past turns do not have.
        return next(n for n in range(len(self._header), -1, -1) if before.endswith(self._header[:n]))

    def _check_all_written(self, messages: Messages, parts: list[str]) -> None:
        written = set(map(int, parts[1::2]))
        for number, message in enumerate(messages):
            if number not in written:
                raise ValueError(
                    f"the chat template leaves out message {number}, of role {message['role']!r}: put its text into "
                    "another message, or give another template"
                )

    def _marked(self, roles: tuple[str, ...], **options: Any) -> list[str]:
        """Text, number, text, number … text: what the template writes around the messages of these roles."""
        key = (*roles, *options)
        if key not in self._parts:
            marked = [{"role": role, "content": _MARK.format(number)} for number, role in enumerate(roles)]
            self._parts[key] = _MARKED.split(self._render(marked, **options))
        return self._parts[key]

    def _render(self, messages: Messages, **options: Any) -> str:
        try:
            return self._apply(messages, **options)
        except REFUSALS as error:
            raise ValueError(f"the chat template refuses it, {reason(error)}") from error

    def _apply(self, messages: Messages, **options: Any) -> str:
        given = in_parts(messages) if self._in_parts else list(messages)
        # Responses hold no thoughts, so a template that can ask for them (Qwen3) shall not; others ignore it.
        text = self.tokenizer.apply_chat_template(
            given, tokenize=False, chat_template=self.template, enable_thinking=False, **options
        )
        return str(text)


def _roles(messages: Messages) -> tuple[str, ...]:
    return tuple(message["role"] for message in messages)


def _default(template: str | dict[str, str] | None, name: str) -> str:
    """The template of that name, where there are several."""
    if not template:
        raise HfChainError(
            f"tokenizer {name} has no chat template; set tokenizer.chat_template, or take the instruction-tuned "
            "model's tokenizer"
        )
    if isinstance(template, str):
        return template
    if "default" not in template:
        raise HfChainError(
            f"tokenizer {name} has the chat templates {', '.join(template)} and none is called default; set "
            "tokenizer.chat_template to one of them"
        )
    return template["default"]
