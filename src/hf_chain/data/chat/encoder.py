"""From a conversation to token ids and labels."""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from PIL import Image

from hf_chain.data.chat.rows import IMAGE_PLACEHOLDER
from hf_chain.data.chat.settings import ResponseReweighting
from hf_chain.data.chat.template import ChatTemplate, Messages, Response
from hf_chain.data.randomness import sample_random
from hf_chain.errors import HfChainError, shortened
from hf_chain.losses.response import IGNORED

Value = TypeVar("Value")

_IMAGES_ELSEWHERE = re.compile(
    r"<img>.+?</img>|<\|(?:image|image_pad|image_\d+|video_pad|video|audio|AUDIO)\|>|<start_of_image>|\[IMG\]"
    r"|<(?:IMG_CONTEXT|ImageHere|image_placeholder|image[_ ]\d+)>|\A<(?:video|audio)>|<(?:video|audio)>\Z"
)
"""What stands for an image in the texts of Qwen-VL, Llama, Phi, Gemma, Pixtral, InternVL, ShareGPT4V, DeepSeek-VL and
MMMU, and for a film or a sound where no text about web pages has it."""


@dataclass(frozen=True)
class EncodedChat:
    """Token ids, labels and loss weights of one conversation, each of length L.

    `labels` are -100 outside of the loss; `weights` are 0 there. `whole_length` is the length before it was cut,
    `answer` where the content of the last response begins.
    """

    input_ids: list[int]
    labels: list[int]
    weights: list[float]
    whole_length: int
    answer: int


