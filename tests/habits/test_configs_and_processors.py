"""Habits of configurations and processors, ours beside those of stock CLIP and Llava."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, CLIPProcessor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from support.grafted_parts import photos
from support.habits import CONFIGS, PROCESSORS, classes
from support.hub_server import HubServer

Build = Callable[[], Any]


def config_of(build: Build) -> Any:
    config = copy.deepcopy(build())
    config.habit = "kept"
    return config


@classes(CONFIGS)
def test_a_configuration_goes_through_dictionaries_and_files(build: Build, tmp_path: Path) -> None:
    config = config_of(build)
    expected = config.to_dict()
    config.save_pretrained(tmp_path)
    config.to_json_file(tmp_path / "other.json")
    for found in (
        type(config).from_dict(expected),
        type(config).from_pretrained(tmp_path),
        type(config).from_json_file(tmp_path / "other.json"),
        AutoConfig.from_pretrained(tmp_path),
        copy.deepcopy(config),
        pickle.loads(pickle.dumps(config)),
    ):
        assert type(found) is type(config)
        assert found.to_dict() | {"_name_or_path": ""} == expected | {"_name_or_path": ""}
        assert found.habit == "kept"
    assert json.loads(config.to_json_string())["model_type"] == config.model_type


@classes(CONFIGS)
def test_a_configuration_has_defaults_and_a_type(build: Build) -> None:
    config_class = type(build())
    assert CONFIG_MAPPING[config_class.model_type] is config_class
    assert type(AutoConfig.for_model(config_class.model_type)) is config_class
    one, other = config_class(), config_class()
    assert one.to_dict() == other.to_dict() and one is not other
    one.text_config.hidden_size = 7
    assert other.text_config.hidden_size != 7 and config_class().text_config.hidden_size != 7


@classes(CONFIGS)
def test_parts_of_a_configuration_may_be_dictionaries_or_configurations(build: Build) -> None:
    config = build()
    parts = {name: getattr(config, name) for name in ("text_config", "vision_config")}
    rest = {key: value for key, value in config.to_dict().items() if key not in (*parts, "model_type")}
    plain = {name: part.to_dict() for name, part in parts.items()}
    made = [type(config)(**rest, **given) for given in (parts, plain)]
    assert made[0].to_dict() == made[1].to_dict() == config.to_dict()
    assert config.get_text_config().hidden_size == parts["text_config"].hidden_size


@classes(CONFIGS)
def test_a_configuration_refuses_other_types_and_takes_overrides(build: Build, tmp_path: Path) -> None:
    config = build()
    config.save_pretrained(tmp_path)
    assert type(config).from_pretrained(tmp_path, output_attentions=True).output_attentions
    found, unused = type(config).from_pretrained(tmp_path, return_unused_kwargs=True, no_such_field=3)
    assert unused == {"no_such_field": 3} and not hasattr(found, "no_such_field")
    with pytest.raises(Exception, match="text_config|initializer|logit|image_token"):
        type(config)(text_config=3)


@classes(CONFIGS)
def test_a_configuration_is_pushed(build: Build, hub: HubServer) -> None:
    config = config_of(build)
    config.push_to_hub("tester/config")
    assert type(AutoConfig.from_pretrained("tester/config")) is type(config)
    assert AutoConfig.from_pretrained("tester/config").habit == "kept"


# Processors


def processor_of(build: Build) -> Any:
    return copy.deepcopy(build())


def prompts(processor: Any) -> list[str]:
    image = "" if isinstance(processor, CLIPProcessor) else "<image> "
    return [f"{image}what is this", f"{image}what"]


def batch_of(processor: Any, **options: Any) -> Any:
    return processor(images=photos(2), text=prompts(processor), padding=True, **({"return_tensors": "pt"} | options))


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@classes(PROCESSORS)
def test_a_saved_processor_makes_the_same(build: Build, tmp_path: Path) -> None:
    processor = processor_of(build)
    processor.save_pretrained(tmp_path)
    expected = batch_of(processor)
    for found in (type(processor).from_pretrained(tmp_path), copy.deepcopy(processor)):
        assert type(found) is type(processor) and same(batch_of(found), expected)
        assert found.to_dict() == processor.to_dict()
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == processor.tokenizer.get_vocab()
    assert same(batch_of(pickle.loads(pickle.dumps(processor))), expected)


@classes(PROCESSORS)
def test_a_processor_is_pushed(build: Build, hub: HubServer) -> None:
    processor = processor_of(build)
    processor.push_to_hub("tester/processor")
    assert same(batch_of(type(processor).from_pretrained("tester/processor")), batch_of(processor))


@classes(PROCESSORS)
def test_auto_processor_finds_it(build: Build, tmp_path: Path) -> None:
    processor = processor_of(build)
    processor.save_pretrained(tmp_path)
    found = AutoProcessor.from_pretrained(tmp_path)
    assert type(found) is type(processor) and same(batch_of(found), batch_of(processor))


@classes(PROCESSORS)
def test_a_processor_makes_what_it_says(build: Build) -> None:
    processor = processor_of(build)
    batch = batch_of(processor)
    assert set(batch) <= set(processor.model_input_names)
    assert batch["pixel_values"].shape[0] == 2 and batch["input_ids"].shape == batch["attention_mask"].shape
    assert isinstance(batch_of(processor, return_tensors="np")["input_ids"], np.ndarray)
    assert isinstance(batch.to(torch.bfloat16)["pixel_values"], torch.Tensor)
    assert batch.to(torch.bfloat16)["pixel_values"].dtype == torch.bfloat16
    assert batch.to(torch.bfloat16)["input_ids"].dtype == torch.int64


@classes(PROCESSORS)
def test_a_processor_takes_text_or_images_alone(build: Build) -> None:
    processor = processor_of(build)
    text = processor(text="what is this", return_tensors="pt")
    assert set(text) == {"input_ids", "attention_mask"}
    assert set(processor(images=photos(1), return_tensors="pt")) == {"pixel_values"}
    one = processor(text=["what is this", "what"], padding="max_length", max_length=9, return_tensors="pt")
    assert one["input_ids"].shape == (2, 9)
    assert (
        processor(text="what is this", truncation=True, max_length=2, return_tensors="pt")["input_ids"].shape[1] == 2
    )
    for side in ("left", "right"):
        padded = processor(text=["what is this", "what"], padding=True, padding_side=side, return_tensors="pt")
        assert padded["attention_mask"][1].tolist() == sorted(
            padded["attention_mask"][1].tolist(), reverse=side == "right"
        )


@classes(PROCESSORS)
def test_images_of_many_kinds_are_taken(build: Build, tmp_path: Path) -> None:
    processor, (photo,) = processor_of(build), photos(1)
    expected = processor(images=photo, return_tensors="pt")["pixel_values"]
    for given in (photo, [photo], np.asarray(photo), torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)):
        assert torch.equal(processor(images=given, return_tensors="pt")["pixel_values"], expected)


@classes(PROCESSORS)
def test_a_processor_reads_tokens_back(build: Build) -> None:
    processor = processor_of(build)
    ids = processor(text=["what is this", "goldfish"])["input_ids"]
    told = [processor.decode(row, skip_special_tokens=True).strip() for row in ids]
    assert told == ["what is this", "goldfish"]
    assert [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)] == told


@classes({key: build for key, build in PROCESSORS.items() if key is not CLIPProcessor})
def test_chats_are_rendered_and_made_ready(build: Build) -> None:
    processor = processor_of(build)
    content = [{"type": "image", "image": photos(1)[0]}, {"type": "text", "text": "what is this"}]
    asked = [{"role": "user", "content": content}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    assert "<image>" in prompt and "what is this" in prompt and prompt.endswith("<assistant>")
    batch = processor.apply_chat_template(
        asked, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert {"input_ids", "attention_mask", "pixel_values"} <= set(batch)
    answered = [*asked, {"role": "assistant", "content": [{"type": "text", "text": "a goldfish"}]}]
    whole = processor.apply_chat_template(answered)
    assert whole.startswith(prompt) and "a goldfish" in whole
    going_on = processor.apply_chat_template(answered, continue_final_message=True)
    assert going_on.endswith("a goldfish")
    several = processor.apply_chat_template([asked, answered])
    assert several == [processor.apply_chat_template(one) for one in (asked, answered)]
    both = processor.apply_chat_template(
        [asked, answered], tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs={"padding": True}
    )
    assert both["input_ids"].shape[0] == 2 and both["pixel_values"].shape[0] == 2
    assert processor.apply_chat_template(asked, chat_template="{{ messages[0]['role'] }}") == "user"


@classes({key: build for key, build in PROCESSORS.items() if key is not CLIPProcessor})
def test_images_and_their_tokens_fit(build: Build) -> None:
    processor = processor_of(build)
    ids = processor(images=photos(3), text=["<image> what", "<image> is <image>"], padding=True)["input_ids"]
    counts = [row.count(processor.image_token_id) for row in ids]
    assert counts[1] == 2 * counts[0] > 2
