"""Image–text pairs and texts: sources, data sets and streams, tokenizers, collators, and scenes that need no download.

Names are imported when they are used: a recipe needs `DataSettings` alone, which must not start torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.data.captions import class_names
    from hf_chain.data.collator import ImageCollator, ImageTextCollator
    from hf_chain.data.dataset import ImageDataset, ImageStream, ImageTextDataset, ImageTextStream
    from hf_chain.data.prompts import PROMPT_TEMPLATES, resolve_templates
    from hf_chain.data.quality import QualityReport, check_quality
    from hf_chain.data.settings import (
        AugmentationSettings,
        DataSettings,
        ImageSettings,
        MultiLabelSettings,
        ScenesSettings,
    )
    from hf_chain.data.sources import load_splits, rows_in_memory
    from hf_chain.data.text_rows import PackedTextDataset, PackedTextStream, collate_rows
    from hf_chain.data.text_settings import TextSettings
    from hf_chain.data.text_tokenizer import load_text_tokenizer, train_text_tokenizer
    from hf_chain.data.tokenizer import (
        build_processor,
        load_tokenizer,
        padded_processor,
        towers_processor,
        train_tokenizer,
    )

_MODULES = {
    "PROMPT_TEMPLATES": "prompts",
    "AugmentationSettings": "settings",
    "DataSettings": "settings",
    "ImageCollator": "collator",
    "ImageDataset": "dataset",
    "ImageSettings": "settings",
    "ImageStream": "dataset",
    "ImageTextCollator": "collator",
    "ImageTextDataset": "dataset",
    "ImageTextStream": "dataset",
    "MultiLabelSettings": "settings",
    "PackedTextDataset": "text_rows",
    "PackedTextStream": "text_rows",
    "QualityReport": "quality",
    "ScenesSettings": "settings",
    "TextSettings": "text_settings",
    "build_processor": "tokenizer",
    "check_quality": "quality",
    "class_names": "captions",
    "collate_rows": "text_rows",
    "load_splits": "sources",
    "load_text_tokenizer": "text_tokenizer",
    "load_tokenizer": "tokenizer",
    "padded_processor": "tokenizer",
    "resolve_templates": "prompts",
    "rows_in_memory": "sources",
    "towers_processor": "tokenizer",
    "train_text_tokenizer": "text_tokenizer",
    "train_tokenizer": "tokenizer",
}

__all__ = [
    "PROMPT_TEMPLATES",
    "AugmentationSettings",
    "DataSettings",
    "ImageCollator",
    "ImageDataset",
    "ImageSettings",
    "ImageStream",
    "ImageTextCollator",
    "ImageTextDataset",
    "ImageTextStream",
    "MultiLabelSettings",
    "PackedTextDataset",
    "PackedTextStream",
    "QualityReport",
    "ScenesSettings",
    "TextSettings",
    "build_processor",
    "check_quality",
    "class_names",
    "collate_rows",
    "load_splits",
    "load_text_tokenizer",
    "load_tokenizer",
    "padded_processor",
    "resolve_templates",
    "rows_in_memory",
    "towers_processor",
    "train_text_tokenizer",
    "train_tokenizer",
]

__getattr__ = lazy_names(__name__, _MODULES)