class ChatEncoder:
    """Writes conversations with the chat template and marks which tokens are in the loss.

    Args:
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): A `GraftedVLMProcessor`, or a tokenizer for text
            alone. The tokenizer is a fast one.
        max_length (`int`, *optional*): Tokens from which on a conversation is cut; the tokenizer's own by default.
        special_tokens_in_loss (`bool`, *optional*, defaults to `True`): Whether header and end mark of a response are
            in the loss, as in stages 1 and 2 of the paper, or its content alone, as in stage 3.
        image_prompts (`bool`, *optional*, defaults to `False`): Put one of thirty wordings around every image.
        reweighting (`ResponseReweighting`, *optional*): Larger weights for short responses about images.
        seed (`int`, *optional*, defaults to 0): Seed of the wordings, which depend on it, the images and the questions
            alone: they are the same in every epoch, and do not give a response away.

    Raises:
        `HfChainError`: Where the tokenizer has no chat template or gives no character positions.
    """

    def __init__(
        self,
        processor: Any,
        *,
        max_length: int | None = None,
        special_tokens_in_loss: bool = True,
        image_prompts: bool = False,
        reweighting: ResponseReweighting | None = None,
        seed: int = 0,
    ) -> None:
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        if not self.tokenizer.is_fast:
            raise HfChainError(f"tokenizer {self.tokenizer.name_or_path} gives no character positions; use a fast one")
        # Here images are words already, and what puts them there need not run again.
        template = getattr(processor, "text_template", None) or getattr(processor, "chat_template", None)
        self.template = ChatTemplate(self.tokenizer, template)
        # Tokenizers without a limit give an astronomical one.
        own = self.tokenizer.model_max_length
        self.max_length = max_length or (own if own < 10**9 else None)
        self.special_tokens_in_loss = special_tokens_in_loss
        self.image_prompts = image_prompts
        self.reweighting = reweighting
        self.seed = seed
        self.image_token: str = getattr(processor, "image_token", "")
        self.image_token_id: int | None = getattr(processor, "image_token_id", None)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides about length and labels of a conversation."""
        tokens = getattr(self.processor, "tokens_per_image", None)
        if tokens is None and hasattr(self.processor, "image_processor"):
            tokens = self.processor.image_processor.to_json_string()  # it decides how many tokens an image has
        options = [self.template.template, self.image_token, tokens]
        options += [self.max_length, self.special_tokens_in_loss, self.image_prompts, self.seed]
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self.tokenizer.backend_tokenizer.to_str().encode())
        digest.update(json.dumps(options).encode())
        return digest.hexdigest()

    def encode(self, messages: Messages, images: Sequence[Image.Image] = ()) -> EncodedChat:
        """Encode a conversation for training; what follows the last response is left out.

        Args:
            messages (`Sequence[Mapping[str, str]]`): With `role` and stripped `content`.
            images (`Sequence[PIL.Image.Image]`, *optional*): Its images, one for each `<image>` in the messages.

        Returns:
            `EncodedChat`: Of at most `max_length` tokens, with one for every position of an image.

        Raises:
            `ValueError`: Where it cannot be used; the message says why.
        """
        last = max((n for n, m in enumerate(messages) if m["role"] == "assistant" and m["content"]), default=-1)
        if last < 0:
            raise ValueError("there is no response")
        messages = self._with_images(messages[: last + 1], len(images))
        if images and self.image_prompts:
            random = sample_random("image prompt", self.seed, 0, _question_key(messages, images))
            messages = wrap_images(messages, self.image_token, random)
        rendered = self.template.render(messages)
        ids, spans = self._tokenize(rendered.text)
        counts = self._positions(ids, images)
        weights = self._weights(spans, rendered.responses, weighted=bool(images))
        # No vocabulary need have a row for an image, so none is to be predicted, in a response either.
        weights = [0.0 if token == self.image_token_id else weight for token, weight in zip(ids, weights, strict=True)]
        labels = [token if weight else IGNORED for token, weight in zip(ids, weights, strict=True)]
        answer = sum(counts[: bisect_right([end for _, end in spans], rendered.responses[-1].start)])
        return self._cut(_repeat(ids, counts), _repeat(labels, counts), _repeat(weights, counts), answer)

    def encode_prompt(self, messages: Messages, images: Sequence[Image.Image] = ()) -> list[int]:
        """Return the token ids of a conversation up to where the model is to answer, without random wordings.

        Raises:
            `ValueError`: Where the template refuses it, or images and placeholders do not fit.
        """
        ids, _ = self._tokenize(self.template.prompt(self._with_images(messages, len(images))))
        return _repeat(ids, self._positions(ids, images))

    def _with_images(self, messages: Messages, images: int) -> Messages:
        placeholders = sum(message["content"].count(IMAGE_PLACEHOLDER) for message in messages)
        if placeholders != images:
            raise ValueError(f"there are {images} images for {placeholders} {IMAGE_PLACEHOLDER} placeholders")
        if not images:
            self._check_no_other_images(messages)
            return messages
        if not self.image_token:
            raise ValueError("there is an image, but the processor is a tokenizer alone")
        return [{**m, "content": m["content"].replace(IMAGE_PLACEHOLDER, self.image_token)} for m in messages]

    @staticmethod
    def _check_no_other_images(messages: Messages) -> None:
        for number, message in enumerate(messages):
            if (found := _IMAGES_ELSEWHERE.search(message["content"])) is not None:
                raise ValueError(
                    f"message {number} holds {shortened(found[0])}, an image of another layout that is not read: "
                    f"write {IMAGE_PLACEHOLDER}, with the image in the column of images"
                )

    def _tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, and the characters of each; a gap that a tokenizer leaves at white space belongs to the next."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans, reached = [], 0
        for start, end in encoded["offset_mapping"]:
            spans.append((min(start, reached), end))
            reached = end
        return encoded["input_ids"], spans

    def _weights(self, spans: list[tuple[int, int]], responses: tuple[Response, ...], weighted: bool) -> list[float]:
        starts, ends = [start for start, _ in spans], [end for _, end in spans]

        def tokens(start: int, end: int) -> range:
            return range(bisect_right(ends, start), bisect_left(starts, end))

        weights = [0.0] * len(spans)
        for response in responses:
            content = tokens(response.start, response.end)
            weight = self.reweighting.weight(len(content)) if self.reweighting is not None and weighted else 1.0
            whole = tokens(response.turn_start, response.turn_end)
            for number in whole if self.special_tokens_in_loss else content:
                weights[number] = weight
        # Nothing predicts the first token.
        weights[0] = 0.0
        return weights

    def _positions(self, ids: list[int], images: Sequence[Image.Image]) -> list[int]:
        """How many positions each token takes: image tokens one for each position of their image."""
        found = sum(token == self.image_token_id for token in ids)
        if found != len(images):
            raise ValueError(f"there are {len(images)} images for {found} {self.image_token} in the text")
        if not images:
            return [1] * len(ids)
        processor = self.processor
        fixed = processor.tokens_per_image is not None
        inputs = {} if fixed else processor.image_processor(images=list(images), return_tensors="pt")
        numbers = iter(range(len(images)))
        return [
            len(processor.replace_image_token(inputs, next(numbers))) // len(self.image_token)
            if token == self.image_token_id
            else 1
            for token in ids
        ]

    def _cut(self, ids: list[int], labels: list[int], weights: list[float], answer: int) -> EncodedChat:
        whole, most = len(ids), self.max_length
        if all(label == IGNORED for label in labels):
            raise ValueError("there is no text in its responses")
        if most is not None and whole > most:
            if self.image_token_id in ids[most:]:
                raise ValueError(f"it has {whole} tokens, and cut at max_length {most} it would lose an image")
            ids, labels, weights = ids[:most], labels[:most], weights[:most]
        if all(label == IGNORED for label in labels):
            raise ValueError(f"it has {whole} tokens, and no response is left of it at max_length {most}")
        return EncodedChat(ids, labels, weights, whole, answer)


def _question_key(messages: Messages, images: Sequence[Image.Image]) -> str:
    """Hash of images and questions: were responses in it, what is drawn by it would give them away."""
    digest = hashlib.blake2b(digest_size=8)
    for image in images:
        digest.update(image.tobytes())
    digest.update(json.dumps([message for message in messages if message["role"] != "assistant"]).encode())
    return digest.hexdigest()


def _repeat(values: list[Value], counts: list[int]) -> list[Value]:
    return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]


IMAGE_PROMPTS = (
    "<image>",
    "Image: <image>",
    "Picture: <image>",
    "Photo: <image>",
    "Here is an image: <image>",
    "Here is a picture: <image>",
    "This is the image: <image>",
    "This is the picture to look at: <image>",
    "Look at this image: <image>",
    "Look at this picture: <image>",
    "Take a look: <image>",
    "See the image here: <image>",
    "The image is shown here: <image>",
    "The picture in question: <image>",
    "The image that belongs to this: <image>",
    "I have an image for you: <image>",
    "I am sending you a picture: <image>",
    "You are given an image: <image>",
    "You can see a picture here: <image>",
    "Attached is an image: <image>",
    "An image is attached. <image>",
    "A picture comes with this message. <image>",
    "Please consider the following image. <image>",
    "Please study this picture first. <image>",
    "The following is about this image. <image>",
    "Use this picture for what follows. <image>",
    "<image> This is the image.",
    "<image> The picture above is what this is about.",
    "<image> Keep this image in mind.",
    "<image> Look at it closely.",
)
"""Thirty wordings, each with one `<image>`."""


def wrap_images(messages: Sequence[Mapping[str, str]], image_token: str, random: Random) -> list[dict[str, str]]:
    """Put one of the wordings around every image of a conversation.

    Args:
        messages (`Sequence[Mapping[str, str]]`): With the image token where the images are.
        image_token (`str`): What stands for an image.
        random (`random.Random`): Generator of this sample.
    """
    wrapped = []
    for message in messages:
        before, *after = message["content"].split(image_token)
        wordings = (random.choice(IMAGE_PROMPTS).replace(IMAGE_PLACEHOLDER, image_token) for _ in after)
        content = before + "".join(wording + text for wording, text in zip(wordings, after, strict=True))
        wrapped.append({"role": message["role"], "content": content})
    return wrapped
