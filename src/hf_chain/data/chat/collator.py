"""From chat rows to the tensors of a batch, padded or packed."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from torch import nn
from torch.utils import data

from hf_chain.data.chat.encoder import ChatEncoder, EncodedChat
from hf_chain.data.chat.rows import first_image_path, read_sample
from hf_chain.data.chat.settings import ResponseReweighting
from hf_chain.data.collator import DirectPixels
from hf_chain.errors import HfChainError, shortened
from hf_chain.losses.response import IGNORED
from hf_chain.module_modes import evaluation_mode


class PackedRows(data.Dataset):
    """Rows in packs; item i is a list of rows for `ChatCollator(packing=True)`.

    Args:
        rows (`datasets.Dataset`): Chat rows with their `length`, as `check_chat` returns them.
        max_tokens (`int`): Tokens that a pack holds at most.

    Raises:
        `HfChainError`: Where the rows have no lengths, or one is longer than a pack.
    """

    def __init__(self, rows: Dataset, max_tokens: int) -> None:
        if "length" not in rows.column_names:
            raise HfChainError("the rows have no length column; take them from check_chat")
        self.rows = rows
        self.packs = pack_lengths(rows["length"], max_tokens)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each pack."""
        tokens = self.rows["length"]
        return [sum(tokens[row] for row in pack) for pack in self.packs]

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        return [self.rows[row] for row in self.packs[index]]


class PackedStream(data.IterableDataset):
    """Rows of a stream in packs, in their order.

    Args:
        stream (`ChatStream`): Rows with their `length`.
        max_tokens (`int`): Tokens that a pack holds at most.
    """

    def __init__(self, stream: Any, max_tokens: int) -> None:
        self.stream, self.max_tokens = stream, max_tokens

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of another epoch."""
        self.stream.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[Mapping[str, Any]]]:
        pack: list[Mapping[str, Any]] = []
        tokens = 0
        for row in self.stream:
            _check_length(row["length"], self.max_tokens)
            if pack and tokens + row["length"] > self.max_tokens:
                yield pack
                pack, tokens = [], 0
            pack.append(row)
            tokens += row["length"]
        if pack:
            yield pack


def pack_lengths(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Best fit decreasing: the longest first, each into the fullest pack that still has room.

    Args:
        lengths (`Sequence[int]`): Tokens of each row.
        max_tokens (`int`): Tokens that a pack holds at most.

    Returns:
        `list[list[int]]`: Row numbers of each pack; every row is in one.
    """
    packs: list[list[int]] = []
    free: list[tuple[int, int]] = []  # Room and number of each pack, by room.
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        _check_length(lengths[row], max_tokens)
        place = bisect_left(free, (lengths[row], -1))
        room, pack = free.pop(place) if place < len(free) else (max_tokens, len(packs))
        if pack == len(packs):
            packs.append([])
        packs[pack].append(row)
        insort(free, (room - lengths[row], pack))
    return packs


def check_packing(model: nn.Module) -> None:
    """Run two short sequences apart and packed, and compare the logits.

    transformers keeps packed sequences apart by their restarting position ids, where a model builds its masks with the
    library's own functions; one that does not, such as OPT, would let every conversation see those before it.

    Args:
        model (`PreTrainedModel`): A language model, or a vision-language model; it stays in its mode.

    Raises:
        `HfChainError`: Where the logits differ.
    """
    device = next(model.parameters()).device
    image = getattr(model.config, "image_token_id", None)
    words = torch.tensor([[token for token in range(3, 11) if token != image][:7]], device=device)
    first, second = words.split([4, 3], dim=1)
    with evaluation_mode(model):
        apart = torch.cat([model(input_ids=ids, use_cache=False).logits[0] for ids in (first, second)])
        positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2]], device=device)
        packed = model(input_ids=words, position_ids=positions, use_cache=False).logits[0]
    error = (apart - packed).abs().max().float() / apart.abs().max().float()
    # Half precision rounds differently for other shapes; a leak changes the second sequence's logits altogether.
    tolerance = 1e-4 if apart.dtype == torch.float32 else 3e-2
    if not error < tolerance:
        raise HfChainError(
            f"{type(model).__name__} does not keep packed sequences apart (logits differ by {error:.1e}); "
            "set packing to false, or use attn_implementation flash_attention_2"
        )


def _check_length(length: int, max_tokens: int) -> None:
    if length > max_tokens:
        raise HfChainError(f"a conversation has {length} tokens, a pack {max_tokens}; raise max_tokens or cut it")


