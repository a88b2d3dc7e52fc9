"""Where the responses stand in what a chat template writes, for any template.

Every content is replaced by a mark, the marked conversation is rendered once, and the text between the marks is what
the template itself writes. The rendering of the real conversation is checked against it, so that a template that
rewrites a response is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import commonprefix
from typing import Any

from jinja2 import TemplateError

from hf_chain.errors import HfChainError

Messages = Sequence[Mapping[str, str]]

# Private-use characters: no text holds them, and no template strips them.
_MARK = "\ue000{}\ue001"
_MARKED = re.compile("\ue000(\\d+)\ue001")


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
        template (`str`, *optional*): A template in place of the tokenizer's own.

    Raises:
        `HfChainError`: Where there is no template, or it changes earlier text when it asks for a response.
    """

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        self.tokenizer, self.template = tokenizer, template
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        if template is None and not tokenizer.chat_template:
            raise HfChainError(
                f"tokenizer {name} has no chat template; set tokenizer.chat_template, or take the instruction-tuned "
                "model's tokenizer"
            )
        question = [{"role": "user", "content": _MARK.format(0)}]
        asked, asking = self._apply(question), self._apply(question, add_generation_prompt=True)
        if not asking.startswith(asked):
            raise HfChainError(
                f"the chat template of tokenizer {name} changes earlier text when it asks for a response; mend its "
                "add_generation_prompt"
            )
        self._header = asking[len(asked) :]
        self._parts: dict[tuple[str, ...], list[str]] = {}

    @cached_property
    def _ending(self) -> str:
        return self._marked(("user", "assistant"))[-1]

    @property
    def end_of_turn(self) -> str:
        """What the template writes after a response, without white space; empty where it writes nothing."""
        return self._ending.strip()

    def prompt(self, messages: Messages) -> str:
        """Render a conversation up to where the model is to answer.

        Raises:
            `ValueError`: Where the template refuses the conversation.
        """
        return self._render(messages, add_generation_prompt=True)

    def render(self, messages: Messages) -> RenderedChat:
        """Render a whole conversation.

        Args:
            messages (`Sequence[Mapping[str, str]]`): With `role` and stripped `content`.

        Raises:
            `ValueError`: Where the template refuses the conversation, or does not write a response as it is given.
        """
        text = self._render(messages)
        parts = self._marked(tuple(message["role"] for message in messages))
        responses, place = [], len(parts[0])
        matches = text.startswith(parts[0])
        for before, number, after in zip(parts[:-1:2], map(int, parts[1::2]), parts[2::2], strict=True):
            content = messages[number]["content"]
            matches = matches and text.startswith(content + after, place)
            if messages[number]["role"] == "assistant":
                header = self._header_length(before)
                tail = len(commonprefix([after, self._ending]).rstrip())
                end = place + len(content)
                responses.append(Response(place - header, place, end, end + tail))
            place += len(content) + len(after)
        count = sum(message["role"] == "assistant" for message in messages)
        if not matches or place != len(text) or len(responses) != count:
            raise ValueError("the chat template does not write every message once and as it is")
        return RenderedChat(text, tuple(responses))

    def _header_length(self, before: str) -> int:
        """Length of the header at the end of the text before a response, with what a template adds behind it."""
        place = before.rfind(self._header) if self._header else -1
        if place >= 0:
            return len(before) - place
        # A template may ask for more than the header, for example for thoughts that it leaves out of past turns.
        return next(n for n in range(len(self._header), -1, -1) if before.endswith(self._header[:n]))

    def _marked(self, roles: tuple[str, ...]) -> list[str]:
        """Text, number, text, number … text: what the template writes around the messages of these roles."""
        if roles not in self._parts:
            marked = [{"role": role, "content": _MARK.format(number)} for number, role in enumerate(roles)]
            self._parts[roles] = _MARKED.split(self._render(marked))
        return self._parts[roles]

    def _render(self, messages: Messages, **options: Any) -> str:
        try:
            return self._apply(messages, **options)
        except TemplateError as error:
            raise ValueError(f"the chat template refuses it, {' '.join(str(error).split())}") from error

    def _apply(self, messages: Messages, **options: Any) -> str:
        # Responses hold no thoughts, so a template that can ask for them (Qwen3) shall not; others ignore it.
        text = self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, chat_template=self.template, enable_thinking=False, **options
        )
        return str(text)
