"""Conversations about images: sources, questions, bad rows, collator and packing.

Names are imported when they are used: a recipe needs `ChatDataSettings` alone, which must not start torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.data.chat.collator import ChatCollator, PackedRows, PackedStream, check_packing, pack_lengths
    from hf_chain.data.chat.encoder import ChatEncoder
    from hf_chain.data.chat.quality import check_chat
    from hf_chain.data.chat.rows import ChatSample, read_sample
    from hf_chain.data.chat.settings import ChatDataSettings, ResponseReweighting
    from hf_chain.data.chat.sources import ChatStream, load_chat
    from hf_chain.data.chat.template import ChatTemplate, train_chat_tokenizer

_MODULES = {
    "ChatCollator": "collator",
    "ChatDataSettings": "settings",
    "ChatEncoder": "encoder",
    "ChatSample": "rows",
    "ChatStream": "sources",
    "ChatTemplate": "template",
    "PackedRows": "collator",
    "PackedStream": "collator",
    "ResponseReweighting": "settings",
    "check_chat": "quality",
    "check_packing": "collator",
    "load_chat": "sources",
    "pack_lengths": "collator",
    "read_sample": "rows",
    "train_chat_tokenizer": "template",
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
