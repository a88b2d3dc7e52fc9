"""Cutting a surrogate: a stock model of the target's own class with fewer layers (arXiv 2505.22664)."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hf_chain.engine import require_whole_weights
from hf_chain.errors import HfChainError
from hf_chain.files import whole_folder
from hf_chain.grafting.batches import Batch, check_batches
from hf_chain.grafting.cut import CHOOSING, Cut, check_budget, choose_cut, named_ranges
from hf_chain.grafting.layer_dropping import drop_layers
from hf_chain.grafting.ranges import Budget, Replaced
from hf_chain.grafting.shards import LICENSE_FILES, TOKENIZER_FILES
from hf_chain.grafting.target import CheckpointTarget, Target, open_target
from hf_chain.models.grafted_vlm.language_models import load_language_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel


def build_surrogate(
    target: str | Path | PreTrainedModel,
    replaced: Replaced,
    *,
    text: Iterable[Batch] | None = None,
    budget: Budget | None = None,
    translators: int = 1,
    output_dir: str | Path | None = None,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
) -> PreTrainedModel:
    """Cuts a surrogate out of a language model.

    The first `translators` layers of each range stay, with their own weights, and stand in for it; the rest of the
    range is dropped. Everything else is the target's. From a folder or the Hub, only tensors that stay are read, one
    after the other, and only shards that hold some are downloaded. A criterion needs the whole target once, to measure
    it.

    Args:
        target (`str`, `Path` or `PreTrainedModel`): folder or Hub name of a checkpoint in safetensors, or a model in
            memory, whose kept weights are copied; where it is partly offloaded, they are read from the checkpoint that
            it was loaded from. Of a composite model, the decoder is taken.
        replaced (`str`, `LayerRange`, `range` or a sequence of them): the ranges of layers to replace, such as
            `"16-26"`, to which both ends belong, or `range(16, 27)`; the first layer is 0. Or the criterion that
            chooses them: `"two_segment"`, `"block_influence"` or `"splice_error"`.
        text (`Iterable[Batch]`, *optional*): what a criterion measures the target on: batches of `input_ids` and
            `attention_mask` `[B, T]`, such as those of `token_batches`; see `measure_trajectory`. `splice_error` reads
            it several times.
        budget (`Budget`, *optional*): the most that the surrogate may be when a criterion chooses.
        translators (`int`): layers that stand in for each range.
        output_dir (`str` or `Path`, *optional*): new folder for the surrogate, with the target's tokenizer and
            generation configuration, and with what a criterion measured. It appears when all of it is written.
        revision (`str`, *optional*): branch, tag or commit of a target on the Hub.
        dtype (`str` or `torch.dtype`, *optional*): type of the weights; the target's by default.

    Returns:
        `PreTrainedModel`: the surrogate on the CPU, in evaluation mode, with its lineage in its configuration.

    Raises:
        HfChainError: when the target is no model that grafting knows or cannot be read, when the ranges do not fit
            it, when a criterion has no text or finds no range within the budget, or when `output_dir` exists.
    """
    if output_dir is not None and Path(output_dir).exists():
        raise HfChainError(f"output_dir={output_dir} exists already: give a folder that does not")
    require_whole_weights("cut the surrogate before the training arguments")
    found = open_target(target, revision)
    if replaced in CHOOSING:
        cut = _measured(target, found.config, str(replaced), text, budget, translators, revision)
    else:
        cut = Cut(named_ranges(replaced), translators)
        if text is not None or budget is not None:
            named = ",".join(map(str, cut.ranges))
            raise HfChainError(f"text and budget are for criteria, and layers {named} are named: leave them out")
    surrogate = drop_layers(found, cut.ranges, translators, dtype)
    surrogate.name_or_path = surrogate.config.name_or_path = str(output_dir or "")
    if output_dir is not None:
        _write(surrogate, found, cut, Path(output_dir))
    return surrogate


def _measured(
    target: str | Path | PreTrainedModel,
    config: PreTrainedConfig,
    criterion: str,
    text: Iterable[Batch] | None,
    budget: Budget | None,
    translators: int,
    revision: str | None,
) -> Cut:
    if text is None:
        raise HfChainError(f"{criterion} measures the target: give text, such as token_batches(…), or name the layers")
    check_batches(text, "text", passes=2 if criterion == "splice_error" else 1)
    check_budget(config, criterion, budget, translators)
    whole = load_language_model(target, revision=revision)
    return choose_cut(whole, criterion, text, text, budget=budget, translators=translators)


def _write(surrogate: PreTrainedModel, target: Target, cut: Cut, folder: Path) -> None:
    try:
        with whole_folder(folder) as staging:
            surrogate.save_pretrained(staging, max_shard_size="5GB")
            cut.write(staging)
            if isinstance(target, CheckpointTarget):
                for pattern in (*TOKENIZER_FILES, *LICENSE_FILES):
                    for path in target.checkpoint.folder.glob(pattern):
                        copy = staging / path.relative_to(target.checkpoint.folder)
                        copy.parent.mkdir(exist_ok=True)
                        shutil.copyfile(path, copy)
    except OSError as error:
        raise HfChainError(f"output_dir={folder} cannot be written ({error.strerror}): choose another") from error
