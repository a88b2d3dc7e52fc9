"""Training of a language model: packed rows -> logits -> nats a token, and the divergence from the teacher."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

from hf_chain.adapters import check_no_adapter
from hf_chain.arguments.checkpointing import checkpoints_activations
from hf_chain.cost import StepCost
from hf_chain.cost.macs import decoder_macs
from hf_chain.cost.steps import BACKWARD_FORWARDS, Segment, piece_macs, training_macs
from hf_chain.distillation import LiveTeacher
from hf_chain.distillation.teacher import FeatureSource
from hf_chain.engine import builds_in_pieces, size_of
from hf_chain.errors import HfChainError
from hf_chain.families import FAMILIES, family_of
from hf_chain.grafting.anatomy import scaled_logits
from hf_chain.losses import next_token_losses, token_divergences
from hf_chain.tasks.task import Batch, Features, Handed, Task


class LanguageTeacher(LiveTeacher):
    """A frozen language model, which hands on its logits `[B, L, W]`.

    A cache keeps what its head reads, `[B, L, D]`.
    """

    reads = ("input_ids",)

    @torch.no_grad()
    def stored(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The last hidden state, behind the last norm."""
        hidden: torch.Tensor = self.model.get_decoder()(
            input_ids=batch["input_ids"], use_cache=False
        ).last_hidden_state
        return hidden

    def stored_shape(self, dataset: Any) -> tuple[int, ...]:
        """Tokens by the width of the head."""
        return (int(dataset.row_tokens), self.model.get_output_embeddings().weight.shape[1])

    def storing_macs(self, dataset: Any) -> int:
        """All but the head."""
        return decoder_macs(self.model.config, dataset.row_tokens, head=False)

    def handing_macs(self, dataset: Any) -> int:
        """The head on every token."""
        return decoder_macs(self.model.config, dataset.row_tokens, layers=())

    @torch.no_grad()
    def handed(self, stored: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Its logits, as the stock class makes them."""
        return (scaled_logits(self.model.get_output_embeddings()(stored), self.model.config),)

    @torch.no_grad()
    def features(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Runs the teacher on `input_ids` `[B, L]`."""
        return (self.model(input_ids=batch["input_ids"], use_cache=False).logits,)


class CausalLMTask(Task):
    """Trains a decoder, as `AutoModelForCausalLM` gives it, on rows of tokens without padding.

    The loss is the mean cross-entropy of the next token, in nats; the distance to the teacher the mean KL divergence
    of the predictions, at temperature 1, over the words of both. Predictions for `compute_metrics` are the mean loss
    of each row `[N]`, and labels its tokens `[N, L]`. Source of the distance: Hinton et al. (arXiv 1503.02531).

    Args:
        args (`ChainConfig`): arguments of the training.
    """

    evaluator = "language"
    collator = "collate_rows"
    inputs = ("input_ids",)
    options = {"use_cache": False}
    labels = "input_ids"
    additive = True
    unit = "tokens"

    def teacher(self, given: Any, student: nn.Module) -> FeatureSource:
        """A language model of any family that reads the same tokens, or a cache of such a one."""
        if not isinstance(given, nn.Module) and hasattr(given, "features"):
            source: FeatureSource = given
            return source
        _check_decoder(given, "the teacher")
        for field in ("eos_token_id", "bos_token_id"):
            has, needs = (getattr(model.config, field, None) for model in (given, student))
            if None not in (has, needs) and has != needs:
                raise HfChainError(
                    f"the teacher has {field}={has} and the model {needs}: give a teacher that was trained with the "
                    "same tokenizer"
                )
        has, most = given.config.vocab_size, getattr(getattr(student, "config", None), "vocab_size", math.inf)
        if has > most:
            raise HfChainError(
                f"the teacher has vocab_size={has} and the model {most}, which cannot predict all of its words: give "
                "a teacher that was trained with the same tokenizer"
            )
        return LanguageTeacher(given)

    def wrap(self, model: nn.Module, teacher: FeatureSource | None) -> PreTrainedModel:
        """The model itself."""
        return _check_decoder(model, "the model")

    def units(self, data: Any) -> int:
        """Tokens of a row."""
        if hasattr(data, "row_tokens"):
            return int(data.row_tokens)
        row = data[0] if hasattr(data, "__getitem__") else next(iter(data))
        return len(row["input_ids"])

    def step_cost(self, model: PreTrainedModel, teacher: PreTrainedModel | None, data: Any, steps: int) -> StepCost:
        """Student and live teacher on rows of the data's length; nothing goes back to what is frozen below."""
        args, tokens = self.args, self.units(data)
        _check_length(model, tokens, "the model")
        student, taught = _training_macs(model, tokens, bool(args.gradient_checkpointing)), 0
        if teacher is not None:
            _check_length(teacher, tokens, "the teacher")
            taught = decoder_macs(teacher.config, tokens)
        return self.cost(student, taught, steps)

    @property
    def columns(self) -> list[str]:
        """The tokens."""
        return ["input_ids"]

    def loss(self, features: Features, batch: Batch) -> torch.Tensor:
        """Nats a token; as all rows have one length, the mean over processes is that over all tokens."""
        mask = batch.get("attention_mask")
        if mask is not None and not mask.all():
            raise HfChainError("a row has padding, which would count as text: pack texts into rows of one length")
        return next_token_losses(features["logits"], batch["input_ids"]).mean()

    def handed(self, features: Features) -> Handed:
        """The logits."""
        return (features["logits"],)

    def feature_loss(self, student: Handed, teacher: Handed) -> torch.Tensor:
        """Mean KL divergence of a token."""
        return token_divergences(*student, *teacher).mean()

    def predictions(self, features: Features, batch: Batch) -> tuple[torch.Tensor, ...]:
        """The mean loss of each row: logits of a whole evaluation would not fit into memory."""
        return (next_token_losses(features["logits"], batch["input_ids"]).mean(dim=1),)


def _check_decoder(model: Any, name: str) -> PreTrainedModel:
    config = getattr(model, "config", None)
    stock = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), ())
    if getattr(config, "model_type", None) not in FAMILIES or not isinstance(model, stock):
        raise HfChainError(
            f"{name} is a {type(model).__name__}, no language model of a known family: give one that "
            "AutoModelForCausalLM loads, of a family in docs/families.md"
        )
    if not builds_in_pieces():
        check_no_adapter(model, name)
    return model


