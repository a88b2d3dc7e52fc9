"""`gradient_checkpointing` is what recipes say; releases that call it otherwise do not warn of it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from hf_chain.arguments.checkpointing import CHECKPOINTING
from hf_chain.grafting.translator import TranslatorConfig
from hf_chain.trainer import ChainConfig
from hf_chain.trainer.graft_config import GraftConfig

OF_THIS_RELEASE = next(name for name in CHECKPOINTING if name in TrainingArguments.__dataclass_fields__)
OPTIONS = {"use_reentrant": False}


@pytest.mark.parametrize("name", CHECKPOINTING)
@pytest.mark.parametrize(
    ("kind", "fields"), [(ChainConfig, {}), (GraftConfig, {"parts": ["adapter"]}), (TranslatorConfig, {})]
)
def test_either_name_means_the_same_without_a_warning(
    kind: Any, fields: dict[str, Any], name: str, tmp_path: Path
) -> None:
    if name not in TrainingArguments.__dataclass_fields__:
        pytest.skip(f"this release of transformers has no {name}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        config = kind(str(tmp_path), use_cpu=True, bf16=False, **fields, **{name: True, f"{name}_kwargs": OPTIONS})
    assert getattr(config, OF_THIS_RELEASE) is True and getattr(config, f"{OF_THIS_RELEASE}_kwargs") == OPTIONS


def test_without_a_word_nothing_is_checkpointed(tmp_path: Path) -> None:
    assert not getattr(ChainConfig(str(tmp_path), use_cpu=True, bf16=False), OF_THIS_RELEASE)
