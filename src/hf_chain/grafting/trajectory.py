"""How far each layer's prediction is from the final one: where a target stops reading and starts to predict.

Sources: Zero-Shot Vision Encoder Grafting via LLM Surrogates (arXiv 2505.22664), prediction trajectory; ShortGPT
(arXiv 2403.03853), block influence.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM

from hf_chain.cost.macs import decoder_macs
from hf_chain.errors import HfChainError, reason
from hf_chain.grafting.anatomy import decoder_config
from hf_chain.grafting.batches import Batch, check_batches, real_tokens
from hf_chain.grafting.layer_predictions import (
    LayerPredictions,
    counted_positions,
    layers_of,
    logit_lens,
    predict_from_layers,
)
from hf_chain.module_modes import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

SMALLEST_SHARE = 1e-6
"""Clamp of the reference."""


@dataclass(frozen=True)
class Trajectory:
    """The prediction of a target with L layers, from the embeddings to the end.

    State `i` enters layer `i`, state L leaves the last layer. Distances are in nats, medians over the samples.

    Attributes:
        prediction_distance (`list[float]` of length L + 1): of each state, over the positions of a sample.
        vocabulary_kl (`list[float]` of length L + 1): of each state, KL divergence from the final prediction over the
            vocabulary, averaged over the positions of a sample.
        block_influence (`list[float]` of length L): of each layer, 1 − the mean cosine of what enters and what leaves.
        prediction_distance_quartiles (`list[list[float]]` of shape `[2, L + 1]`): 25 and 75 % of the samples lie
            below.
        vocabulary_kl_quartiles (`list[list[float]]` of shape `[2, L + 1]`): likewise.
        samples (`int`): sequences measured.
        skipped_samples (`int`): sequences with fewer than two predicted tokens, for which there is no distance.
        tokens (`int`): predicted tokens measured.
        macs (`int`): multiply-accumulate operations of the measurement.
        layer_parameters (`list[int]` of length L): parameters of each layer.
        other_parameters (`int`): parameters of the rest of the decoder, embeddings and head.
        layer_macs (`list[int]` of length L): MACs of each layer on one sample of mean length.
        other_macs (`int`): MACs of the head on that sample.
        model (`str`): name or path of the target.
    """

    prediction_distance: list[float]
    vocabulary_kl: list[float]
    block_influence: list[float]
    prediction_distance_quartiles: list[list[float]]
    vocabulary_kl_quartiles: list[list[float]]
    samples: int
    skipped_samples: int
    tokens: int
    macs: int
    layer_parameters: list[int]
    other_parameters: int
    layer_macs: list[int]
    other_macs: int
    model: str

    def __post_init__(self) -> None:
        states = [self.prediction_distance, self.vocabulary_kl]
        states += [*self.prediction_distance_quartiles, *self.vocabulary_kl_quartiles]
        layers = (self.layer_parameters, self.layer_macs)
        if {len(values) for values in states} != {self.num_layers + 1} or any(
            len(values) != self.num_layers for values in layers
        ):
            raise HfChainError(
                f"a trajectory of {self.num_layers} layers needs {self.num_layers + 1} distances and {self.num_layers}"
                " values a layer: measure it again"
            )

    @property
    def num_layers(self) -> int:
        """Layers of the target."""
        return len(self.block_influence)

    def parameters(self, kept: Collection[int] | None = None) -> int:
        """Parameters of the target, or of a surrogate that has its `kept` layers.

        Args:
            kept (`Collection[int]`, *optional*): the surrogate's layers, by their numbers in the target; all of them
                by default.

        Returns:
            `int`: embeddings and head included.
        """
        layers = range(self.num_layers) if kept is None else kept
        return self.other_parameters + sum(self.layer_parameters[layer] for layer in layers)

    def sample_macs(self, kept: Collection[int] | None = None) -> int:
        """Forward MACs on a sample of mean length of the target, or of a surrogate that has its `kept` layers.

        Args:
            kept (`Collection[int]`, *optional*): the surrogate's layers, by their numbers in the target; all of them
                by default.

        Returns:
            `int`: multiply-accumulate operations, the head's included.
        """
        layers = range(self.num_layers) if kept is None else kept
        return self.other_macs + sum(self.layer_macs[layer] for layer in layers)

    def to_json(self) -> str:
        """The trajectory as JSON text.

        Returns:
            `str`: what `from_json` reads.
        """
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Trajectory:
        """Reads what `to_json` wrote.

        Args:
            text (`str`): JSON.

        Returns:
            `Trajectory`: the trajectory.

        Raises:
            HfChainError: when the text is no trajectory.
        """
        try:
            return cls(**json.loads(text))
        except HfChainError:
            raise
        except (ValueError, TypeError) as error:
            raise HfChainError(
                f"this is no trajectory, {reason(error)}: measure it again with measure_trajectory"
            ) from error


def measure_trajectory(model: PreTrainedModel, batches: Iterable[Batch]) -> Trajectory:
    """Measures the prediction trajectory and the block influence of every layer; about 300 samples are enough.

    Memory beyond the model's own forward is described at `predict_from_layers`.

    Args:
        model (`PreTrainedModel`): a decoder with a language-model head, also one spread over devices by `device_map`.
        batches (`Iterable[Batch]`): `input_ids` and `attention_mask` `[B, T]`, padded on either
            side; with `labels` `[B, T]` only tokens whose label is not −100 count, such as the responses of a chat.

    Returns:
        `Trajectory`: distances and influences with what it cost to measure them.

    Raises:
        HfChainError: when it is not known how the model predicts, no sample has two predicted tokens, or a prediction
            is not finite.
    """
    measured = _Measurement(decoder_config(model.config), model.config.name_or_path or type(model).__name__)
    check_batches(batches, "text", passes=1)
    with evaluation_mode(model):
        lens = logit_lens(model)
        for batch in tqdm(batches, desc="Measuring the trajectory", leave=False):
            counted = counted_positions(batch)
            measured.samples += len(counted)
            if counted.any():
                measured.add(batch, counted, predict_from_layers(model, lens, batch, counted))
    return measured.trajectory()


def prediction_distance(true_token: torch.Tensor) -> torch.Tensor:
    """How far each state's prediction is from the last one's over the positions of one sample, by the paper's measure.

    The probabilities of the true tokens, p_l(t), are divided by their sum over the positions t and clamped at 1e-6;
    the distance is Σ_t p_L(t) · log(p_L(t) / p_l(t)).

    Args:
        true_token (`torch.Tensor` of shape `[L + 1, n]`): log-probabilities of the true next tokens.

    Returns:
        `torch.Tensor` of shape `[L + 1]`: float64, 0 at the last state.
    """
    # The softmax of logarithms over positions is the division by the sum, without underflow.
    share = true_token.double().softmax(1).clamp(min=SMALLEST_SHARE)
    return (share[-1] * (share[-1] / share).log()).sum(1)


class _Measurement:
    """Sums over the batches of a target."""

    def __init__(self, config: PreTrainedConfig, name: str) -> None:
        self.config, self.name = config, name
        self.head_macs = decoder_macs(config, 1, layers=())
        self.distances: list[torch.Tensor] = []
        self.divergences: list[torch.Tensor] = []
        self.influence = torch.zeros(config.num_hidden_layers, dtype=torch.float64)
        self.samples = self.tokens = self.length = self.macs = 0

    def add(self, batch: Batch, counted: torch.Tensor, predictions: LayerPredictions) -> None:
        if not predictions.vocabulary_kl.isfinite().all():
            raise HfChainError(
                f"predictions of {self.name} are not finite: load it with dtype=torch.bfloat16 or torch.float32"
            )
        lengths = [length for length in counted.sum(1).tolist() if length]
        self.distances += map(prediction_distance, predictions.true_token.split(lengths, 1))
        self.divergences += [kl.double().mean(1) for kl in predictions.vocabulary_kl.split(lengths, 1)]
        self.influence += (1 - predictions.cosine.double()).sum(1)
        self.tokens += sum(lengths)
        self.length += int(real_tokens(batch)[counted.any(1)].sum())
        rows, padded_length = counted.shape
        # The forward's head runs on the last position of each row, the measurement's on every state that counts.
        heads = rows + len(predictions.true_token) * sum(lengths)
        self.macs += rows * decoder_macs(self.config, padded_length, head=False) + heads * self.head_macs

    def trajectory(self) -> Trajectory:
        if not self.distances:
            raise HfChainError(
                f"none of {self.samples} samples has two predicted tokens, so nothing was measured: give longer texts"
            )
        mean_length = round(self.length / len(self.distances))
        distance, kl = torch.stack(self.distances), torch.stack(self.divergences)
        layer_parameters, other_parameters = _parameters(self.config)
        return Trajectory(
            prediction_distance=_quantile(distance, 0.5),
            vocabulary_kl=_quantile(kl, 0.5),
            block_influence=(self.influence / self.tokens).tolist(),
            prediction_distance_quartiles=[_quantile(distance, 0.25), _quantile(distance, 0.75)],
            vocabulary_kl_quartiles=[_quantile(kl, 0.25), _quantile(kl, 0.75)],
            samples=len(self.distances),
            skipped_samples=self.samples - len(self.distances),
            tokens=self.tokens,
            macs=self.macs,
            layer_parameters=layer_parameters,
            other_parameters=other_parameters,
            layer_macs=[
                decoder_macs(self.config, mean_length, layers=[layer], head=False)
                for layer in range(self.config.num_hidden_layers)
            ],
            other_macs=mean_length * self.head_macs,
            model=self.name,
        )


def _parameters(config: PreTrainedConfig) -> tuple[list[int], int]:
    """Parameters of each layer and of the rest of the decoder, free of the target's other towers, types and places."""
    with torch.device("meta"):
        decoder = AutoModelForCausalLM.from_config(config)
    layers = [sum(weight.numel() for weight in layer.parameters()) for layer in layers_of(decoder)]
    return layers, decoder.num_parameters() - sum(layers)


def _quantile(values: torch.Tensor, at: float) -> list[float]:
    """Quantile over the samples of `[samples, L + 1]`."""
    quantile: list[float] = values.quantile(at, dim=0).tolist()
    return quantile