def _check_length(model: PreTrainedModel, tokens: int, name: str) -> None:
    most = getattr(model.config, "max_position_embeddings", None)
    if most is not None and tokens > most:
        raise HfChainError(
            f"rows have {tokens} tokens, and {name} has max_position_embeddings={most}: lower row_tokens, or give a "
            "model for longer texts"
        )


def _training_macs(model: PreTrainedModel, tokens: int, checkpointing: bool) -> int:
    """MACs of a row, forward and backward, with activations that are computed again."""
    pieces = piece_macs(model.config, tokens)
    if all(parameter.requires_grad for parameter in model.parameters()):
        total = (1 + BACKWARD_FORWARDS) * sum(pieces.values())
    else:
        total = training_macs(_segments(model, pieces))
    again = checkpointing or checkpoints_activations(model)
    return total + again * sum(macs for name, macs in pieces.items() if name != "head")


def _segments(model: PreTrainedModel, pieces: dict[str, int]) -> list[Segment]:
    """The model in the order of its forward pass, with the share of each piece that is trained."""
    stream, head = family_of(model.config).streams[0], model.get_output_embeddings()
    ends = f"{next(name for name, module in model.named_modules() if module is head)}."
    sizes, trained = dict.fromkeys(("embeddings", *pieces), 0), dict.fromkeys(("embeddings", *pieces), 0)
    # A tied weight is at both ends.
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if stream.is_of(stream.last_norm, name):
            continue
        block = stream.block_of(name)
        piece = f"decoder.{block}" if block is not None else "head" if name.startswith(ends) else "embeddings"
        sizes[piece] += size_of(parameter)
        trained[piece] += size_of(parameter) * parameter.requires_grad
    return [Segment(name, pieces.get(name, 0), trained[name] / max(1, sizes[name])) for name in sizes]