class ChatCollator:
    """Turns chat rows into a batch with the processor that users of the model get.

    Args:
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): A `GraftedVLMProcessor`, or a tokenizer for text
            alone.
        max_length (`int`, *optional*): Tokens from which on a conversation is cut; the tokenizer's own by default.
        special_tokens_in_loss (`bool`, *optional*, defaults to `True`): Whether header and end mark of a response are
            in the loss, or its content alone.
        image_prompts (`bool`, *optional*, defaults to `False`): Put one of thirty wordings around every image.
        reweighting (`ResponseReweighting`, *optional*): Larger weights for short responses about images.
        packing (`bool`, *optional*, defaults to `False`): Lay all conversations of a batch in one sequence without
            padding, instead of one row each. Losses and gradients are the same; see `check_packing`.
        seed (`int`, *optional*, defaults to 0): Seed of the image wordings.

    Raises:
        `HfChainError`: Where the tokenizer has no chat template.

    Example:
        ```python
        >>> collate = ChatCollator(processor, max_length=2048)
        >>> train = check_chat(load_chat(settings)["train"], collate.encoder)
        >>> batch = collate([train[0], train[1]])
        ```
    """

    def __init__(
        self,
        processor: Any,
        *,
        max_length: int | None = None,
        special_tokens_in_loss: bool = True,
        image_prompts: bool = False,
        reweighting: ResponseReweighting | None = None,
        packing: bool = False,
        seed: int = 0,
    ) -> None:
        self.encoder = ChatEncoder(
            processor,
            max_length=max_length,
            special_tokens_in_loss=special_tokens_in_loss,
            image_prompts=image_prompts,
            reweighting=reweighting,
            seed=seed,
        )
        self.packing = packing

    def __call__(self, rows: Sequence[Mapping[str, Any] | Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
        """Collate chat rows, or packs of them.

        Args:
            rows (`Sequence[Mapping]`): Rows with `messages` and `images`, or lists of rows from `pack_rows`.

        Returns:
            `dict[str, torch.Tensor]`: `input_ids` and `labels` `[B, L]`, -100 outside of the loss; `pixel_values`
            `[N, 3, H, W]` of all images in order, and what else the image processor gives, absent where there are
            none; `loss_weights` `[B, L]` float32 where
            responses are re-weighted. Padded batches have `attention_mask` `[B, L]`; packed ones have B = 1,
            `position_ids` `[1, L]` that restart with each conversation, and `use_cache` `False`, as attention is kept
            within conversations only where there is neither a mask nor a cache.

        Raises:
            `HfChainError`: Where a row cannot be used.
        """
        encoded, images = [], []
        for row in (one for entry in rows for one in ([entry] if isinstance(entry, Mapping) else entry)):
            try:
                sample = read_sample(row)
                encoded.append(self.encoder.encode(sample.messages, sample.images))
            except Exception as error:  # Pillow's decoders raise errors of every kind.
                raise HfChainError(f"{_name(row)} cannot be used, {error}; drop it with check_chat") from error
            images += sample.images
        batch = self._packed(encoded) if self.packing else self._padded(encoded)
        if images:
            batch.update(self._image_inputs(images))
        return batch

    def _image_inputs(self, images: Sequence[Image.Image]) -> Mapping[str, Any]:
        if self._direct is None or any(image.mode != "RGB" for image in images):
            return self.encoder.processor.image_processor(images=list(images), return_tensors="pt")
        return {"pixel_values": self._direct(images)}

    @cached_property
    def _direct(self) -> DirectPixels | None:
        return DirectPixels.of(self.encoder.processor.image_processor)

    def _padded(self, encoded: Sequence[EncodedChat]) -> dict[str, Any]:
        width = max(len(chat.input_ids) for chat in encoded)
        pad = self.encoder.tokenizer.pad_token_id or 0
        batch = {
            "input_ids": torch.tensor([_fill(chat.input_ids, width, pad) for chat in encoded]),
            "attention_mask": torch.tensor([_fill([1] * len(chat.input_ids), width, 0) for chat in encoded]),
            "labels": torch.tensor([_fill(chat.labels, width, IGNORED) for chat in encoded]),
        }
        if self.encoder.reweighting is not None:
            batch["loss_weights"] = torch.tensor([_fill(chat.weights, width, 0.0) for chat in encoded])
        return batch

    def _packed(self, encoded: Sequence[EncodedChat]) -> dict[str, Any]:
        batch: dict[str, Any] = {
            "input_ids": torch.tensor([[token for chat in encoded for token in chat.input_ids]]),
            "position_ids": torch.cat([torch.arange(len(chat.input_ids)) for chat in encoded])[None],
            "labels": torch.tensor([[label for chat in encoded for label in chat.labels]]),
            "use_cache": False,
        }
        if self.encoder.reweighting is not None:
            batch["loss_weights"] = torch.tensor([[weight for chat in encoded for weight in chat.weights]])
        return batch


def _fill(values: list[Any], width: int, value: Any) -> list[Any]:
    return values + [value] * (width - len(values))


def _name(row: Mapping[str, Any]) -> str:
    """Path of the row's first image, or how its conversation begins."""
    path = first_image_path(row)
    if path:
        return f"the row with image {path}"
    first = next(iter(row.get("messages") or []), "")
    return f"the row that begins with {shortened(first.get('content') if isinstance(first, Mapping) else first)}"
