"""The table of classes whose habits are tested: a new class gets them all by its line here.

Stock Llava and CLIP stand beside ours as controls: what they do not do is asked of nobody.
"""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaProcessor,
    PreTrainedModel,
)

from hf_chain.grafting.export_llava import export_llava
from hf_chain.models import (
    ChainCLIPConfig,
    ChainCLIPModel,
    GraftedVLMConfig,
    GraftedVLMForConditionalGeneration,
    GraftedVLMProcessor,
)
from hf_chain.models.grafted_vlm import GraftedVLMImageModel, GraftedVLMModel
from support.chain_clips import clip_inputs, tiny_clip
from support.grafted_parts import image_processor, photos, tiny_parts, tiny_tokenizer

PROMPTS = ["what is this <image>", "<image> is <image> a goldfish ?"]
GREEDY: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """A class of models, how to build a random one, and a batch of two for it."""

    model_class: type[PreTrainedModel]
    build: Callable[[], PreTrainedModel]
    inputs: Callable[[], Batch]
    processor_class: type
    control: bool = False

    def model(self) -> Any:
        """A copy to do with as one likes."""
        return copy.deepcopy(_built(self.build)).eval()

    @property
    def name(self) -> str:
        """Of the class."""
        return self.model_class.__name__

    @property
    def generates(self) -> bool:
        """Whether it answers."""
        return self.model_class.can_generate()

    @property
    def reads(self) -> bool:
        """Whether a language model is in it."""
        return "inputs_embeds" in inspect.signature(self.model_class.forward).parameters


_built = cache(lambda build: build())


@cache
def grafted() -> tuple[GraftedVLMForConditionalGeneration, GraftedVLMProcessor]:
    """A whole grafted model, and its processor. Do not change them."""
    return tiny_parts(decoder_fields={"vocab_size": 64})


@cache
def llava() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The same as a stock Llava. Do not change them."""
    with tempfile.TemporaryDirectory() as folder:
        folder = f"{folder}/llava"
        export_llava(copy.deepcopy(grafted()[0]), grafted()[1], folder)
        return LlavaForConditionalGeneration.from_pretrained(folder), LlavaProcessor.from_pretrained(folder)


def vlm_inputs(processor: Any, rows: slice = slice(0, 2)) -> Batch:
    """Prompts with one and with two images."""
    prompts = PROMPTS[rows]
    if isinstance(processor, LlavaProcessor):
        prompts = [prompt.replace("<image>", "<image_start><image><image_end>") for prompt in prompts]
    first = sum(prompt.count("<image>") for prompt in PROMPTS[: rows.start])
    images = photos(3)[first : first + sum(prompt.count("<image>") for prompt in prompts)]
    return dict(processor(text=prompts, images=images, padding=True, return_tensors="pt"))


def _captions() -> Batch:
    batch = clip_inputs()
    return {name: value if name == "pixel_values" else value.unsqueeze(1) for name, value in batch.items()}


def _pixels() -> Batch:
    return {"pixel_values": vlm_inputs(grafted()[1])["pixel_values"][:2]}


def _chain_clip() -> ChainCLIPModel:
    return ChainCLIPModel.from_clip(tiny_clip(), 24)


def _image_half() -> GraftedVLMImageModel:
    half = GraftedVLMImageModel(copy.deepcopy(grafted()[0].config))
    half.load_state_dict(
        {name: weight for name, weight in grafted()[0].state_dict().items() if name in half.state_dict()}
    )
    return half


def _own_batch() -> Batch:
    return vlm_inputs(grafted()[1])


def _llava_batch() -> Batch:
    return vlm_inputs(llava()[1])


CASES = [
    Case(CLIPModel, tiny_clip, clip_inputs, CLIPProcessor, control=True),
    Case(ChainCLIPModel, _chain_clip, _captions, CLIPProcessor),
    Case(LlavaForConditionalGeneration, lambda: llava()[0], _llava_batch, LlavaProcessor, control=True),
    Case(LlavaModel, lambda: llava()[0].base_model, _llava_batch, LlavaProcessor, control=True),
    Case(GraftedVLMForConditionalGeneration, lambda: grafted()[0], _own_batch, GraftedVLMProcessor),
    Case(GraftedVLMModel, lambda: grafted()[0].base_model, _own_batch, GraftedVLMProcessor),
    Case(GraftedVLMImageModel, _image_half, _pixels, GraftedVLMProcessor),
]
CONFIGS: dict[type, Callable[[], Any]] = {
    CLIPConfig: lambda: tiny_clip().config,
    ChainCLIPConfig: lambda: _chain_clip().config,
    LlavaConfig: lambda: llava()[0].config,
    GraftedVLMConfig: lambda: grafted()[0].config,
}
"""Class of a configuration -> one with few defaults in it."""
PROCESSORS: dict[type, Callable[[], Any]] = {
    CLIPProcessor: lambda: CLIPProcessor(image_processor(), tiny_tokenizer()),
    LlavaProcessor: lambda: llava()[1],
    GraftedVLMProcessor: lambda: grafted()[1],
}
"""Class of a processor -> one."""


def models(which: Callable[[Case], bool] = lambda case: True, **fails: str) -> pytest.MarkDecorator:
    """One test for each class of models that has what the habit is about.

    Args:
        which (`Callable`): what the habit needs.
        fails: class -> why it does not have the habit. A class of ours stands here only where its control does.
    """
    rows = [
        pytest.param(
            case, id=case.name, marks=[pytest.mark.xfail(reason=fails[case.name])] if case.name in fails else []
        )
        for case in CASES
        if which(case)
    ]
    return pytest.mark.parametrize("case", rows)


def classes(table: dict[type, Callable[[], Any]]) -> pytest.MarkDecorator:
    """One test for each class of a table."""
    return pytest.mark.parametrize("build", [pytest.param(build, id=key.__name__) for key, build in table.items()])


def tensors(output: Any) -> list[torch.Tensor]:
    """All tensors of an output in order, without caches."""
    if isinstance(output, torch.Tensor):
        return [output]
    parts: Iterable[Any] = output.values() if isinstance(output, dict) else output
    if not isinstance(output, dict | tuple | list):
        return []
    return [tensor for part in parts for tensor in tensors(part)]


def assert_same(found: Any, expected: Any, **tolerance: float) -> None:
    """Outputs are equal; within a tolerance where one is given."""
    pairs = list(zip(tensors(found), tensors(expected), strict=True))
    assert pairs
    for one, other in pairs:
        torch.testing.assert_close(one, other, **(tolerance or {"rtol": 0, "atol": 0}))


def visible(case: Case, output: Any) -> torch.Tensor:
    """The first tensor of an output, where nothing is padded."""
    (first, *_), mask = tensors(output), case.inputs().get("attention_mask")
    return first[mask.bool()] if case.reads and mask is not None else first


def loss_of(model: Any, batch: Batch) -> torch.Tensor:
    """A number that depends on all that a model gives."""
    return sum(tensor.float().square().mean() for tensor in tensors(model(**batch)) if tensor.is_floating_point())
