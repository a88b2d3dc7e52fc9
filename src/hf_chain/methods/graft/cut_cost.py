"""What finding a cut and making its translators will cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM

from hf_chain.cost.macs import decoder_macs
from hf_chain.cost.steps import Segment, training_macs
from hf_chain.grafting.cut import CHOOSING
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.ranges import LayerRange
from hf_chain.grafting.translator.fit import method_steps
from hf_chain.grafting.translator.least_squares import calibration_passes, equation_macs
from hf_chain.grafting.translator.splice_runs import kept_texts
from hf_chain.grafting.whole_model import named_dtype
from hf_chain.methods.graft.parts_of_recipe import SurrogateSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class CutCost:
    """Args:
    settings (`SurrogateSettings`): how the cut is chosen and mended.
    target (`PreTrainedConfig`): the target's decoder.
    surrogate (`PreTrainedConfig`): the surrogate's, with its lineage.
    tokens (`int`): mean length of the text.
    """

    settings: SurrogateSettings
    target: PreTrainedConfig
    surrogate: PreTrainedConfig
    tokens: int

    @property
    def cut(self) -> int:
        """MACs of choosing the ranges; none where they are named."""
        if self.settings.replaced not in CHOOSING:
            return 0
        # Each layer's state goes through the head, at every position but the last.
        heads = (self.target.num_hidden_layers + 1) * (self.tokens - 1) + 1
        sample = decoder_macs(self.target, self.tokens, head=False) + heads * decoder_macs(self.target, 1, layers=())
        macs = self.settings.calibration.samples * sample
        if self.settings.replaced == "splice_error":
            # A translator is fitted for every beginning that a range may have.
            macs += (self.target.num_hidden_layers - 1) * self._closed_form
        return macs

    @property
    def translator(self) -> int:
        """MACs of making the translators."""
        return sum(map(self._method, method_steps(self.settings.translator)))

    def _method(self, name: str) -> int:
        kind, _, objective = name.partition(":")
        if kind == "inherit":
            return 0
        if kind == "closed_form":
            return self._closed_form
        return self._training(objective or self.settings.translator_training.get("objective", "hidden"))

    @property
    def _splices(self) -> list[tuple[LayerRange, int]]:
        """The ranges, and the surrogate's last layer that stands in for each."""
        lineage = read_lineage(self.surrogate)
        ends = lineage.translator_layers[lineage.translators - 1 :: lineage.translators]
        return list(zip(lineage.replaced, ends, strict=True))

    @property
    def _closed_form(self) -> int:
        return self.closed_form(self.settings.calibration.translator_samples)

    def closed_form(self, samples: int, embedded: bool = False) -> int:
        """MACs of fitting all translators in closed form, on so many texts, which may come as embeddings."""
        whole = self.whole_runs(samples, embedded)
        again = samples * calibration_passes(self.surrogate) - whole
        return sum(
            whole * (self._forward(self.target, range(span.last + 1)) + self._forward(self.surrogate, range(end + 1)))
            + again * self._forward(self.surrogate, [end])
            for span, end in self._splices
        ) + equation_macs(self._decoder, samples * self.tokens)

    @cached_property
    def _decoder(self) -> PreTrainedModel:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(self.surrogate)

    def whole_runs(self, samples: int, embedded: bool = False) -> int:
        """How often texts are run from their embeddings on to fit one translator: once where they are kept."""
        dtype = named_dtype(self.target) or torch.float32
        kept = min(samples, kept_texts(self.target.hidden_size, self.tokens, dtype.itemsize, embedded))
        return kept + (samples - kept) * calibration_passes(self.surrogate)

    def _training(self, objective: str) -> int:
        whole, (span, end) = objective != "hidden", self._splices[-1]
        trained = read_lineage(self.surrogate).translator_layers
        layers = range(self.surrogate.num_hidden_layers if whole else end + 1)
        segments = [Segment(str(i), self._forward(self.surrogate, [i]), float(i in trained)) for i in layers]
        segments.append(Segment("head", self._forward(self.surrogate, [], head=whole)))
        looked_at = {"hidden": range(span.last + 1), "logits": range(self.target.num_hidden_layers)}.get(objective)
        teacher = 0 if looked_at is None else self._forward(self.target, looked_at, head=whole)
        epochs = self.settings.translator_training.get("num_train_epochs", 1.0)
        return round(self.settings.calibration.translator_samples * epochs * (training_macs(segments) + teacher))

    def _forward(self, config: PreTrainedConfig, layers: Iterable[int], head: bool = False) -> int:
        return decoder_macs(config, self.tokens, layers=layers, head=head)
