"""`fit_translator`: one method or several after another, and the report of what came out."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory

from transformers import PreTrainedModel

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import decoder_layers, text_config
from hf_chain.grafting.batches import Batch, check_batches, input_device
from hf_chain.grafting.layer_dropping import drop_layers
from hf_chain.grafting.lineage import SurrogateLineage, read_lineage, write_lineage
from hf_chain.grafting.ranges import Replaced, as_ranges
from hf_chain.grafting.target import open_target
from hf_chain.grafting.translator.least_squares import RidgeFit, closed_form
from hf_chain.grafting.translator.quality import Reference, measure_quality, measure_reference
from hf_chain.grafting.translator.report import TranslatorReport
from hf_chain.grafting.translator.splice_error import translator_modules
from hf_chain.grafting.translator.train import TranslatorTraining, train
from hf_chain.grafting.translator.translator_config import OBJECTIVES, TranslatorConfig, fields_for
from hf_chain.loaded_weights import require_finite

METHODS = ("inherit", "closed_form", "train", *(f"train:{objective}" for objective in OBJECTIVES))
"""Ways to make a translator; `train` alone takes the objective of its arguments."""

Method = str | Sequence[str]
"""A method, or several that are applied one after the other."""


def fit_translator(
    surrogate: PreTrainedModel,
    target: PreTrainedModel,
    batches: Iterable[Batch],
    method: Method = "closed_form",
    *,
    held_out: Iterable[Batch] | None = None,
    args: TranslatorConfig | None = None,
) -> TranslatorReport:
    """Makes the translators of a surrogate, in place. No other weight changes; its lineage names the method.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage, see `build_surrogate`.
        target (`PreTrainedModel`): what it was cut from, with the layers that were trained since (`carry_layers`).
        batches (`Iterable[Batch]`): text that can be gone through more than once, a list or a `TokenBatches`:
            `input_ids` and `attention_mask` `[B, L]`.
        method (`str` or `Sequence[str]`): `inherit` puts the target's own layers back; `closed_form` fits by least
            squares; `train`, or `train:hidden`, `train:logits` and `train:lm`, trains. Several go one after the other.
        held_out (`Iterable[Batch]`, *optional*): other text, on which the report measures the quality.
        args (`TranslatorConfig`, *optional*): how to train; its objective holds for plain `train`. By
            default as `TranslatorConfig` has it, with `bf16` for a surrogate in half precision.

    Returns:
        `TranslatorReport`: splice error, perplexity, time and cost.

    Raises:
        HfChainError: for an unknown method, a target the surrogate was not cut from, text that can be read only once,
            and what `closed_form` and `train` refuse.
    """
    steps = method_steps(method)
    for name, model in (("surrogate", surrogate), ("target", target)):
        if not isinstance(model, PreTrainedModel):
            raise HfChainError(f"the {name} is a {type(model).__name__}: give the model itself, loaded")
    lineage = read_lineage(surrogate.config)
    _check_target(surrogate, target, lineage)
    check_batches(batches, "batches")
    if held_out is not None:
        check_batches(held_out, "held_out")
    fits: list[RidgeFit] = []
    trainings: list[TranslatorTraining] = []
    made = [lineage.translator_method]
    start = time.perf_counter()
    for step in steps:
        if step == "inherit":
            inherit(surrogate, target, lineage)
            made = []
        elif step == "closed_form":
            fits += closed_form(surrogate, target, batches)
        else:
            step, training = _train(surrogate, target, batches, step, args)
            trainings.append(training)
        made.append(step)
    seconds = time.perf_counter() - start
    method = "+".join(name for name in made if name != "inherit") or "inherit"
    require_finite(surrogate, "the surrogate with its new translators")
    write_lineage(surrogate.config, replace(lineage, translator_method=method))
    return TranslatorReport(
        method=method,
        replaced=[str(span) for span in lineage.replaced],
        translators=lineage.translators,
        seconds=seconds,
        macs=sum(fit.macs for fit in fits) + sum(training.macs for training in trainings),
        fits=fits,
        trainings=trainings,
        quality=None if held_out is None else measure_quality(surrogate, target, held_out),
    )


def method_steps(method: Method) -> list[str]:
    """The methods to apply, in order.

    Args:
        method (`str` or `Sequence[str]`): as for `fit_translator`.

    Returns:
        `list[str]`: each one of `METHODS`.

    Raises:
        HfChainError: when there is none, or one is unknown.
    """
    steps = [method] if isinstance(method, str) else list(method)
    for step in steps:
        if step not in METHODS:
            raise HfChainError(f"translator method {step!r} is unknown: use one or several of {', '.join(METHODS)}")
    if not steps:
        raise HfChainError(f"no translator method is given: use one or several of {', '.join(METHODS)}")
    return steps


def inherit(surrogate: PreTrainedModel, target: PreTrainedModel, lineage: SurrogateLineage) -> None:
    """Puts the target's own layers back in place of the translators (arXiv 2505.22664).

    Args:
        surrogate (`PreTrainedModel`): the surrogate; changed in place.
        target (`PreTrainedModel`): what it was cut from.
        lineage (`SurrogateLineage`): the surrogate's.

    Raises:
        HfChainError: when the layers of either are offloaded.
    """
    originals = decoder_layers(target)
    for own, layer in zip(translator_modules(surrogate), lineage.translator_layers, strict=True):
        number = lineage.kept_layers[layer]
        if any(weight.is_meta for weight in originals[number].parameters()):
            raise HfChainError(
                f"layer {number} of the target is offloaded, and cannot be copied: cut the surrogate again, which"
                " reads it from the checkpoint"
            )
        own.load_state_dict(originals[number].state_dict())


def _train(
    surrogate: PreTrainedModel,
    target: PreTrainedModel,
    batches: Iterable[Batch],
    step: str,
    args: TranslatorConfig | None,
) -> tuple[str, TranslatorTraining]:
    """Trains, and says by which objective."""
    with TemporaryDirectory() as folder:
        # The Trainer makes its folder even when it saves nothing.
        args = TranslatorConfig(output_dir=folder, **fields_for(surrogate)) if args is None else copy.copy(args)
        args.objective = step.partition(":")[2] or args.objective
        return f"train:{args.objective}", train(surrogate, target, batches, args)


def _check_target(surrogate: PreTrainedModel, target: PreTrainedModel, lineage: SurrogateLineage) -> None:
    found, needed = text_config(target.config), text_config(surrogate.config)
    for name, value, expected in (
        ("model_type", found.model_type, needed.model_type),
        ("layers", found.num_hidden_layers, lineage.target_layers),
        ("hidden_size", found.hidden_size, needed.hidden_size),
        ("vocab_size", found.vocab_size, needed.vocab_size),
    ):
        if value != expected:
            raise HfChainError(
                f"the target has {name}={value}, the surrogate was cut from {lineage.target} with {name}={expected}:"
                " give that one"
            )


COMPARED: tuple[Method, ...] = (
    "inherit",
    "closed_form",
    "train:hidden",
    "train:logits",
    "train:lm",
    ("closed_form", "train:hidden"),
    ("closed_form", "train:logits"),
)
"""What is compared when nothing else is said."""


def compare_translators(
    target: PreTrainedModel,
    ranges: Replaced,
    calibration: Iterable[Batch],
    held_out: Iterable[Batch],
    methods: Sequence[Method] = COMPARED,
    *,
    translators: int = 1,
    args: TranslatorConfig | None = None,
) -> list[TranslatorReport]:
    """Makes translators of the same ranges by several methods and measures them; `translator_table` writes the table.

    One surrogate is in memory at a time, on the target's device.

    Args:
        target (`PreTrainedModel`): the language model, in memory.
        ranges (`str`, `LayerRange`, `range` or a sequence of them): the replaced ranges, such as `"16-26"`.
        calibration (`Iterable[Batch]`): text to fit and to train on.
        held_out (`Iterable[Batch]`): other text to measure on.
        methods (`Sequence`): see `fit_translator`; every entry is one row.
        translators (`int`): layers that stand for each range.
        args (`TranslatorConfig`, *optional*): how to train.

    Returns:
        `list[TranslatorReport]`: one for each method, in their order.

    Raises:
        HfChainError: as `build_surrogate` and `fit_translator`.
    """
    for method in methods:
        method_steps(method)
    check_batches(calibration, "calibration")
    check_batches(held_out, "held_out")
    reports: list[TranslatorReport] = []
    reference: Reference | None = None
    for method in methods:
        surrogate = drop_layers(open_target(target), as_ranges(ranges), translators).to(input_device(target) or "cpu")
        report = fit_translator(surrogate, target, calibration, method, args=args)
        reference = reference or measure_reference(target, read_lineage(surrogate.config).replaced, held_out)
        reports.append(replace(report, quality=measure_quality(surrogate, target, held_out, reference)))
    return reports
