"""Cutting a surrogate out of a published language model into a folder: what `hf-chain surrogate` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import AutoConfig

from hf_chain.data.text import TokenBatches, stream_rows, token_batches
from hf_chain.errors import HfChainError
from hf_chain.files import check_new_folder, new_folder, write_text
from hf_chain.grafting.anatomy import num_layers
from hf_chain.grafting.cut import CHOOSING, check_budget, choose_cut, named_ranges
from hf_chain.grafting.ranges import Budget, check_ranges, parse_ranges
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.grafting.translator.fit import fit_translator, method_steps
from hf_chain.methods.graft.card.folder_card import write_surrogate_card
from hf_chain.methods.graft.data import TextAlone
from hf_chain.methods.graft.headline import check_checkpoint, on_gpus
from hf_chain.methods.graft.surrogate_stage import cut_lines, quality_lines, saving_line
from hf_chain.models.grafted_vlm.language_models import load_language_model, load_tokenizer, named_errors
from hf_chain.runs.environment import describe_environment

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class SurrogateOptions:
    """What `hf-chain surrogate` is told; see its `--help`."""

    replaced: str = "two_segment"
    translators: int = 1
    methods: Sequence[str] = ("closed_form",)
    data: str | None = None
    budget: str | None = None
    samples: int = 1000
    measured: int = 300
    max_tokens: int = 512
    batch_size: int = 8
    responses_only: bool = False
    revision: str | None = None

    @property
    def needs_text(self) -> bool:
        """Whether something is measured or fitted."""
        return self.replaced in CHOOSING or list(self.methods) != ["inherit"]


def cut_folder(target: str, output: Path, options: SurrogateOptions, command: str = "") -> str:
    """Cuts a surrogate, makes its translators and writes a folder that stock classes load.

    Named layers with the method `inherit`, and no text to measure on, are cut without loading the target.

    Args:
        target (`str`): folder or Hub name of a decoder-only language model.
        output (`Path`): new folder.
        options (`SurrogateOptions`): how.
        command (`str`): what was typed, for the card.

    Returns:
        `str`: what came out, in a few lines.

    Raises:
        HfChainError: when the target cannot be read or cut so, the text cannot be used, or the folder cannot be made.
    """
    check_new_folder(output)
    method_steps(options.methods)
    budget = parse_budget(options.budget)
    if options.replaced not in CHOOSING:
        _check_named(options.replaced, budget)
    check_checkpoint(target, options.revision)
    if options.data is None and options.needs_text:
        raise HfChainError(
            "the criterion or the method needs text: give --data, a file of texts or conversations, or name the layers"
            " and use --method inherit"
        )
    if options.data is None:
        with new_folder(output) as folder:
            folder.rmdir()  # build_surrogate makes it; the card comes on top before it takes its name.
            surrogate = build_surrogate(
                target,
                options.replaced,
                translators=options.translators,
                output_dir=folder,
                revision=options.revision,
            )
            _write_card(folder, surrogate, output.name, options, command)
        whole_config = AutoConfig.from_pretrained(target, revision=options.revision)
        return "\n".join([str(output), *cut_lines(surrogate), saving_line(whole_config, surrogate.config)])
    whole, tokenizer = _load(target, options, budget)
    fitting, held_out = _text(options, tokenizer)
    cut = choose_cut(whole, options.replaced, held_out, fitting, budget=budget, translators=options.translators)
    surrogate = build_surrogate(target, cut.ranges, translators=cut.translators, revision=options.revision)
    surrogate = surrogate.to(whole.device)
    report = fit_translator(surrogate, whole, fitting, list(options.methods), held_out=held_out)
    with new_folder(output) as folder:
        surrogate.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_text(folder / "translator.json", report.to_json())
        cut.write(folder)
        _write_card(folder, surrogate, output.name, options, command, cut.macs)
    drawn = [f"the cut is drawn in {output / 'trajectory.png'}"] if cut.trajectory is not None else []
    saved = saving_line(whole.config, surrogate.config, options.replaced if options.replaced in CHOOSING else None)
    return "\n".join([str(output), *cut_lines(surrogate), saved, *quality_lines(report), *drawn])


def _write_card(
    folder: Path,
    surrogate: PreTrainedModel,
    title: str,
    options: SurrogateOptions,
    command: str,
    cut_macs: int = 0,
) -> None:
    write_surrogate_card(
        folder,
        title,
        surrogate.num_parameters(),
        command=command,
        environment=describe_environment(),
        data=options.data,
        cut_macs=cut_macs,
    )


def _check_named(replaced: str, budget: Budget | None) -> None:
    named_ranges(replaced)
    if budget is not None:
        raise HfChainError(f"a budget of {budget} is for criteria, and layers {replaced} are named: leave it out")


def parse_budget(text: str | None) -> Budget | None:
    """Reads a budget, such as `layers=12`.

    Raises:
        HfChainError: when it has another form, or an impossible value.
    """
    if text is None:
        return None
    name, _, value = text.partition("=")
    kinds = {"layers": int, "parameters": float, "macs_share": float}
    try:
        number: Any = kinds[name.strip()](value)
        return Budget(**{name.strip(): int(number) if name.strip() == "parameters" else number})
    except HfChainError:
        raise
    except (KeyError, ValueError, OverflowError) as error:
        raise HfChainError(
            f"budget {text!r} cannot be read: write layers=12, macs_share=0.6 or parameters=2e9"
        ) from error


def _load(
    target: str, options: SurrogateOptions, budget: Budget | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = load_tokenizer(target, revision=options.revision)
    with named_errors("configuration of", target):
        config = AutoConfig.from_pretrained(target, revision=options.revision)
    if options.replaced in CHOOSING:
        check_budget(config, options.replaced, budget, options.translators)
    else:
        check_ranges(parse_ranges(options.replaced), num_layers(config), options.translators)
    # What is wrong with the text shows before a large model is loaded.
    for part, count in zip(_text(options, tokenizer), ("samples", "measured"), strict=True):
        if next(iter(part.rows), None) is None:
            raise HfChainError(
                f"{options.data} has too few rows: the first {options.measured} are measured on and the next"
                f" {options.samples} fitted on, so none is left for --{count}; lower --measured"
            )
        next(iter(part))
    return load_language_model(target, revision=options.revision, **on_gpus()).eval(), tokenizer


def _text(options: SurrogateOptions, tokenizer: PreTrainedTokenizerBase) -> tuple[TokenBatches, TokenBatches]:
    """What is fitted on and, from the rows before it, what is measured on."""
    name = str(options.data)
    rows: Any = stream_rows(name, "train")
    if isinstance(rows, Dataset):
        rows = rows.to_iterable_dataset()

    def batches(part: Any) -> TokenBatches:
        rows = TextAlone(part, name)
        found = token_batches(
            rows,
            tokenizer,
            batch_size=options.batch_size,
            max_tokens=options.max_tokens,
            responses_only=options.responses_only,
        )
        return replace(found, name=name)

    held_out = batches(rows.take(options.measured))
    return batches(rows.skip(options.measured).take(options.samples)), held_out
