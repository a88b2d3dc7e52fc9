"""The metric that sums up the models of a graft: the first that tells them apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig

from hf_chain.errors import HfChainError
from hf_chain.grafting.shards import open_checkpoint
from hf_chain.loaded_weights import check_loaded, read_model
from hf_chain.models.grafted_vlm import GraftedVLMConfig, GraftedVLMForConditionalGeneration, GraftedVLMProcessor
from hf_chain.models.grafted_vlm.language_models import named_errors


def load_grafted(name: str) -> tuple[GraftedVLMForConditionalGeneration, GraftedVLMProcessor]:
    """A grafted model with all its weights, on the GPUs where there are some, and its processor.

    Args:
        name (`str`): folder or Hub name.

    Raises:
        HfChainError: when it is no grafted model, or something of it is missing or cannot be read.
    """
    check_checkpoint(name)
    _check_grafted(name)
    with named_errors("grafted model", name):
        model, found = read_model(
            GraftedVLMForConditionalGeneration, name, dtype="auto", use_safetensors=True, **on_gpus()
        )
    check_loaded(model, found, name)
    return model.eval(), load_processor(name)


def load_processor(name: str) -> GraftedVLMProcessor:
    """The processor that stands beside a grafted model.

    Raises:
        HfChainError: when it is not there or cannot be read, or stands beside another model.
    """
    _check_grafted(name)
    with named_errors("processor of", name):
        return GraftedVLMProcessor.from_pretrained(name)


def _check_grafted(name: str) -> None:
    with named_errors("grafted model", name):
        config = AutoConfig.from_pretrained(name)
    if not isinstance(config, GraftedVLMConfig):
        raise HfChainError(f"{name} is a {config.model_type}, no grafted model: give what a stage of a graft saved")


def check_checkpoint(name: str, revision: str | None = None) -> None:
    """Refuses a model without weights in safetensors, and shards that are missing, cut short or encrypted.

    Args:
        name (`str`): folder or Hub name.
        revision (`str`, *optional*): branch, tag or commit on the Hub.

    Raises:
        HfChainError: naming the file.
    """
    checkpoint = open_checkpoint(name, revision)
    checkpoint.tensors(checkpoint.shards())


def on_gpus() -> dict[str, Any]:
    """Arguments of `from_pretrained` that spread a model over the GPUs; none where there is no GPU."""
    return {"device_map": "auto"} if torch.cuda.is_available() else {}


Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Headline:
    """A metric, and how it is read.

    Attributes:
        name (`str`): What evaluations call it.
        title (`str`): What tables call it.
        label (`str`): What stands behind a number of it.
        scale (`float`): What a value is shown times.
        digits (`int`): Decimals of what is shown.
        unit (`str`): What follows a value.
        difference (`str`): What follows a difference of two.
        lower_is_better (`bool`): Whether less is better.
    """

    name: str
    title: str
    label: str
    scale: float = 100.0
    digits: int = 1
    unit: str = " %"
    difference: str = " points"
    lower_is_better: bool = False

    def text(self, value: float | None) -> str:
        """A value for people, such as `57.4 %`."""
        return "–" if value is None or not math.isfinite(value) else f"{self._shown(value)}{self.unit}"

    def change(self, before: float, after: float) -> str:
        """What came of a value, such as `+2.1 points`, or `no change` where both read the same."""
        if self._shown(before) == self._shown(after):
            return "no change"
        return f"{self.scale * (after - before):+.{self.digits}f}{self.difference}"

    def is_floor(self, values: Sequence[float]) -> bool:
        """Whether all values read 0."""
        return not self.lower_is_better and all(self._shown(value) == self._shown(0.0) for value in values)

    def moves(self, values: Sequence[float]) -> bool:
        """Whether values differ where they are read; one alone need only be above 0."""
        return not self.is_floor(values) and (len(values) < 2 or len(set(map(self._shown, values))) > 1)

    def best(self, values: Sequence[float]) -> float:
        """The best value."""
        return min(values) if self.lower_is_better else max(values)

    def _shown(self, value: float) -> str:
        return f"{self.scale * value:.{self.digits}f}"


EXACT = Headline("exact_match", "exact match", "right answers")
LOSS = Headline(
    "response_loss",
    "response loss",
    "a token of the responses, less is better",
    scale=1.0,
    digits=3,
    unit=" nats",
    difference=" nats",
    lower_is_better=True,
)
RESPONSES = Headline("response_cider_d", "CIDEr-D × 100 of responses", "CIDEr-D × 100", unit="", difference="")
CAPTIONS = Headline("cider_d", "CIDEr-D × 100", "CIDEr-D × 100", unit="", difference="")
HEADLINES = (EXACT, LOSS, RESPONSES, CAPTIONS)


def headline_of(measured: Sequence[Metrics]) -> Headline:
    """The metric that sums models up: the first of `HEADLINES` that moves, or else one that is not 0 for all.

    Where responses are long, hardly any is said word for word, and exact match comes last.

    Args:
        measured (`Sequence[Mapping[str, float]]`): Metrics of every model on the same data.
    """
    values = {one: _values(one.name, measured) for one in HEADLINES}
    known = [one for one in HEADLINES if values[one]]
    if RESPONSES in known:
        known.sort(key=lambda one: one is EXACT)
    moving = [one for one in known if one.moves(values[one])]
    above = [one for one in known if not one.is_floor(values[one])]
    return next(iter([*moving, *above, *known]), EXACT)


def at_floor(measured: Sequence[Metrics]) -> list[Headline]:
    """Metrics that are 0 for every model, and so tell nothing of any.

    Args:
        measured (`Sequence[Mapping[str, float]]`): Metrics of every model on the same data.
    """
    found = ((one, _values(one.name, measured)) for one in HEADLINES)
    return [one for one, values in found if values and one.is_floor(values)]


def floor_sentences(measured: Sequence[Metrics], split: str) -> list[str]:
    """A sentence for each metric that tells nothing.

    Args:
        measured (`Sequence[Mapping[str, float]]`): Metrics of every model.
        split (`str`): Data they are on.
    """
    return [
        f"{one.title[0].upper()}{one.title[1:]} on {split} is {one.text(0.0)} for every model: it is at its floor, and"
        " tells nothing of them."
        for one in at_floor(measured)
    ]


def _values(name: str, measured: Sequence[Metrics]) -> list[float]:
    return [found[name] for found in measured if math.isfinite(found.get(name, math.nan))]
