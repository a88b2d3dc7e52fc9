"""Packs of conversations that fill a token budget, and a test that a model keeps packed conversations apart."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.utils import data

from hf_chain.errors import HfChainError
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
