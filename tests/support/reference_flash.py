"""FlashAttention's functions in plain torch, so that transformers' whole way to the kernel runs where there is no GPU.

Only the kernel is replaced: masks, unpadding, packs and the choice of function are those of a machine with a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, modeling_flash_attention_utils


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> torch.Tensor:
    """Attention of `q` `[B, Q, heads, D]` to `k` and `v` `[B, K, groups, D]`; the last query sees the last key."""
    k, v = (states.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for states in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * (softmax_scale or q.shape[-1] ** -0.5)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    ahead = torch.arange(k.shape[1])[None] - torch.arange(k.shape[1] - q.shape[1], k.shape[1])[:, None]
    hidden = (ahead > 0) & causal
    if window_size[0] >= 0:
        hidden |= ahead < -window_size[0]
    if window_size[1] >= 0:
        hidden |= ahead > window_size[1]
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", torch.dropout(weights, dropout_p, train=True), v)


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> torch.Tensor:
    """The same for sequences laid one after another, `[tokens, heads, D]`, that begin at `cu_seqlens`."""
    queries, keys = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
    assert max(queries) == int(max_seqlen_q) and max(keys) == int(max_seqlen_k)
    sequences = zip(q.split(queries), k.split(keys), v.split(keys), strict=True)
    options = (dropout_p, softmax_scale, causal, window_size, softcap)
    return torch.cat([flash_attn_func(*(part[None] for part in parts), *options)[0] for parts in sequences])


@pytest.fixture
def reference_flash(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Makes `flash_attention_2` take these functions; lists the names of those that were called."""
    called: list[str] = []

    def counted(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        @wraps(function)  # transformers reads the signature.
        def call(*args: Any, **kwargs: Any) -> torch.Tensor:
            called.append(function.__name__)
            return function(*args, **kwargs)

        return call

    utils = modeling_flash_attention_utils
    functions = counted(flash_attn_func), counted(flash_attn_varlen_func), None, utils._pad_input, utils._unpad_input
    monkeypatch.setattr(utils, "_loaded_implementation", None)
    monkeypatch.setattr(utils, "_lazy_imports", lambda *args, **kwargs: functions)
    monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", lambda self, *args, **kwargs: True)
    yield called
    # The functions stay behind in the module: whoever comes next has to load their own.
    monkeypatch.undo()
    utils._loaded_implementation = None
