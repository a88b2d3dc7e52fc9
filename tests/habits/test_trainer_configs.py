"""Habits of users of `TrainingArguments`, tried on every configuration of ours and on the stock class beside them.

A new public configuration needs a row in `CONFIGS` and gets them all.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

import hf_chain.grafting.translator
import hf_chain.trainer
from hf_chain.arguments.precision import native_bfloat16
from hf_chain.errors import HfChainError
from hf_chain.grafting.translator import TranslatorConfig
from hf_chain.trainer import ChainConfig, GraftConfig

CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ChainConfig": (ChainConfig, {}),
    "GraftConfig": (GraftConfig, {"parts": {"adapter": 1e-4}, "bf16": False}),
    "TranslatorConfig": (TranslatorConfig, {}),
    "TrainingArguments": (TrainingArguments, {}),
}
"""Name -> class, and the fields that it cannot do without."""
every = pytest.mark.parametrize(("config", "fields"), CONFIGS.values(), ids=CONFIGS)
ours = pytest.mark.parametrize(("config", "fields"), list(CONFIGS.values())[:-1], ids=list(CONFIGS)[:-1])


def options(folder: Path, fields: dict[str, Any], *more: str) -> list[str]:
    """What a user types."""
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    typed = [item for name, value in text.items() for item in (f"--{name}", value)]
    return ["--output_dir", str(folder), "--use_cpu", *typed, *more]


def test_every_public_configuration_has_these_habits() -> None:
    public = {*hf_chain.trainer.__all__, *hf_chain.grafting.translator.__all__}
    assert {name for name in public if name.endswith("Config")} == CONFIGS.keys() - {"TrainingArguments"}


@every
def test_the_argument_parser_takes_what_is_typed(config: Any, fields: dict[str, Any], tmp_path: Path) -> None:
    typed = options(tmp_path, fields, "--learning_rate", "1e-4", "--save_steps", "7", "--lr_scheduler_type", "cosine")
    (args,) = HfArgumentParser(config).parse_args_into_dataclasses(typed)
    made = config(str(tmp_path), use_cpu=True, learning_rate=1e-4, save_steps=7, lr_scheduler_type="cosine", **fields)
    assert args.to_dict() == made.to_dict()


@every
def test_bf16_is_typed_as_everywhere(config: Any, fields: dict[str, Any], tmp_path: Path) -> None:
    rest = {name: value for name, value in fields.items() if name != "bf16"}
    cases = [(["--bf16"], True), (["--bf16", "true"], True), (["--bf16", "False"], False), (["--bf16", "0"], False)]
    cases += [(["--bf16", "auto"], native_bfloat16(use_cpu=True))] * (config in (ChainConfig, GraftConfig))
    for typed, expected in cases:
        (args,) = HfArgumentParser(config).parse_args_into_dataclasses(options(tmp_path, rest, *typed))
        assert args.bf16 is expected


def test_what_is_no_switch_is_no_bf16(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        HfArgumentParser(ChainConfig).parse_args_into_dataclasses(options(tmp_path, {"bf16": "fast"}))
    assert "argument --bf16" in capsys.readouterr().err


@every
@pytest.mark.parametrize("kind", ["dict", "yaml", "json"])
def test_the_argument_parser_takes_dictionaries_and_files(
    config: Any, fields: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    values = {"output_dir": str(tmp_path), "use_cpu": True, "learning_rate": 5e-4, "max_steps": 3} | fields
    parser, file = HfArgumentParser(config), tmp_path / f"args.{kind}"
    file.write_text(yaml.safe_dump(values) if kind == "yaml" else json.dumps(values))
    read = {"yaml": parser.parse_yaml_file, "json": parser.parse_json_file}
    (args,) = parser.parse_dict(values) if kind == "dict" else read[kind](file)
    assert args.to_dict() == config(**values).to_dict()


@ours
def test_numbers_that_yaml_reads_as_text_are_numbers(config: Any, fields: dict[str, Any], tmp_path: Path) -> None:
    """YAML 1.1 wants a dot in `1e-4`."""
    file = tmp_path / "args.yaml"
    own = {GraftConfig: "parts: {adapter: 1e-3}\n", ChainConfig: "feature_loss_weight: 1e2\n"}
    bf16 = "bf16: auto\n" if config in own else ""
    numbers = "learning_rate: 1e-4\nmax_steps: 1e3\n"
    file.write_text(f"output_dir: {tmp_path}\nuse_cpu: true\n{bf16}{numbers}{own.get(config, '')}")
    (args,) = HfArgumentParser(config).parse_yaml_file(file)
    assert args.learning_rate == 1e-4 and args.max_steps == 1000 and isinstance(args.max_steps, int)
    assert args.bf16 is (native_bfloat16(use_cpu=True) if bf16 else False)
    assert getattr(args, "parts", {"adapter": 1e-3}) == {"adapter": 1e-3}
    assert getattr(args, "feature_loss_weight", 100) == 100


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ('{"adapter": 1e-3, "encoder.last:2": null}', {"adapter": 1e-3, "encoder.last:2": None}),
        ('["adapter", "lora"]', ["adapter", "lora"]),
        ("adapter, encoder.last:2", ["adapter", "encoder.last:2"]),
        ("*.layers.[01].*", ["*.layers.[01].*"]),
    ],
)
def test_parts_are_typed_as_json_or_as_names(typed: str, expected: Any, tmp_path: Path) -> None:
    lora = ["--lora", '{"r": 4, "target_modules": ["q_proj"]}']
    parser = HfArgumentParser(GraftConfig)
    (args,) = parser.parse_args_into_dataclasses(options(tmp_path, {"parts": typed, "bf16": "false"}, *lora))
    assert args.parts == expected and args.lora == {"r": 4, "target_modules": ["q_proj"]}
    (args,) = parser.parse_dict({"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "parts": typed})
    assert args.parts == expected


def test_parts_and_lora_that_are_no_json_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for typed in (
        {"parts": '{"adapter": }'},
        {"parts": "adapter", "lora": "r=4"},
        {"parts": "adapter", "lora": "[4]"},
    ):
        with pytest.raises(SystemExit):
            HfArgumentParser(GraftConfig).parse_args_into_dataclasses(options(tmp_path, typed))
        assert f"argument --{list(typed)[-1]}: {list(typed)[-1]} is " in capsys.readouterr().err
    with pytest.raises(HfChainError, match="^lora is 'r=4', which is no JSON"):
        GraftConfig(str(tmp_path), use_cpu=True, parts=["adapter"], lora="r=4")
    with pytest.raises(SystemExit):
        HfArgumentParser(GraftConfig).parse_args_into_dataclasses(["--help"])
    assert "--parts" in capsys.readouterr().out


@every
def test_arguments_are_copied_changed_and_written(config: Any, fields: dict[str, Any], tmp_path: Path) -> None:
    args = config(str(tmp_path), use_cpu=True, **fields)
    assert copy.deepcopy(args).to_dict() == args.to_dict()
    assert dataclasses.replace(args, learning_rate=0.5).learning_rate == 0.5
    assert config(**args.to_dict()).to_dict() == args.to_dict()
    assert json.loads(args.to_json_string())["seed"] == 42
    assert all(isinstance(value, (bool, int, float, str, torch.Tensor)) for value in args.to_sanitized_dict().values())
    assert args.set_training(learning_rate=0.25, batch_size=4, num_epochs=2).learning_rate == 0.25
    torch.save(args, tmp_path / "training_args.bin")
    assert torch.load(tmp_path / "training_args.bin", weights_only=False).to_dict() == args.to_dict()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"label_smoothing_factor": 0.1}, "label_smoothing_factor is 0.1 and would do nothing"),
    ({"auto_find_batch_size": True}, "auto_find_batch_size is True and would do nothing"),
    ({"use_liger_kernel": True}, "use_liger_kernel is True and would do nothing"),
    ({"use_cache": True}, "use_cache is True and would do nothing"),
    ({"fsdp": "full_shard"}, "fsdp is True and would do nothing"),
    ({"remove_unused_columns": True}, "remove_unused_columns is true"),
    ({"label_names": ["captions"]}, "label_names is ..captions.., and"),
    ({"accelerator_config": {"split_batches": True}}, "accelerator_config has split_batches"),
    ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
    ({"warmup_steps": 2.5}, "warmup_steps is 2.5"),
]


@ours
@pytest.mark.parametrize(("values", "words"), REFUSED, ids=[next(iter(values)) for values, _ in REFUSED])
def test_fields_that_would_do_nothing_or_harm_are_refused(
    config: Callable[..., Any], fields: dict[str, Any], values: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(HfChainError, match=f"^{words}") as error:
        config(str(tmp_path), use_cpu=True, **(fields | values))
    assert "\n" not in str(error.value)


def test_what_only_some_cannot_follow_is_refused_there(tmp_path: Path) -> None:
    for config, fields in (CONFIGS["ChainConfig"], CONFIGS["GraftConfig"]):
        with pytest.raises(HfChainError, match="^logging_nan_inf_filter is True and would do nothing"):
            config(str(tmp_path), use_cpu=True, logging_nan_inf_filter=True, **fields)
    for name, value in (("neftune_noise_alpha", 5.0), ("train_sampling_strategy", "group_by_length")):
        with pytest.raises(HfChainError, match=f"^{name} is "):
            ChainConfig(str(tmp_path), use_cpu=True, **{name: value})
        GraftConfig(str(tmp_path), use_cpu=True, bf16=False, parts=["adapter"], **{name: value})
