"""A conversation with a grafted model about an image: what `hf-chain chat` does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import TextStreamer

from hf_chain.data.chat.encoder import ChatEncoder
from hf_chain.data.chat.rows import IMAGE_PLACEHOLDER
from hf_chain.errors import HfChainError, reason
from hf_chain.evaluation.generate import left_padded, pad_token, pixel_inputs, stop_tokens
from hf_chain.images import decode_image
from hf_chain.methods.graft.headline import load_grafted


class Conversation:
    """Questions and answers about one picture, or about none; the model sees all of them each time.

    Args:
        model (`GraftedVLMForConditionalGeneration`): the model, in evaluation mode.
        processor (`GraftedVLMProcessor`): its processor.
        max_new_tokens (`int`): most tokens of an answer.

    Raises:
        HfChainError: when the tokenizer has no chat template.
    """

    def __init__(self, model: Any, processor: Any, max_new_tokens: int = 256) -> None:
        self.model, self.max_new_tokens = model, max_new_tokens
        self.encoder = ChatEncoder(processor)
        self.stop = stop_tokens(model, self.encoder)
        self.messages: list[dict[str, str]] = []
        self.images: list[Image.Image] = []

    def show(self, picture: Path) -> None:
        """Begins anew, about another picture.

        Raises:
            HfChainError: when it is no picture; the conversation goes on as it was.
        """
        if not os.path.isfile(picture):
            raise HfChainError(f"There is no file {picture}: give a picture, such as a PNG or JPEG file")
        try:
            image = decode_image(str(picture))
        except Exception as error:  # Pillow's decoders raise errors of every kind.
            raise HfChainError(
                f"{picture} is no picture that can be read ({reason(error)}): give a PNG or JPEG"
            ) from error
        self.messages, self.images = [], [image]

    def forget(self) -> None:
        """Begins anew, about the same picture."""
        self.messages = []

    def ask(self, question: str, say: Callable[[str], object] = lambda text: None) -> str:
        """Asks, and remembers question and answer.

        Args:
            question (`str`): the question.
            say (`Callable[[str], object]`): is handed the answer piece by piece while it is generated.

        Returns:
            `str`: the whole answer.

        Raises:
            HfChainError: when question and conversation are longer than the model can take, or cannot be written with
                its chat template.
        """
        # Bytes that are no UTF-8 come as lone surrogates, which no tokenizer takes.
        question = question.encode("utf-8", "replace").decode()
        content = question if self.messages or not self.images else f"{IMAGE_PLACEHOLDER}\n{question}"
        messages = [*self.messages, {"role": "user", "content": content}]
        try:
            ids = self.encoder.encode_prompt(messages, self.images)
        except ValueError as error:
            raise HfChainError(f"this cannot be asked, {error}: ask without {IMAGE_PLACEHOLDER}") from error
        room = self._room(len(ids))
        output = self.model.generate(
            **left_padded([ids], self.encoder, self.model.device),
            **pixel_inputs(self.images, self.encoder, self.model.device),
            max_new_tokens=min(self.max_new_tokens, room),
            do_sample=False,
            num_beams=1,
            eos_token_id=self.stop,
            pad_token_id=pad_token(self.encoder),
            streamer=_Saying(self.encoder.tokenizer, say),
        )
        answer = self.encoder.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True).strip()
        self.messages = [*messages, {"role": "assistant", "content": answer}]
        return answer

    def _room(self, tokens: int) -> int:
        """Tokens that the model can take after so many."""
        most = getattr(self.model.config.text_config, "max_position_embeddings", None)
        if most is not None and tokens >= most:
            raise HfChainError(f"the conversation has {tokens} tokens, but the model takes {most}: begin a new one")
        return self.max_new_tokens if most is None else most - tokens


class _Saying(TextStreamer):
    """Hands on words instead of printing them."""

    def __init__(self, tokenizer: Any, say: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.say = say

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.say(text)


def open_chat(model: str, picture: Path | None = None, max_new_tokens: int = 256) -> Conversation:
    """Loads a model and begins a conversation.

    Args:
        model (`str`): folder or Hub name of a grafted model.
        picture (`Path`, *optional*): what the questions are about.
        max_new_tokens (`int`): most tokens of an answer.

    Raises:
        HfChainError: when the model or the picture cannot be read.
    """
    if picture is not None and not os.path.isfile(picture):
        # Loading a model takes a while.
        raise HfChainError(f"There is no file {picture}: give a picture, such as a PNG or JPEG file")
    conversation = Conversation(*load_grafted(model), max_new_tokens)
    if picture is not None:
        conversation.show(picture)
    return conversation
