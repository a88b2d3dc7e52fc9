"""`bf16: auto` takes bfloat16 where the machine has instructions for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from hf_chain import ChainConfig, GraftConfig, HfChainError
from hf_chain.arguments.precision import native_bfloat16

CPUINFO = Path("/proc/cpuinfo")
CONFIGS = [ChainConfig, partial(GraftConfig, parts=["adapter"])]


@pytest.mark.skipif(not CPUINFO.is_file(), reason="needs /proc/cpuinfo to compare with")
def test_bfloat16_of_the_cpu_is_what_the_system_says() -> None:
    flags = set(CPUINFO.read_text().replace(":", " ").split())
    assert native_bfloat16(use_cpu=True) == bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("native", [True, False])
def test_auto_follows_the_machine(config: Callable, native: bool, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": native}, raising=False)
    assert config(output_dir=str(tmp_path), use_cpu=True, bf16="auto").bf16 is native


@pytest.mark.parametrize("config", CONFIGS)
def test_imitated_bfloat16_is_done_with_a_warning(config: Callable, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    with caplog.at_level(logging.WARNING):
        assert config(output_dir=str(tmp_path), use_cpu=True, bf16=True).bf16 is True
    assert "bf16=auto" in caplog.text


@pytest.mark.parametrize("config", CONFIGS)
def test_other_words_are_refused(config: Callable, tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="bf16 is 'fast'; give true, false or auto"):
        config(output_dir=str(tmp_path), use_cpu=True, bf16="fast")
