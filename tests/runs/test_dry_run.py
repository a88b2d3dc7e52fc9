"""What a training needs is tried before it begins: whatever does not work here is one line that names it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import PartialState
from transformers.integrations.deepspeed import deepspeed_config
from transformers.training_args import OptimizerNames

from hf_chain.errors import HfChainError
from hf_chain.grafting.translator.translator_config import TranslatorConfig
from hf_chain.runs.training_checks import try_training, warn_of_no_learning
from hf_chain.trainer import ChainConfig
from hf_chain.trainer.graft_config import GraftConfig

WRONG = [
    ({"optim": "adamw_bnb_8bit"}, "optim 'adamw_bnb_8bit' does not work here: You need to install `bitsandbytes`"),
    ({"optim": "galore_adamw", "optim_target_modules": ["fc1"]}, "optim 'galore_adamw' does not work here"),
    ({"optim_args": "momentum"}, "optim 'adamw_torch_fused' does not work here"),
    ({"optim": "sgd", "adam_beta2": 0.95}, "adam_beta2 is 0.95 and would do nothing with optim 'sgd'"),
    (
        {"optim": "adafactor", "adam_epsilon": 1e-6},
        "adam_epsilon is 1e-06 and would do nothing with",
    ),
    ({"lr_scheduler_type": "cosine_with_min_lr"}, "'cosine_with_min_lr' does not work here: One of min_lr"),
    ({"lr_scheduler_type": "warmup_stable_decay"}, "'warmup_stable_decay' does not work here: .*num_decay_steps"),
    ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cyclez": 1}}, "'cosine' does not .*num_cyclez"),
    ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "x"}}, "'cosine' does not work here"),
    ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1.0}}, r"lr_end \(1.0\) must be smaller"),
    ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "'reduce_lr_on_plateau', which follows evaluations"),
    ({"lr_scheduler_type": "greedy"}, "'greedy', which follows evaluations"),
    ({"torch_compile": True, "torch_compile_backend": "fast"}, "torch_compile_backend .*'fast'"),
    (
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"x": 1}},
        "gradient_checkpointing_kwargs does",
    ),
    ({"accelerator_config": {"split_batch": True}}, "does not work here: .*split_batch"),
    ({"accelerator_config": {"split_batches": True}}, "accelerator_config has split_batches"),
    ({"accelerator_config": "none.json"}, "No such file or directory: 'none.json'"),
    ({"dataloader_prefetch_factor": 2}, "prefetch_factor"),
    ({"ddp_backend": "ncll"}, "ddp_backend is 'ncll', which this torch does not have"),
    ({"debug": "overflow"}, "does not work here: overflow is not a valid DebugOption"),
    ({"deepspeed": {"train_batch_size": 7}}, "DeepSpeed configuration .*contradicts training: .*train_batch_size=7"),
    ({"deepspeed": [1]}, "deepspeed holds list, not a mapping"),
]
ON_A_CPU = [
    ({"fp16": True, "bf16": False}, "fp16 is true, which needs a GPU"),
    ({"tf32": True}, "does not work here: --tf32 requires Ampere"),
]


@pytest.mark.parametrize(("values", "words"), WRONG)
def test_what_does_not_work_is_one_line_that_names_it(values: dict[str, Any], words: str) -> None:
    with pytest.raises(HfChainError, match=words) as error:
        try_training(ChainConfig, values, steps=100)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_engine_is_compared_with_the_batch_of_all_processes(processes: int) -> None:
    values = {"per_device_train_batch_size": 8, "deepspeed": {"train_batch_size": 8 * processes}}
    try_training(ChainConfig, values, steps=100, processes=processes)
    with pytest.raises(HfChainError, match=f"contradicts training: .*train_batch_size={8 * processes}"):
        try_training(ChainConfig, values, steps=100, processes=3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize(("values", "words"), ON_A_CPU)
@pytest.mark.parametrize("config", [ChainConfig, GraftConfig, TranslatorConfig])
def test_what_needs_a_gpu_is_refused_without_one(config: Any, values: dict[str, Any], words: str) -> None:
    with pytest.raises(HfChainError, match=words):
        try_training(config, values | ({"parts": {"adapter": 1e-3}} if config is GraftConfig else {}), steps=100)


@pytest.mark.parametrize("optim", [name.value for name in OptimizerNames])
def test_every_optimizer_works_or_says_what_is_missing(optim: str) -> None:
    try:
        try_training(ChainConfig, {"optim": optim}, steps=100)
    except HfChainError as error:
        assert optim in str(error) and any(word in str(error).lower() for word in ("install", "import", "need"))


@pytest.mark.parametrize("content", ["{", "[1]", "\x00"])
def test_an_engine_file_that_holds_no_configuration_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "engine.json").write_text(content)
    with pytest.raises(HfChainError, match="deepspeed (is no configuration that can be read|holds list)"):
        try_training(ChainConfig, {"deepspeed": str(tmp_path / "engine.json")}, steps=100)


def test_nothing_is_started_and_nothing_left_behind(tmp_path: Path) -> None:
    engine = {"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": "auto"}
    (tmp_path / "engine.json").write_text(json.dumps(engine))
    state, variables, random = dict(PartialState._shared_state), dict(os.environ), torch.get_rng_state()
    try_training(ChainConfig, {"deepspeed": str(tmp_path / "engine.json"), "adam_epsilon": 1e-6}, steps=100)
    try_training(GraftConfig, {"parts": {"adapter": 1e-3}, "lr_scheduler_type": "cosine_with_restarts"}, steps=1)
    assert dict(PartialState._shared_state) == state and dict(os.environ) == variables and deepspeed_config() is None
    assert torch.equal(torch.get_rng_state(), random) and not list(tmp_path.glob("*/"))


def test_a_training_that_learns_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_no_learning("members.tiny", [0.0], 0.1, 10)
    warn_of_no_learning("members.small", [1e-3, 0.0], 10, 10)
    assert [text.split(",")[0] for text in caplog.messages] == [
        "members.tiny: learning_rate is 0",
        "members.small: warmup_steps is 10 and the training has 10 steps",
    ]
    warn_of_no_learning("members.base", [1e-3], 0.9, 10)
    warn_of_no_learning("members.large", [1e-3], 9, 10)
    assert len(caplog.messages) == 2
