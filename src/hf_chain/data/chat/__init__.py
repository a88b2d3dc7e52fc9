"""Conversations about images: sources, questions, bad rows, collator and packing.

Names are imported when they are used: a recipe needs `ChatDataSettings` alone, which must not start torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.data.chat.collator import ChatCollator
    from hf_chain.data.chat.encoder import ChatEncoder
    from hf_chain.data.chat.packing import PackedRows, PackedStream, check_packing, pack_lengths
    from hf_chain.data.chat.quality import check_chat
    from hf_chain.data.chat.reweighting import ResponseReweighting
    from hf_chain.data.chat.rows import ChatSample, read_sample
    from hf_chain.data.chat.settings import ChatDataSettings
    from hf_chain.data.chat.sources import load_chat
    from hf_chain.data.chat.stream import ChatStream
    from hf_chain.data.chat.template import ChatTemplate
    from hf_chain.data.chat.tokenizer import train_chat_tokenizer

_MODULES = {
    "ChatCollator": "collator",
    "ChatDataSettings": "settings",
    "ChatEncoder": "encoder",
    "ChatSample": "rows",
    "ChatStream": "stream",
    "ChatTemplate": "template",
    "PackedRows": "packing",
    "PackedStream": "packing",
    "ResponseReweighting": "reweighting",
    "check_chat": "quality",
    "check_packing": "packing",
    "load_chat": "sources",
    "pack_lengths": "packing",
    "read_sample": "rows",
    "train_chat_tokenizer": "tokenizer",
}

__all__ = [
    "ChatCollator",
    "ChatDataSettings",
    "ChatEncoder",
    "ChatSample",
    "ChatStream",
    "ChatTemplate",
    "PackedRows",
    "PackedStream",
    "ResponseReweighting",
    "check_chat",
    "check_packing",
    "load_chat",
    "pack_lengths",
    "read_sample",
    "train_chat_tokenizer",
]

__getattr__ = lazy_names(__name__, _MODULES)
